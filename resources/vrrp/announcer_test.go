package vrrp

import (
	"io"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// announcer returns one on a host, and what it has told about conflicts.
func (h *fakeHost) announcer(priority uint8, then conf.Conflict) *Announcer {
	i := file(priority, nil).Instances[0]
	return NewAnnouncer(AnnouncerConfig{
		Host: h, Announcer: &conf.Announcer{Instance: i, OnConflict: then}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Conflict: func(f Foreign, over bool) {
			h.set(func() {
				what := "outbid by"
				if over {
					what = "no more outbid by"
				}
				h.s.tell("%s: %s %s", h.name, what, f)
			})
		},
	})
}

func start(t *testing.T, a *Announcer) {
	t.Helper()
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
}

func stop(t *testing.T, a *Announcer) {
	t.Helper()
	if err := a.Stop(); err != nil {
		t.Fatal(err)
	}
}

func TestABackupBelievesTheAnnouncer(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		hb.run(file(100, nil))
		a := ha.announcer(254, conf.ConflictYield)
		start(t, a)
		start(t, a)
		time.Sleep(20 * time.Second)
		s.expect(`
0s b: instance VI_1 is BACKUP`)
		stop(t, a)
		stop(t, a)
		time.Sleep(5 * time.Second)
		s.expect(`
20s a leaves VI_1
20.61s b has VI_1
20.61s b: instance VI_1 is MASTER`)
		// It is answered at once, and takes the addresses back.
		start(t, a)
		time.Sleep(5 * time.Second)
		s.expect(`
25s b gives back VI_1
25s b: instance VI_1 is BACKUP`)
		stop(t, a)
	})
}

func TestAHandoverInTheClusterLeavesNoGap(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		s.host("c", "192.0.2.7").run(file(100, nil))
		a, b := ha.announcer(254, conf.ConflictYield), hb.announcer(254, conf.ConflictYield)
		start(t, a)
		time.Sleep(10 * time.Second)
		stop(t, a)
		time.Sleep(100 * time.Millisecond)
		start(t, b)
		time.Sleep(10 * time.Second)
		s.expect(`
0s c: instance VI_1 is BACKUP
10s a leaves VI_1`)
		stop(t, b)
	})
}

func TestAForeignMasterThatOutbidsTheOwner(t *testing.T) {
	for _, c := range []struct {
		name  string
		then  conf.Conflict
		story string
	}{
		{"and the owner yields", conf.ConflictYield, `
0s b has VI_1
0s b: instance VI_1 is MASTER
1s a: outbid by 192.0.2.6, priority 255
10s b leaves VI_1
10s b gives back VI_1
10s b: instance VI_1 is INIT`},
		{"and the owner keeps the addresses", conf.ConflictKeep, `
0s b has VI_1
0s b: instance VI_1 is MASTER
1s a: outbid by 192.0.2.6, priority 255
10s b leaves VI_1
10s b gives back VI_1
10s b: instance VI_1 is INIT
15s a: no more outbid by 192.0.2.6, priority 255`},
	} {
		t.Run(c.name, func(t *testing.T) {
			story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
				a := ha.announcer(254, c.then)
				start(t, a)
				b := hb.run(file(255, nil))
				time.Sleep(10 * time.Second)
				if f, is := a.Conflict(); !is || f.From != hb.addr || f.Priority != 255 {
					t.Errorf("conflict %v with %v", is, f)
				}
				b.stop()
				time.Sleep(10 * time.Second)
				s.expect(c.story)
				if _, is := a.Conflict(); is != (c.then == conf.ConflictYield) {
					t.Errorf("afterwards: conflict %v", is)
				}
				stop(t, a)
			})
		})
	}
}

func TestAnAnnouncerNeedsAnAddress(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, _ *fakeHost) {
		own := ha.addr
		ha.set(func() { ha.addr = netip.Addr{} })
		a := ha.announcer(254, conf.ConflictYield)
		if err := a.Start(); err == nil || err.Error() != "vrrp 51 on eth0: its interface has no address to send from" {
			t.Errorf("it started: %v", err)
		}
		ha.set(func() { ha.addr = own })
		start(t, a)
		stop(t, a)
	})
}
