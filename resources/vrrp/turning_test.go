package vrrp

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"
)

// deaf is an Alarm that does not wake the clock.
type deaf chan struct{}

func (d deaf) Begin() (func(), error) { return func() {}, nil }
func (d deaf) Wait(time.Duration)     { <-d }
func (d deaf) Ring()                  {}

func TestARouterTurnsWhileNothingIsOverdue(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, _ *fakeHost) {
		idle := NewRouter(Config{Host: ha})
		if !idle.Turning(0) {
			t.Error("one without instances does not turn")
		}
		a := ha.run(file(100, nil))
		for range 10 {
			time.Sleep(time.Second)
			if !a.Turning(time.Second) {
				t.Fatal("one that runs does not turn")
			}
		}
		a.stop()
		if !a.Turning(time.Second) {
			t.Error("one that has been stopped is taken for hung")
		}
	})
}

func TestARouterWhoseClockHangsDoesNotTurn(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, _ *fakeHost) {
		hang := make(deaf)
		r := NewRouter(Config{Host: ha, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Alarm: hang})
		r.Update(file(100, nil))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		time.Sleep(3 * time.Second)
		if !r.Turning(time.Second) {
			t.Error("nothing is due, and it does not turn")
		}
		time.Sleep(3 * time.Second)
		if r.Turning(time.Second) {
			t.Error("it turns, and is due to become master since 2.4s")
		}
		stop()
		close(hang)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
