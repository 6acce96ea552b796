package sim

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// play runs a story in a world on virtual time.
func play(t *testing.T, cfg Config, story func(w *world)) *world {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	var w *world
	synctest.Test(t, func(t *testing.T) {
		w = newWorld(cfg)
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { w.watch(ctx) })
		story(w)
		w.end()
		cancel()
		wg.Wait()
	})
	return w
}

func classic(seed uint64) Config {
	return Config{Seed: seed, Directors: 2, Witnesses: 1, Groups: 1, Profile: conf.ProfileDefault, Failback: true}
}

func TestClusterForms(t *testing.T) {
	cfg := classic(1)
	cfg.Log = true
	w := play(t, cfg, func(w *world) {
		for _, m := range w.machines {
			if err := m.start(); err != nil {
				t.Error(err)
			}
		}
		if !w.await(20*time.Second, w.settled) {
			t.Error("no owner after 20 s")
		}
		w.note("== settled")
		w.machines[0].powerOff()
		if !w.await(5*time.Second, func() bool { return w.machines[1].kernel.answers(w.address(0)) }) {
			t.Error("not taken over")
			w.dump()
		}
		w.note("== taken over")
		if err := w.machines[0].powerOn(); err != nil {
			t.Error(err)
		}
		if !w.await(20*time.Second, func() bool { return w.machines[0].kernel.answers(w.address(0)) }) {
			t.Error("not failed back"); w.dump()
		}
	})
	if len(w.violations) > 0 || t.Failed() {
		t.Log(w.transcript.String())
	}
	if len(w.violations) > 0 {
		t.Error(w.violations)
	}
}
