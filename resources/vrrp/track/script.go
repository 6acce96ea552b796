package track

import (
	"context"
	"reflect"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

func same[T any](a, b T) bool { return reflect.DeepEqual(a, b) }

// judge turns results into a verdict: `rise` in a row that are good end a bad
// one, `fall` in a row that are bad a good one. The first result is a verdict by
// itself, since nothing was known before.
type judge struct {
	rise, fall  int
	known, well bool
	against     int // results in a row that contradict the verdict
}

// take returns whether the verdict is new.
func (j *judge) take(good bool) bool {
	if !j.known {
		j.known, j.well = true, good
		return true
	}
	if good == j.well {
		j.against = 0
		return false
	}
	j.against++
	if j.against < max(1, j.need()) {
		return false
	}
	j.well, j.against = good, 0
	return true
}

func (j *judge) need() int {
	if j.well {
		return j.fall
	}
	return j.rise
}

// script runs a program every interval, counted from the beginning of a run.
// One that takes longer than its time-out is killed and has failed.
func (t *Tracker) script(ctx context.Context, s conf.VRRPScript, last *verdict) {
	j := judge{rise: s.Rise, fall: s.Fall}
	j.known, j.well = last.get()
	if s.InitFail && !j.known {
		j.known = true
		last.set(false)
		t.report(ctx, Script, s.Name, Result{})
	}
	timeout := s.Timeout
	if timeout <= 0 {
		timeout = s.Interval
	}
	tick := time.NewTicker(s.Interval)
	defer tick.Stop()
	for {
		run, cancel := context.WithTimeout(ctx, timeout)
		err := t.cfg.Run(run, s.User, s.Command)
		cancel()
		if ctx.Err() != nil {
			return
		}
		news := t.ran(ctx, s.Name, err)
		if j.take(err == nil) {
			news = false
			last.set(j.well)
			if err != nil {
				t.cfg.Logger.Warn("vrrp_script "+s.Name+" fails", "err", err)
			} else {
				t.cfg.Logger.Info("vrrp_script " + s.Name + " succeeds")
			}
			t.report(ctx, Script, s.Name, Result{Well: j.well})
		}
		if news {
			t.cfg.Logger.Warn("vrrp_script "+s.Name+" was not run to its end, which counts as a failure", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
