package resources

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAGroupThatAnnouncesItselfByVRRP(t *testing.T) {
	const announced = `
		hold [VRID 51 of IPv4]
		cut [192.0.2.1 192.0.2.2]
		start a
		start vrrp
		start pool
		hold [192.0.2.1 192.0.2.2]
		opened a
		opened vrrp
		opened pool
		report web 1 started`
	begin := func(w *world) {
		w.m.Configure(spec("a", "vrrp", "pool"))
		w.m.Own(own(1))
		w.said(announced)
	}
	story(t, "is heard from its start, and says that it leaves", func(w *world) {
		begin(w)
		w.m.Own(nil)
		w.said(`
			cut [192.0.2.1 192.0.2.2]
			stop pool
			stop vrrp
			stop a
			report web 1 stopped
			drop [192.0.2.1 192.0.2.2]
			drop [VRID 51 of IPv4]`)
	})
	story(t, "is silenced with its addresses when it does not stop", func(w *world) {
		begin(w)
		w.set("stop pool", errBad)
		w.m.Own(nil)
		time.Sleep(stopPause*(stopTries-1) + time.Millisecond)
		w.said(`
			cut [192.0.2.1 192.0.2.2]
			stop pool: bad
			stop pool: bad
			stop pool: bad
			cut [192.0.2.1 192.0.2.2]
			cut [VRID 51 of IPv4]
			report web 1 stopped (pool: bad)`)
		w.set("stop pool", nil)
		time.Sleep(stuckPause)
		w.said("stop pool\nstop vrrp\nstop a\nreport web 1 stopped\ndrop [192.0.2.1 192.0.2.2]\ndrop [VRID 51 of IPv4]")
	})
	story(t, "is stuck when the guard does not silence it", func(w *world) {
		begin(w)
		w.set("stop pool", errBad)
		w.set("cut [VRID 51 of IPv4]", errBad)
		w.m.Own(nil)
		time.Sleep(stopPause*(stopTries-1) + time.Millisecond)
		w.said(`
			cut [192.0.2.1 192.0.2.2]
			stop pool: bad
			stop pool: bad
			stop pool: bad
			cut [192.0.2.1 192.0.2.2]
			cut [VRID 51 of IPv4]: bad
			report web 1 stuck (pool: bad)`)
	})
	story(t, "does not start outside of the guard", func(w *world) {
		w.m.Configure(spec("a", "vrrp"))
		w.set("hold [VRID 51 of IPv4]", errBad)
		w.m.Own(own(1))
		w.said("hold [VRID 51 of IPv4]: bad\nreport web 1 stopped (guard: the guard does not take [VRID 51 of IPv4]: bad)")
	})
	story(t, "is let go when the change takes the announcer out", func(w *world) {
		begin(w)
		w.m.Configure(spec("a", "pool"))
		w.said("stop vrrp\ndrop [VRID 51 of IPv4]")
	})
	story(t, "stays under the guard for the next daemon", func(w *world) {
		begin(w)
		w.m.Close()
		e, err := w.journal.Read()
		if err != nil || len(e) != 1 || cmp.Diff([]VirtualRouter{{ID: 51}}, e[0].Routers) != "" {
			t.Fatalf("journal: %+v %v", e, err)
		}
		w.boot()
		if err := w.m.Recover(); err != nil {
			t.Fatal(err)
		}
		w.m.Own(nil)
		time.Sleep(time.Second)
		w.said(`
			stop pool of the journal
			stop vrrp of the journal
			stop a of the journal
			drop [192.0.2.1 192.0.2.2]
			drop [VRID 51 of IPv4]`)
	})
}
