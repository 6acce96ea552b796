package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

const (
	haresources = "/etc/keepbeat/haresources.yaml"
	secondVIP   = "192.168.56.201"
	twoGroups   = "  web:\n    prefer: [director1, director2]\n    resources:\n      - vip: " + scenario.VIP + "/24/eth0\n" +
		"  mail:\n    prefer: [director2, director1]\n    resources:\n      - vip: " + secondVIP + "/24/eth0\n"
)

func TestStandbyAndTakeover(t *testing.T) {
	s := begin(t, scenario.Options{Groups: twoGroups})
	where := func() string {
		st := s.status(s.Director2)
		return st.Groups[0].Name + " on " + st.Groups[0].Owner + ", " + st.Groups[1].Name + " on " + st.Groups[1].Owner
	}
	reach := func(want string) {
		t.Helper()
		s.wait(s.Arbiter, "active: "+want, func(st cluster.Status) bool {
			return st.Groups[0].State == "active" && st.Groups[1].State == "active" && where() == want
		})
	}
	const (
		home = "web on director1, mail on director2"
		all1 = "web on director1, mail on director1"
		all2 = "web on director2, mail on director2"
		swap = "web on director2, mail on director1"
	)
	old := t.TempDir()
	if err := os.Chmod(old, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"hb_standby", "hb_takeover"} {
		if err := os.Symlink(s.Lab.Keepbeat(), filepath.Join(old, name)); err != nil {
			t.Fatal(err)
		}
	}
	reach(home)
	for _, c := range []struct {
		on   *lab.Host
		args []string
		want string
	}{
		{s.Director1, []string{"keepbeat", "standby", "--wait"}, all2},
		{s.Director1, []string{"keepbeat", "takeover", "local", "--wait"}, home},
		{s.Director1, []string{"keepbeat", "takeover", "foreign", "--wait"}, all1},
		{s.Director1, []string{"keepbeat", "standby", "failback", "--wait"}, home},
		{s.Director1, []string{"keepbeat", "takeover", "all", "--wait"}, all1},
		{s.Director1, []string{"keepbeat", "standby", "local", "--to", "director2", "--wait"}, swap},
		{s.Director1, []string{"hb_takeover", "local"}, all1},
		{s.Director1, []string{"hb_standby", "foreign"}, home},
		{s.Director1, []string{"hb_standby"}, all2},
		{s.Director1, []string{"hb_takeover", "failback"}, swap}, // the foreign one
		{s.Director1, []string{"keepbeat", "takeover", "local", "--wait"}, all1},
		{s.Director2, []string{"keepbeat", "takeover", "local", "--wait"}, home},
	} {
		program, since := s.Lab.Keepbeat(), probe.Now()
		if strings.HasPrefix(c.args[0], "hb_") {
			program = filepath.Join(old, c.args[0])
		}
		out, err := c.on.Try(append([]string{program}, c.args[1:]...)...)
		if err != nil {
			t.Fatalf("%v on %s: %v\n%s", c.args, c.on.Name, err, out)
		}
		if strings.Contains(strings.Join(c.args, " "), "--wait") && where() != c.want {
			t.Errorf("%v returned with %s, want %s", c.args, where(), c.want)
		}
		reach(c.want)
		s.noMoreThan(lease, since, strings.Join(c.args, " "))
	}

	for _, c := range []struct {
		code  int
		words string
		args  []string
	}{
		{1, "director9", []string{"standby", "--to", "director9"}},
		{1, "arbiter", []string{"standby", "--to", "arbiter"}},
		{1, "this node", []string{"standby", "--to", "director1"}},
		{2, "usage", []string{"standby", "nonsense"}},
		{2, "usage", []string{"takeover", "all", "more"}},
	} {
		s.refused(s.Director1, c.code, c.words, c.args...)
	}
	s.refused(s.Arbiter, 1, "arbiter", "takeover")
	reach(home)
}

func TestStandbyWithNoOtherDirectorIsRefused(t *testing.T) {
	t.Parallel()
	s := begin(t, scenario.Options{})
	if err := s.Daemons["director2"].Terminate(limit); err != nil {
		t.Fatalf("stopping director2: %v", err)
	}
	since, before := probe.Now(), s.groups1()
	s.wait(s.Director1, "director2 to be down", func(st cluster.Status) bool { return st.Nodes[1].State == "down" })
	s.refused(s.Director1, 3, "group web would stop and run nowhere: no director can have it (director1: it gives the group up; director2: stopped by an operator); `keepbeat standby --force`", "standby")
	s.refused(s.Director1, 3, "group web would stop and run nowhere", "standby", "--dry-run")
	s.refused(s.Director1, 1, "director2", "standby", "--to", "director2")
	time.Sleep(aWhile)
	s.noMoreThan(blink, since, "a standby that was refused")
	if after := s.groups1(); after != before {
		t.Errorf("%s became %s", before, after)
	}

	if out := s.must(s.Director1, "standby", "--force", "--wait"); !strings.Contains(out, "group web: stopped, and runs nowhere") {
		t.Errorf("by force it says %q", out)
	}
	s.wait(s.Arbiter, "the group to run nowhere", func(st cluster.Status) bool { return st.Groups[0].Owner == "" })
	time.Sleep(aWhile)
	if s.Director1.HasAddress(scenario.VIP) {
		t.Error("the address is there, although its group was given up by force")
	}
	s.must(s.Director1, "takeover", "--wait")
	s.must(s.Director1, "standby", "--force")
	s.Start(s.Director2)
	s.WaitOwner(s.Director2, limit)
	if out := s.must(s.Arbiter, "history", "web", "--json"); !strings.Contains(out, "takeover all on director1 by root") || !strings.Contains(out, "given up here by root, with --force") {
		t.Errorf("history does not say who did it:\n%s", out)
	}
	s.must(s.Director1, "takeover", "--wait") // director2 has had it, so this node is there for it again
	if err := s.Daemons["director2"].Terminate(limit); err != nil {
		t.Fatalf("stopping director2: %v", err)
	}

	// Without a majority nothing is decided, and the command says so in time.
	s.Arbiter.Die()
	time.Sleep(aWhile)
	began := time.Now()
	out, err := s.Director1.Keepbeat("standby")
	if lab.ExitCode(err) != 1 || time.Since(began) > limit {
		t.Errorf("without quorum: exit status %d after %v, want 1:\n%s", lab.ExitCode(err), time.Since(began), out)
	}
	s.Lab.Logf("without quorum: %s", out)
}

// groups1 is who owns what since which epoch, as director1 knows it.
func (s *story) groups1() string {
	s.t.Helper()
	var groups []string
	for _, g := range s.status(s.Director1).Groups {
		groups = append(groups, g.Name+" on "+g.Owner)
	}
	return strings.Join(groups, ", ")
}

func TestApply(t *testing.T) {
	s := begin(t, scenario.Options{})
	second := s.Client.Probe(secondVIP, askEvery)
	since := probe.Now()

	t.Run("a group that is new is started, and the file is written on the others", func(t *testing.T) {
		s.WriteSpec(s.Director1, scenario.Options{Groups: twoGroups})
		out := s.must(s.Director1, "apply", "--dry-run")
		if !strings.Contains(out, "mail") || s.status(s.Director1).Spec.Version != 1 {
			t.Errorf("a dry run says %q and leaves version %d", out, s.status(s.Director1).Spec.Version)
		}
		s.must(s.Director1, "apply")
		second.WaitAnswer("director2", second.From, limit)
		s.Lab.Eventually(limit, "director2 to have director1's file", func() bool {
			return fileOn(s.Director2, haresources) == fileOn(s.Director1, haresources)
		})
		s.Lab.Eventually(limit, "the witness to have it, too", func() bool {
			return fileOn(s.Arbiter, haresources) == fileOn(s.Director1, haresources)
		})
		s.settle()
	})

	t.Run("files with faults change nothing", func(t *testing.T) {
		before := s.standing()
		good := fileOn(s.Director1, haresources)
		for _, c := range []struct{ name, text, words string }{
			{"broken YAML", "groups: [\n", "haresources.yaml:"},
			{"unknown key", strings.Replace(good, "prefer:", "prefre:", 1), `prefer`},
			{"duplicate address", strings.Replace(good, secondVIP, scenario.VIP, 1), scenario.VIP},
			{"unknown kind", strings.Replace(good, "- vip: "+secondVIP, "- vipp: "+secondVIP, 1), "vipp"},
			{"no such node", strings.Replace(good, "prefer: [director1,", "prefer: [director7,", 1), "director7"},
			{"empty", "", "haresources.yaml"},
		} {
			s.Director1.WriteFile(haresources, c.text, 0o644)
			s.refused(s.Director1, 1, c.words, "apply")
			s.refused(s.Director1, 1, c.words, "check-config")
			if fileOn(s.Director2, haresources) != good {
				t.Errorf("%s: director2's file has changed", c.name)
			}
		}
		if err := os.Remove(s.Director1.Path(haresources)); err != nil {
			t.Fatal(err)
		}
		s.refused(s.Director1, 1, "haresources.yaml", "apply")
		s.Director1.WriteFile(haresources, good, 0o644)
		if out := s.must(s.Director1, "apply"); !strings.Contains(out, "nothing to apply") {
			t.Errorf("apply of what runs says %q", out)
		}
		s.stands(before, "files with faults")
		if v := s.status(s.Arbiter).Spec.Version; v != 2 {
			t.Errorf("version %d, want 2", v)
		}
	})

	t.Run("from the other node, against a version that is not in force any more", func(t *testing.T) {
		s.WriteSpec(s.Director2, scenario.Options{Groups: twoGroups, Failback: true})
		s.refused(s.Director2, 1, "2", "apply", "--base", "1")
		s.must(s.Director2, "apply", "--base", "2")
		s.wait(s.Arbiter, "version 3", func(st cluster.Status) bool { return st.Spec.Version == 3 && st.Groups[0].Failback })
	})

	t.Run("an edit that nobody applied is put aside, not lost", func(t *testing.T) {
		s.Lab.Eventually(limit, "director1 to have version 3", func() bool {
			return fileOn(s.Director1, haresources) == fileOn(s.Director2, haresources)
		})
		s.Director1.WriteFile(haresources, fileOn(s.Director1, haresources)+"# my edit\n", 0o644)
		s.WriteSpec(s.Director2, scenario.Options{Groups: twoGroups})
		s.must(s.Director2, "apply")
		s.Lab.Eventually(limit, "the edit to be put aside", func() bool {
			out, err := s.Director1.Try("sh", "-c", "cat /etc/keepbeat/haresources.yaml.unapplied-*")
			return err == nil && strings.Contains(out, "# my edit")
		})
	})

	t.Run("a group that is gone is stopped, and its address with it", func(t *testing.T) {
		s.WriteSpec(s.Director1, scenario.Options{})
		s.must(s.Director1, "apply")
		s.Lab.Eventually(limit, "the second address to be gone", func() bool {
			return !s.Director1.HasAddress(secondVIP) && !s.Director2.HasAddress(secondVIP)
		})
		s.settle()
	})
	s.noMoreThan(blink, since, "all of this, for the group that was untouched")

}
