package fencing

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keepbeat/keepbeat/conf"
)

// dogOf waits 20 s for b.
func dogOf() conf.FenceDevice {
	return conf.FenceDevice{Name: "dog", Type: conf.FenceWatchdog, Timeout: 20 * time.Second, Targets: []conf.FenceTarget{{Node: "b"}}}
}

// TestAWatchdogFencesOnlyWhoIsKnownToResetItself has a node of which that is known until some time.
func TestAWatchdogFencesOnlyWhoIsKnownToResetItself(t *testing.T) {
	for _, c := range []struct {
		name  string
		until time.Duration
		also  string // of the level
		next  bool   // there is a next level
		want  string // what was done, and when it was over
		err   string // empty: it was fenced
	}{
		{"it is known", time.Hour, "", false, "20s", ""},
		{"it is not: at once, and not after the wait", 0, "", false, "0s", "level 1, device dog, reboot: its watchdog is not armed"},
		{"it is not: the next level", 0, "", true, "0s: x reboot b 7; 0s", ""},
		{"it was: another daemon has been started there during the wait", 10 * time.Second, "", false, "20s", "level 1, device dog, reboot: its watchdog is not armed"},
		{"of a level nothing is done then", 0, "y", false, "0s", "level 1, device dog, off: its watchdog is not armed"},
		{"of a level all is done otherwise", time.Hour, "y", false, "0s: y off b 7; 20s: y on b 7; 20s", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				level := []string{"dog"}
				if c.also != "" {
					level = []string{c.also, "dog"}
				}
				spec := &conf.Fencing{Devices: []conf.FenceDevice{dev("x"), dev("y"), dogOf()}, Topology: map[string][][]string{"b": {level}}}
				if c.next {
					spec.Topology["b"] = append(spec.Topology["b"], []string{"x"})
				}
				s := newStory(spec, works)
				s.cfg.Resets = func(node string, within time.Duration) error {
					if node != "b" || within != 20*time.Second {
						return fmt.Errorf("asked about %s within %v", node, within)
					}
					if time.Since(s.began) >= c.until {
						return errors.New("its watchdog is not armed")
					}
					return nil
				}
				out, err := s.Fence(t.Context(), Target{Node: "b"}, conf.FenceReboot, nil)
				if out.Done != (c.err == "") || (err == nil) != out.Done || err != nil && !strings.Contains(err.Error(), c.err) {
					t.Errorf("%+v, %v", out, err)
				}
				got := strings.Join(append(s.lines, time.Since(s.began).String()), "; ")
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestWithoutAWordOfItNobodyIsBelievedToResetItself(t *testing.T) {
	f := New(Config{Node: "a"})
	f.Configure(&conf.Fencing{Devices: []conf.FenceDevice{dogOf()}})
	out, err := f.Fence(t.Context(), Target{Node: "b", Silent: time.Hour}, conf.FenceReboot, nil)
	if out.Done || err == nil || !strings.Contains(err.Error(), errUnknown.Error()) {
		t.Errorf("%+v, %v", out, err)
	}
	if err := f.Can("b"); !errors.Is(err, ErrNoDevice) || !strings.Contains(err.Error(), errUnknown.Error()) {
		t.Errorf("it can: %v", err)
	}
	if plan := f.Plan("b", conf.FenceReboot); len(plan) != 1 || !strings.Contains(plan[0], "cannot be done from here: device dog: "+errUnknown.Error()) {
		t.Errorf("it would %q", plan)
	}
	test, err := f.Test(t.Context(), "dog")
	if err != nil || len(test) != 1 || test[0].Error != errUnknown.Error() {
		t.Errorf("it answers: %+v, %v", test, err)
	}
	if st := f.Status(); st[0].Error != "" {
		t.Errorf("what the test has found stands for ever: %+v", st)
	}
}
