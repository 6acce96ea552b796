package fencing

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keepbeat/keepbeat/conf"
)

// TestNothingIsAttemptedThatMayNotBe has devices that fail after 2 s, and says until
// when they may be asked.
func TestNothingIsAttemptedThatMayNotBe(t *testing.T) {
	over := errors.New("it is over")
	x, y := dev("x"), dev("y")
	later := dev("later")
	later.Delay = 5 * time.Second
	supplies := map[string][][]string{"b": {{"x", "y"}}}
	for _, c := range []struct {
		name   string
		spec   conf.Fencing
		action conf.FenceAction
		works  string // the device that does
		until  time.Duration
		want   string
		err    string // empty: it was fenced
	}{
		{
			name: "not even the first", spec: conf.Fencing{Devices: []conf.FenceDevice{x}}, action: conf.FenceOff, until: 0,
			want: `0s: may it?`, err: "b was not fenced (off): level 1, device x was not asked: it is over",
		}, {
			name: "asked after the wait for it", spec: conf.Fencing{Devices: []conf.FenceDevice{later}}, action: conf.FenceOff, until: 4 * time.Second,
			want: `5s: may it?`, err: "b was not fenced (off): level 1, device later was not asked: it is over",
		}, {
			name: "not again with the same device", spec: conf.Fencing{Devices: []conf.FenceDevice{x, y}}, action: conf.FenceOff, until: time.Second,
			want: `0s: may it?
				0s: x off b 7
				3s: may it?`,
			err: "b was not fenced (off): level 1, device x, off: broken; level 1, device x was not asked: it is over",
		}, {
			name: "not with that of the next level", spec: conf.Fencing{Devices: []conf.FenceDevice{x, y}}, action: conf.FenceOff, until: 4 * time.Second,
			want: `0s: may it?
				0s: x off b 7
				3s: may it?
				3s: x off b 7
				5s: may it?`,
			err: "b was not fenced (off): level 1, device x, off: broken; level 2, device y was not asked: it is over",
		}, {
			name: "not with the second supply of a level, which leaves it running", spec: conf.Fencing{Devices: []conf.FenceDevice{x, y}, Topology: supplies},
			action: conf.FenceReboot, works: "x", until: time.Second,
			want: `0s: may it?
				0s: x off b 7
				2s: may it?`,
			err: "b was not fenced (reboot): level 1, device y was not asked: it is over; what x has switched off for it stays off: see to it",
		}, {
			name: "but it is switched on again whatever is so by then", spec: conf.Fencing{Devices: []conf.FenceDevice{x, x}, Topology: map[string][][]string{"b": {{"x", "x"}}}},
			action: conf.FenceReboot, works: "x", until: 3 * time.Second,
			want: `0s: may it?
				0s: x off b 7
				2s: may it?
				2s: x off b 7
				4s: x on b 7
				6s: x on b 7`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStory(&c.spec, func(_ context.Context, device string, _ job) error {
					time.Sleep(2 * time.Second)
					if device == c.works {
						return nil
					}
					return errors.New("broken")
				})
				out, err := s.Fence(t.Context(), Target{Node: "b", May: func(context.Context) error {
					s.say("may it?")
					if time.Since(s.began) < c.until {
						return nil
					}
					return over
				}}, c.action, nil)
				s.told(t, c.want)
				if c.err == "" && (err != nil || !out.Done) || c.err != "" && (!errors.Is(err, over) || out.Done) {
					t.Fatalf("outcome %+v, %v", out, err)
				}
				if c.err != "" && cmp.Diff(c.err, err.Error()) != "" {
					t.Errorf("it says (-want +got):\n%s", cmp.Diff(c.err, err.Error()))
				}
			})
		})
	}
}

// What holds a device up is over before it is asked whether it may be used.
func TestThatItMayIsAskedWhenTheDeviceIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := dev("pdu")
		d.Targets = append(d.Targets, conf.FenceTarget{Node: "c", Port: "8"})
		s := newStory(&conf.Fencing{Devices: []conf.FenceDevice{d}}, func(ctx context.Context, _ string, _ job) error {
			return sleep(ctx, 2*time.Second)
		})
		first := make(chan struct{})
		go func() {
			defer close(first)
			if _, err := s.Fence(t.Context(), Target{Node: "c"}, conf.FenceOff, nil); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		if _, err := s.Fence(t.Context(), Target{Node: "b", May: func(context.Context) error { s.say("may it?"); return nil }}, conf.FenceOff, nil); err != nil {
			t.Error(err)
		}
		<-first
		s.told(t, `0s: pdu off c 8
			2s: may it?
			2s: pdu off b 7`)
	})
}

// A person has done by then what the confirmation says: a node that is switched off is not heard, of course.
func TestAConfirmationIsNotAskedAbout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStory(&conf.Fencing{Devices: []conf.FenceDevice{{
			Name: "hand", Type: conf.FenceManual, Timeout: time.Hour, Targets: []conf.FenceTarget{{Node: "b"}},
		}}}, works)
		go func() {
			time.Sleep(time.Minute)
			if err := s.Confirm("b"); err != nil {
				t.Error(err)
			}
		}()
		out, err := s.Fence(t.Context(), Target{Node: "b", May: func(context.Context) error {
			if time.Since(s.began) > 0 {
				return errors.New("it is over")
			}
			return nil
		}}, conf.FenceOff, nil)
		if err != nil || !out.Done {
			t.Errorf("outcome %+v, %v", out, err)
		}
	})
}

// An agent takes its time to say what it can do; that is not between the question and its work.
func TestAnAgentHasSaidWhatItCanDoBeforeItIsAskedWhetherItMay(t *testing.T) {
	f, machine := dummy(t, nil)
	asked := false
	_, err := f.Fence(t.Context(), Target{Node: "b", May: func(context.Context) error {
		asked = len(f.meta.known) == 1
		return errors.New("it is over")
	}}, conf.FenceOff, nil)
	if err == nil || !asked || read(t, machine) != "on" {
		t.Errorf("metadata known: %t; the machine is %s, %v", asked, read(t, machine), err)
	}
}
