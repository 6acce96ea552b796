package fencing

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

var hand = conf.FenceDevice{Name: "hand", Type: conf.FenceManual, Timeout: time.Hour, Targets: []conf.FenceTarget{{Node: "b"}}}

// A person who is asked for what nobody needs any more would switch off a healthy node.
func TestNobodyIsAskedForWhatIsOver(t *testing.T) {
	for _, c := range []struct {
		name string
		spec conf.Fencing
		want string
	}{
		{"alone", conf.Fencing{Devices: []conf.FenceDevice{hand}},
			"b was not fenced (reboot): level 1, device hand waits no more: b came back meanwhile"},
		{"nor is the next level", conf.Fencing{Devices: []conf.FenceDevice{hand, dev("ipmi")}},
			"b was not fenced (reboot): level 1, device hand waits no more: b came back meanwhile"},
		{"and the first supply", conf.Fencing{Devices: []conf.FenceDevice{dev("left"), hand}, Topology: map[string][][]string{"b": {{"left", "hand"}}}},
			"b was not fenced (reboot): level 1, device hand waits no more: b came back meanwhile; what left has switched off for it stays off: see to it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStory(&c.spec, works)
				back := time.Now().Add(10 * time.Minute)
				began := time.Now()
				go func() {
					time.Sleep(9 * time.Minute)
					if len(s.Waiting()) != 1 {
						t.Error("nobody is asked while it is needed")
					}
				}()
				out, err := s.Fence(t.Context(), Target{Node: "b", Over: func() error {
					if time.Now().Before(back) {
						return nil
					}
					return errors.New("b came back meanwhile")
				}}, conf.FenceReboot, nil)
				if err == nil || err.Error() != c.want || out.Done {
					t.Errorf("got  %v\nwant %s", err, c.want)
				}
				if took := time.Since(began); took > 10*time.Minute+2*time.Second {
					t.Errorf("it took %v to see that it is over", took)
				}
				if len(s.Waiting()) != 0 || s.Confirm("b") == nil {
					t.Error("it is still waited for")
				}
			})
		})
	}
}

// What a person has confirmed counts, whatever is known at the same moment.
func TestAConfirmationThatWasTakenCounts(t *testing.T) {
	for name, end := range map[string]func(cancel func(), over *bool){
		"over":                         func(_ func(), over *bool) { *over = true },
		"who fences is stopped":        func(cancel func(), _ *bool) { cancel() },
		"both":                         func(cancel func(), over *bool) { *over = true; cancel() },
		"nothing happens but the word": func(func(), *bool) {},
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 { // select chooses by chance
				synctest.Test(t, func(t *testing.T) {
					s := newStory(&conf.Fencing{Devices: []conf.FenceDevice{hand}}, works)
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					over, confirmed := false, error(nil)
					out, err := s.Fence(ctx, Target{Node: "b", Over: func() error {
						confirmed = s.Confirm("b") // while it is being looked
						if end(cancel, &over); over {
							return errors.New("it is over")
						}
						return nil
					}}, conf.FenceOff, nil)
					if confirmed != nil || err != nil || !out.Done {
						t.Errorf("confirmed: %v; %+v, %v", confirmed, out, err)
					}
				})
			}
		})
	}
}
