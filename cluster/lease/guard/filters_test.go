package guard

import (
	"context"
	"strings"
	"testing"
)

func TestFiltersOfOthers(t *testing.T) {
	t.Run("behind ours get what passes, and stay after Clear", func(t *testing.T) {
		l := newLab(t)
		run(t, "tc", "-n", l.director, "qdisc", "add", "dev", dirName, "clsact")
		l.otherFilter(ingress, 10)
		g, a := l.open()
		if err := g.Hold(vips()...); err != nil {
			t.Fatal(err)
		}
		w := l.wire(l.client, cliName)
		l.wantStopped(w)
		if a.all() != "" {
			t.Errorf("alarm: %s", a.all())
		}
		l.clear()
		out := l.tcShow()
		if strings.Contains(out, "guard") || !strings.Contains(out, "other") {
			t.Errorf("after Clear:\n%s", out)
		}
		l.wantOpen(w)
	})
	t.Run("at our preference are overtaken", func(t *testing.T) {
		l := newLab(t)
		run(t, "tc", "-n", l.director, "qdisc", "add", "dev", dirName, "clsact")
		l.otherFilter(ingress, 1)
		l.otherFilter(egress, 1)
		g, a := l.open()
		if err := g.Hold(vips()...); err != nil {
			t.Fatal(err)
		}
		w := l.wire(l.client, cliName)
		l.wantStopped(w)
		// Somebody adds another, which the kernel puts first.
		stop := l.run(g)
		l.otherFilter(ingress, 1)
		eventually(t, "an alarm that the guard is in front again", func() bool { return strings.Contains(a.all(), "the guard is in front again") })
		l.wantStopped(w)
		// Again at once: it is told, not fought over.
		l.otherFilter(ingress, 1)
		eventually(t, "an alarm that somebody is in front", func() bool { return strings.Contains(a.all(), "stands in front of the guard") })
		if i := l.onInterface(dirName); !strings.Contains(i.Ingress.Behind, "other") || i.Egress.Behind != "" {
			t.Errorf("status does not tell who is in front: %+v", i)
		}
		stop()
		l.clear()
		if out := l.tcShow(); strings.Contains(out, "guard") || strings.Count(out, " name other ") != 4 {
			t.Errorf("after Clear:\n%s", out)
		}
	})
	t.Run("of another kind at our preference are told of", func(t *testing.T) {
		l := newLab(t)
		run(t, "tc", "-n", l.director, "qdisc", "add", "dev", dirName, "clsact")
		run(t, "tc", "-n", l.director, "filter", "add", "dev", dirName, "ingress", "pref", "1", "protocol", "ip",
			"u32", "match", "ip", "dst", "192.0.2.9/32", "flowid", ":1")
		g, a := l.open()
		if err := g.Hold(vips()...); err != nil {
			t.Fatal(err)
		}
		l.wantStopped(l.wire(l.client, cliName))
		if n := strings.Count(a.all(), "stands in front of the guard"); n != 1 {
			t.Errorf("%d alarms, want one:\n%s", n, a.all())
		}
		// It goes, and the guard takes its place.
		run(t, "tc", "-n", l.director, "filter", "del", "dev", dirName, "ingress", "pref", "1")
		l.otherFilter(ingress, 1)
		if err := g.Hold(); err != nil {
			t.Fatal(err)
		}
		if i := l.onInterface(dirName); i.Ingress.Behind != "" {
			t.Errorf("still behind: %+v", i)
		}
	})
	t.Run("in an ingress qdisc are not thrown away", func(t *testing.T) {
		l := newLab(t)
		run(t, "tc", "-n", l.director, "qdisc", "add", "dev", dirName, "ingress")
		var err error
		l.in(l.director, func() { _, err = Open(context.Background(), Config{Owner: testOwner}) })
		if err == nil || !strings.Contains(err.Error(), "interface "+dirName) || !strings.Contains(err.Error(), "replace it by clsact") {
			t.Errorf("Open: %v", err)
		}
	})
}

func (l *lab) tcShow() string {
	l.t.Helper()
	return run(l.t, "tc", "-n", l.director, "qdisc", "show", "dev", dirName) +
		run(l.t, "tc", "-n", l.director, "filter", "show", "dev", dirName, "ingress") +
		run(l.t, "tc", "-n", l.director, "filter", "show", "dev", dirName, "egress")
}

func TestClearLeavesNothing(t *testing.T) {
	l := newLab(t)
	before := l.tcShow()
	l.clear() // nothing there
	d := l.daemon()
	d.kill()
	if !strings.Contains(l.tcShow(), testOwner+"-guard+clsact") {
		t.Fatalf("no filter:\n%s", l.tcShow())
	}
	g, _ := l.open() // taken over: still known whose the clsact is
	g.Close()
	l.clear()
	if got := l.tcShow(); got != before {
		t.Errorf("after Clear:\n%s\nbefore the guard:\n%s", got, before)
	}
	if st := l.inspect(); st.Standing || len(st.Addrs) != 0 {
		t.Errorf("status after Clear: %+v", st)
	}
}
