package main

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/vrrp/site"
)

// someRouters runs nothing: their interface is not there.
func someRouters(t *testing.T, text string, spec func() *conf.Spec) *routers {
	t.Helper()
	r, _ := stoppableRouters(t, text, spec)
	return r
}

func stoppableRouters(t *testing.T, text string, spec func() *conf.Spec) (r *routers, stop func()) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, conf.VRRPName)
	write(t, path, text)
	v, _, err := conf.LoadVRRP(path)
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	s, err := site.New(site.Config{Node: "n", RunDir: dir, Registry: resources.Registry{}, Logger: logger}, v)
	if err != nil {
		t.Fatal(err)
	}
	r = &routers{Site: s, path: path, spec: spec, logger: logger, v: v}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	for until := time.Now().Add(time.Minute); len(r.Status().Instances) < 2 && time.Now().Before(until); { // until Run has begun
		time.Sleep(time.Millisecond)
	}
	return r, stop
}

const twoRouters = "vrrp_instance:\n  VI_1: {interface: kbnone0, virtual_router_id: 51, virtual_ipaddress: 10.0.0.201/24}\n  VI_2: {interface: kbnone0, virtual_router_id: 52, virtual_ipaddress: 10.0.0.202/24}\n"

func (r *routers) says(t *testing.T, instances int, trouble string) {
	t.Helper()
	st := r.Status()
	r.told.Lock()
	got := strings.ReplaceAll(strings.Join(r.trouble, "; "), r.path, "FILE")
	r.told.Unlock()
	if len(st.Instances) != instances || got != trouble {
		t.Errorf("%d instances, and of the file: %q; want %d and %q", len(st.Instances), got, instances, trouble)
	}
}

// Whoever looks at the status after a reload by SIGHUP sees that it was refused.
func TestAFileThatWasRefusedIsATroubleUntilItIsRead(t *testing.T) {
	r := someRouters(t, twoRouters, nil)
	write(t, r.path, strings.ReplaceAll(twoRouters, "virtual_router_id: 5", "virtual_router_id: 500"))
	if err := r.Reload(); err == nil {
		t.Error("a faulty file was read")
	}
	r.says(t, 2, "what runs is not what FILE has, which was refused: FILE:2:49: 5001 is out of range: 1 to 255 (and 1 more)")
	if err := os.Remove(r.path); err != nil {
		t.Fatal(err)
	}
	if err := r.Reload(); err == nil {
		t.Error("a file that is gone was read")
	}
	r.says(t, 2, "what runs is not what FILE has, which was refused: FILE: no such file; see the examples that come with keepbeat for how it looks")
	write(t, r.path, strings.Join(strings.SplitAfter(twoRouters, "\n")[:2], ""))
	if err := r.Reload(); err != nil {
		t.Error(err)
	}
	r.says(t, 1, "")
}

func TestWhatTheClusterGivesBackIsRunAgain(t *testing.T) {
	spec := &conf.Spec{}
	r := someRouters(t, twoRouters, func() *conf.Spec { return spec })
	spec = &conf.Spec{Groups: []conf.Group{{Name: "web", Resources: []conf.Resource{{Name: "vip", VIP: &conf.VIP{Address: netip.MustParseAddr("10.0.0.202")}}}}}}
	r.separate(spec)
	const both = `not all of FILE is run: FILE:3:72: address 10.0.0.202 of vrrp_instance "VI_2" is the cluster's, too: group "web", resource "vip" of haresources.yaml; an address belongs to one of the two: take it out here or there`
	r.says(t, 1, both)
	r.separate(spec)
	r.says(t, 1, both)
	spec = &conf.Spec{}
	r.separate(spec)
	r.says(t, 2, "")
}

// Between leave and the new program nobody brings the routers back.
func TestARestartThatCannotBeDoneBringsTheRoutersBack(t *testing.T) {
	r := someRouters(t, twoRouters, func() *conf.Spec { return &conf.Spec{} })
	r.leave()
	r.separate(&conf.Spec{})
	if err := r.Reload(); err == nil {
		t.Error("a daemon that is being replaced has read the file")
	}
	r.says(t, 0, "")
	r.stay()
	r.says(t, 2, "")
}

// A reload and a stop may come at the same time.
func TestAReloadWhenTheDaemonHasStoppedBeginsNothing(t *testing.T) {
	const script = "vrrp_script: {a: {script: /bin/true}}\n"
	r, stop := stoppableRouters(t, script+strings.Replace(twoRouters, "201/24}", "201/24, track_script: a}", 1), nil)
	stop()
	write(t, r.path, script+strings.Replace(twoRouters, "202/24}", "202/24, track_script: a}", 1))
	if err := r.Reload(); err == nil {
		t.Error("a daemon that has stopped says that it has read the file")
	}
	r.Update(&conf.VRRP{Scripts: []conf.VRRPScript{{Name: "a", Command: []string{"/bin/true"}, Interval: time.Second}}})
	r.says(t, 0, "")
}

// The moment to learn that notify_master cannot be run is not when it has to.
func TestAReloadNamesProgramsThatCannotBeRun(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, conf.VRRPName)
	write(t, path, strings.Replace(twoRouters, "202/24}", "202/24, notify_master: /nonexistent, notify: /bin/true, script_user: keepbeat-nobody}", 1))
	var log strings.Builder
	if _, err := loadRouters(path, nil, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
		t.Fatal(err)
	}
	if got := log.String(); strings.Count(got, "cannot be run: user keepbeat-nobody: there is none") != 2 {
		t.Error(got)
	}
}

func TestWhatAReloadCannotChangeIsNamed(t *testing.T) {
	was := &conf.VRRP{RouterID: "a", RunDir: "/run/a"}
	is := &conf.VRRP{RouterID: "b", RunDir: "/run/b", SocketGroup: "adm"}
	if got := strings.Join(notReloaded(was, is, true), " "); got != "router_id run_dir socket_group" {
		t.Errorf("alone: %s", got)
	}
	if got := strings.Join(notReloaded(was, is, false), " "); got != "router_id" {
		t.Errorf("beside a cluster: %s", got)
	}
}
