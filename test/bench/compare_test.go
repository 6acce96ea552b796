package main

import (
	"flag"
	"io"
	"strings"
	"testing"
	"time"
)

func options(t *testing.T, args ...string) (comparison, error) {
	t.Helper()
	f := flag.NewFlagSet("failover", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	o := comparisonFlags(f)
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	return o.parse()
}

func TestWhatIsComparedIsChosenByParts(t *testing.T) {
	for _, c := range []struct {
		name, args string
		want       string // systems, or the beginning of the error
		events     int
	}{
		{"everything of ours", "", "keepbeat witness default, keepbeat witness fast, keepbeat pair fencing, keepbeat pair ping, keepbeat pair unsafe, " +
			"keepbeat router advert_int 1s, keepbeat router advert_int 100ms, keepbeat router advert_int 10ms", 8},
		{"a part of a name", "-system pair -compare death,freeze", "keepbeat pair fencing, keepbeat pair ping, keepbeat pair unsafe", 2},
		{"peers when they are asked for", "-peers -system 0.1,deadtime_1s -compare none", "keepalived advert_int 0.1, heartbeat keepalive 200ms deadtime 1s", 0},
		{"a peer that was not asked for", "-system keepalived", "-system keepalived: there are keepbeat witness default, ", 0},
		{"an event that there is not", "-compare fire", "-compare fire: there are death, stop, ", 0},
		{"no time", "-lasting 0s", "-short-n 4 -lasting-n 1 -lanes 5 -lasting 0s: want ", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var args []string
			for _, a := range strings.Fields(c.args) {
				args = append(args, strings.ReplaceAll(a, "_", " "))
			}
			got, err := options(t, args...)
			if err != nil {
				if !strings.HasPrefix(err.Error(), c.want) {
					t.Errorf("%v, want %s", err, c.want)
				}
				return
			}
			var names []string
			for _, s := range got.systems {
				names = append(names, s.String())
			}
			if all := strings.Join(names, ", "); all != c.want || len(got.happenings) != c.events {
				t.Errorf("%s and %d events, want %s and %d", all, len(got.happenings), c.want, c.events)
			}
		})
	}
}

func TestNoSystemHasACommaInItsName(t *testing.T) {
	for _, s := range systems(true) {
		if strings.Contains(s.String(), ",") {
			t.Errorf("%s: -system could not name it", s)
		}
	}
}

func TestWhatWasNotMeasuredIsARowWithItsReason(t *testing.T) {
	lacking := system{name: "keepalived", config: "advert_int 1", needs: "/no/such/program", lacks: map[string]string{"standby": "it has no such command"}}
	c := comparison{systems: []system{lacking}, n: 1, lastingN: 0, lanes: 1, lasting: time.Second}
	for _, h := range happenings() {
		if h.name == "death" || h.name == "standby" || h.name == "freeze" {
			c.happenings = append(c.happenings, h)
		}
	}
	rows := c.run(t.Context())
	want := map[string]string{"death": "/no/such/program", "standby": "it has no such command", "freeze": "not asked for"}
	if len(rows) != len(want) {
		t.Fatalf("%d rows, want %d", len(rows), len(want))
	}
	shown := table(rows)
	for _, r := range rows {
		if r.Count != 0 || !strings.Contains(r.NotMeasured, want[r.Event]) || !strings.Contains(shown, r.NotMeasured) {
			t.Errorf("%s: %d times, %q in\n%s", r.Event, r.Count, r.NotMeasured, shown)
		}
	}
	// What a system does not have is no failure of the benchmark.
	if err := failures(rows); err == nil || strings.Count(err.Error(), "\n") != 0 || !strings.Contains(err.Error(), "death") {
		t.Errorf("failures: %v; want that death was not measured, and no more", err)
	}
}

func TestTheTableHasTheFigures(t *testing.T) {
	r := &Row{System: "heartbeat", Configuration: "keepalive 1s", Event: "freeze", Untaken: 1}
	r.fill([]time.Duration{time.Second, 3 * time.Second}, []time.Duration{0, 2 * time.Second}, []time.Duration{40 * time.Millisecond, 20 * time.Millisecond})
	line := strings.Split(table([]*Row{r}), "\n")[1]
	for _, want := range []string{"heartbeat  keepalive 1s", "1000 / 1000 / 3000 / 3000", "0 / 0 / 2000", "  40  "} {
		if !strings.Contains(line, want) {
			t.Errorf("no %q in: %s", want, line)
		}
	}
}
