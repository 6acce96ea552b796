package cluster

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

func TestAPlannedRestartMovesNothing(t *testing.T) {
	s := begin(t, scenario.Options{})

	for _, h := range s.Nodes() {
		t.Run("keepbeat restart on "+h.Name, func(t *testing.T) {
			before, since := s.standing(), probe.Now()
			if out := s.must(h, "restart"); !strings.Contains(out, "nothing was moved") {
				t.Errorf("it says %q", out)
			}
			s.settle()
			time.Sleep(aWhile)
			s.noMoreThan(blink, since, "keepbeat restart on "+h.Name)
			s.unmoved(before, "keepbeat restart on "+h.Name)
		})
	}

	t.Run("SIGHUP to the owner, as systemctl reload sends it", func(t *testing.T) {
		owner := s.owner()
		boot := s.boot(owner)
		before, since := s.standing(), probe.Now()
		s.Daemons[owner.Name].Signal(syscall.SIGHUP)
		s.Lab.Eventually(limit, "another start of the daemon", func() bool {
			st, ok := s.Status(owner)
			return ok && bootIn(st, owner) != boot
		})
		s.settle()
		s.noMoreThan(blink, since, "SIGHUP")
		s.unmoved(before, "SIGHUP")
	})

	t.Run("and the lease afterwards is the usual one", func(t *testing.T) {
		owner, epoch := s.owner(), s.epoch()
		since := s.hang(owner)
		s.takenOver(s.other(owner), since, epoch)
		s.silentBy(owner, since, hushed)
		s.wake(owner)
		s.settle()
	})
}

func (s *story) boot(h *lab.Host) string { s.t.Helper(); return bootIn(s.status(h), h) }

func bootIn(st cluster.Status, h *lab.Host) string {
	for _, n := range st.Nodes {
		if n.Name == h.Name && n.Here != nil {
			return n.Here.Boot
		}
	}
	return ""
}

// An upgrade is: the package manager replaces the program, and the daemon is reloaded.
func TestARestartAfterAnUpgradeRunsTheNewProgram(t *testing.T) {
	t.Parallel()
	s := prepare(t, scenario.Options{})
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	installed, upgrade := filepath.Join(dir, "keepbeat"), filepath.Join(dir, "keepbeat.dpkg-new")
	program, err := os.ReadFile(s.Lab.Keepbeat())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(installed, program, 0o755); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-ldflags", "-X main.version=upgraded", "-o", upgrade, "github.com/keepbeat/keepbeat/cmd/keepbeat")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the upgrade: %v\n%s", err, out)
	}

	s.Start(s.Director2)
	s.Start(s.Arbiter)
	s.Daemons["director1"] = s.Director1.Start("keepbeat", nil, installed, "run")
	s.client.WaitAnswer("director1", s.client.From, limit)
	s.settle()
	before, since := s.standing(), probe.Now()
	if err := os.Rename(upgrade, installed); err != nil {
		t.Fatal(err)
	}
	out, err := s.Director1.Try(installed, "restart")
	if err != nil || !strings.Contains(out, "upgraded") {
		t.Errorf("restart: %v, %q", err, out)
	}
	s.wait(s.Director1, "the new version to run", func(st cluster.Status) bool { return st.Version == "upgraded" && st.Groups[0].State == "active" })
	s.noMoreThan(blink, since, "the upgrade")
	s.unmoved(before, "the upgrade")
}

func TestARestartWithAProgramThatDoesNotStartIsTakenOverAfterTheLongLease(t *testing.T) {
	t.Parallel()
	s := prepare(t, scenario.Options{Extra: "restart_lease: 5s\n"})
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	installed := filepath.Join(dir, "keepbeat")
	program, err := os.ReadFile(s.Lab.Keepbeat())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(installed, program, 0o755); err != nil {
		t.Fatal(err)
	}
	s.Start(s.Director2)
	s.Start(s.Arbiter)
	d := s.Director1.Start("keepbeat", nil, installed, "run")
	s.Daemons["director1"] = d
	s.client.WaitAnswer("director1", s.client.From, limit)
	s.settle()
	if err := os.WriteFile(installed+".new", []byte("#!/bin/false\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(installed+".new", installed); err != nil {
		t.Fatal(err)
	}
	since := d.Signal(syscall.SIGHUP)
	if !d.Wait(limit) {
		t.Fatal("it runs still")
	}
	s.client.WaitAnswer("director2", since, limit)
	s.silentBy(s.Director1, since, 7*time.Second)
	s.noMoreThan(3*time.Second, since, "a restart that failed")
}
