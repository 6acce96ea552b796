package resources

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// permits has w say who is permitted to start, and when that start is over.
func (w *world) permits() {
	w.m.cfg.Permit = func(ctx context.Context, group string, r conf.Resource) (func(), error) {
		if err := w.do(ctx, "permit "+r.Name); err != nil {
			return nil, err
		}
		return func() { w.say("over %s", r.Name) }, nil
	}
}

// Until its start is over an address that does not answer yet is defended, and no longer.
func TestAPermittedStartIsOver(t *testing.T) {
	story(t, "when the resource answers", func(w *world) {
		w.permits()
		w.m.Own(own(1))
		w.said(`
			hold [192.0.2.1]
			permit a
			start a
			over a
			permit b
			start b
			over b
			permit c
			start c
			over c
			report web 1 started`)
		w.m.Own(nil)
		w.said(stopped)
	})
	story(t, "when the group is opened, which the guard keeps closed until all are there", func(w *world) {
		w.permits()
		w.m.Configure(spec("a", "pool", "c"))
		w.m.Own(own(1))
		w.said(`
			cut [192.0.2.1 192.0.2.2]
			permit a
			start a
			permit pool
			start pool
			hold [192.0.2.1 192.0.2.2]
			opened a
			opened pool
			over a
			over pool
			permit c
			start c
			over c
			report web 1 started`)
	})
	story(t, "when it has failed and what it may have left has stopped", func(w *world) {
		w.permits()
		w.set("start b", errBad)
		w.m.Own(own(1))
		w.said(`
			hold [192.0.2.1]
			permit a
			start a
			over a
			permit b
			start b: bad
			stop b
			stop a
			over b
			report web 1 stopped (b: bad)
			drop [192.0.2.1]`)
	})
	story(t, "when the guard has cut off what does not stop, before the group moves", func(w *world) {
		w.permits()
		w.set("start a", errBad)
		w.set("stop a", errBad)
		w.m.Own(own(1))
		time.Sleep((stopTries - 1) * stopPause)
		w.said(`
			hold [192.0.2.1]
			permit a
			start a: bad
			stop a: bad
			stop a: bad
			stop a: bad
			cut [192.0.2.1]
			over a
			report web 1 stopped (a: bad)`)
	})
	story(t, "and not as long as it neither stops nor can be cut off", func(w *world) {
		w.permits()
		w.set("start a", errBad)
		w.set("stop a", errBad)
		w.set("cut [192.0.2.1]", errBad)
		w.m.Own(own(1))
		time.Sleep((stopTries - 1) * stopPause)
		w.said(`
			hold [192.0.2.1]
			permit a
			start a: bad
			stop a: bad
			stop a: bad
			stop a: bad
			cut [192.0.2.1]: bad
			report web 1 stuck (a: bad)`)
		w.set("stop a", nil)
		time.Sleep(stuckPause)
		w.said("stop a\nover a\nreport web 1 stopped (a: bad)\ndrop [192.0.2.1]")
	})
	story(t, "when the group is taken away meanwhile, and what runs has stopped", func(w *world) {
		w.permits()
		w.hang["start a"] = time.Second
		w.m.Own(own(1))
		w.said("hold [192.0.2.1]\npermit a")
		w.m.Own(nil)
		w.said("start a: cut short\nstop a\nover a\nreport web 1 stopped\ndrop [192.0.2.1]")
	})
	story(t, "when the daemon ends", func(w *world) {
		w.permits()
		w.hang["start a"] = time.Second
		w.m.Own(own(1))
		w.said("hold [192.0.2.1]\npermit a")
		w.m.Close()
		w.said("start a: cut short\nover a")
	})
	story(t, "and never began when it was refused", func(w *world) {
		w.permits()
		w.set("permit a", errors.New("eth1: no carrier"))
		w.m.Own(own(1))
		w.said("hold [192.0.2.1]\npermit a: eth1: no carrier\nreport web 1 stopped (a: eth1: no carrier)\ndrop [192.0.2.1]")
	})
}
