package main

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// systemd listens as it does, and passes on what it is told.
func systemd(t *testing.T, watchdog string) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", watchdog)
	t.Setenv("WATCHDOG_PID", "")
	return c
}

func TestTheWatchdogIsFedOnlyWhileTheLoopsTurn(t *testing.T) {
	c := systemd(t, "40000")
	ctx, stop := context.WithCancel(t.Context())
	var fed sync.WaitGroup
	defer fed.Wait()
	defer stop()
	answers := make(chan bool)
	fed.Go(func() {
		feed(ctx, func(late time.Duration) bool {
			if late != 20*time.Millisecond {
				t.Errorf("half of WatchdogSec is what may be late, not %s", late)
			}
			select {
			case turns := <-answers:
				return turns
			case <-ctx.Done():
				return false
			}
		})
	})
	for _, turns := range []bool{false, false, true} {
		answers <- turns
	}
	// The next question comes after the answer before it was carried out.
	answers <- false
	b := make([]byte, 64)
	n, err := c.Read(b)
	if err != nil || string(b[:n]) != "WATCHDOG=1" {
		t.Fatalf("%q, %v", b[:n], err)
	}
	if err := c.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(b); err == nil {
		t.Errorf("it was told %q for loops that do not turn", b[:n])
	}
}

func TestReleaseDoesNotNeedASoundFile(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "vrrp.yaml"), "global_defs: {run_dir: "+dir+"/run}\n"+strings.Replace(aRouter, "51", "256", 1))
	r := command(t, "keepbeat", "--config="+filepath.Join(dir, "ha.yaml"), "release")
	if r.code != 0 || r.stderr != "" {
		t.Errorf("%+v", r)
	}
}

func TestAMachineWithNothingToRunSaysWhichFilesItWants(t *testing.T) {
	dir := t.TempDir()
	want := dir + "/ha.yaml: no such file, nor is there " + dir + "/vrrp.yaml: write the first for a node of a cluster, the second for virtual routers as keepalived has them; see the examples that come with keepbeat\n"
	here := "--config=" + dir + "/ha.yaml"
	if r := command(t, "keepbeat", here, "run"); r.code != 1 || r.stderr != "keepbeat: "+want {
		t.Errorf("run: %+v", r)
	}
	if r := command(t, "keepbeat", here, "check-config"); r.code != 1 || r.stderr != want {
		t.Errorf("check-config: %+v", r)
	}
}

func TestConfigMayNameTheFileOfVirtualRouters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vrrp.yaml")
	write(t, path, aRouter)
	if r := command(t, "keepbeat", "--config="+path, "check-config"); r.code != 0 || r.out != "checked: "+path+"\n" || r.stderr != "" {
		t.Errorf("%+v", r)
	}
}

func TestReloadSaysWhoReadsWhat(t *testing.T) {
	r := command(t, "keepbeat", "reload")
	want := "keepbeat: vrrp.yaml is read again by `keepbeat vrrp reload`, and what belongs to a cluster by `keepbeat apply`\n"
	if r.code != 2 || !strings.HasPrefix(r.stderr, want) {
		t.Errorf("%+v", r)
	}
}
