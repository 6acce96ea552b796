package vrrp

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write what was seen into testdata")

var names = []string{"zero", "send", "master", "backup", "fault", "init", "announce", "announce-lower", "ask", "follow"}

func (a Actions) String() string {
	var s []string
	for i, n := range names {
		if a&(1<<i) != 0 {
			s = append(s, n)
		}
	}
	if s == nil {
		return "nothing"
	}
	return strings.Join(s, " ")
}

// A transcript is the story of one router: "TIME EVENT -> ACTIONS; STATE, next
// TIME". A "-" as time is that of the deadline.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := retell(t, string(want))
			if *update {
				err = os.WriteFile(file, []byte(got), 0o644)
			} else if got != string(want) {
				t.Errorf("it went otherwise:\n%s", got)
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

func retell(t *testing.T, story string) string {
	var m *Machine
	var out strings.Builder
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	local := netip.MustParseAddr("192.0.2.5")
	for line := range strings.Lines(story) {
		line = strings.TrimRight(line, "\n")
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || words[0] == "#":
			fmt.Fprintln(&out, line)
			continue
		case words[0] == "router":
			m = NewMachine(settings(t, words[1:]), start)
			fmt.Fprintln(&out, line)
			continue
		}
		event, _, _ := strings.Cut(line, " -> ")
		words = strings.Fields(event)
		now := m.Deadline()
		if words[0] != "-" {
			after, err := time.ParseDuration(words[0])
			if err != nil {
				t.Fatal(line, err)
			}
			now = start.Add(after)
		}
		a := apply(t, m, words[1:], local, now)
		state, _ := m.State()
		fmt.Fprintf(&out, "%-36s -> %s; %s", strings.TrimRight(event, " "), a, state)
		if d := m.Deadline(); !d.IsZero() {
			fmt.Fprintf(&out, ", next %v", d.Sub(start))
		}
		fmt.Fprintln(&out)
	}
	return out.String()
}

func settings(t *testing.T, words []string) Settings {
	s := Settings{Version: 3, Priority: 100, Interval: time.Second, DownAdverts: 3, Preempt: true, LowerAdvert: true}
	for _, w := range words {
		name, value, _ := strings.Cut(w, "=")
		n, nerr := strconv.Atoi(value)
		d, derr := time.ParseDuration(value)
		switch {
		case name == "version" && nerr == nil:
			s.Version = uint8(n)
		case name == "priority" && nerr == nil:
			s.Priority = uint8(n)
		case name == "down" && nerr == nil:
			s.DownAdverts = n
		case name == "interval" && derr == nil:
			s.Interval = d
		case name == "delay" && derr == nil:
			s.PreemptDelay = d
		case w == "nopreempt":
			s.Preempt = false
		case w == "nolower":
			s.LowerAdvert = false
		case w == "higher":
			s.HigherAdvert = true
		case w == "grouped":
			s.Grouped = true
		default:
			t.Fatalf("%q is no setting", w)
		}
	}
	return s
}

func apply(t *testing.T, m *Machine, words []string, local netip.Addr, now time.Time) Actions {
	switch words[0] {
	case "startup":
		return m.Startup(now)
	case "shutdown":
		return m.Shutdown(now)
	case "fault":
		return m.Fault(now)
	case "expired":
		return m.Expired(now)
	case "promote":
		return m.Promote(now)
	case "demote":
		return m.Demote(now)
	case "priority":
		p, err := strconv.Atoi(words[1])
		if err != nil {
			t.Fatal(err)
		}
		return m.SetPriority(uint8(p), now)
	case "advert": // PRIORITY [ADDRESS [INTERVAL]]
		p, err := strconv.Atoi(words[1])
		if err != nil {
			t.Fatal(err)
		}
		a := Advert{Priority: uint8(p), Interval: time.Second, From: netip.MustParseAddr("192.0.2.9")}
		if len(words) > 2 {
			a.From = netip.MustParseAddr(words[2])
		}
		if len(words) > 3 {
			if a.Interval, err = time.ParseDuration(words[3]); err != nil {
				t.Fatal(err)
			}
		}
		return m.Received(a, local, now)
	}
	t.Fatalf("%q is no event", words[0])
	return 0
}
