package cluster

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

func TestNodesMayStartInAnyOrder(t *testing.T) {
	for _, order := range [][3]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		s := (*story)(nil)
		var hosts []*lab.Host
		name := ""
		for _, i := range order {
			name += []string{"director1 ", "director2 ", "arbiter "}[i]
		}
		t.Run(strings.TrimSpace(name), func(t *testing.T) {
			t.Parallel()
			s = prepare(t, scenario.Options{})
			for _, i := range order {
				hosts = append(hosts, s.Nodes()[i])
			}
			// The first time: nobody knows of any cluster, and a majority alone might not be the only one.
			for _, h := range hosts[:2] {
				s.Start(h)
				time.Sleep(aWhile)
				s.nobodyAnswers(s.client.From, "before every node was seen once")
				if out, err := h.Keepbeat("status"); err != nil || !strings.Contains(out, "arbiter") {
					t.Errorf("keepbeat status on %s, which waits for others: %v\n%s", h.Name, err, out)
				}
			}
			s.Start(hosts[2])
			s.client.WaitAnswer("", s.client.From, limit)
			s.settle()

			// Later: a majority is enough, and less is nothing.
			for _, h := range hosts {
				s.Daemons[h.Name].Signal(syscall.SIGKILL)
			}
			for _, h := range hosts {
				s.Daemons[h.Name].Wait(limit)
			}
			time.Sleep(2 * lease)
			dead := probe.Now()
			s.Start(hosts[0])
			time.Sleep(aWhile)
			s.nobodyAnswers(dead, "with one node of three")
			s.Start(hosts[1])
			s.client.WaitAnswer("", dead, limit)
			time.Sleep(lease)
			s.Start(hosts[2])
			s.settle()
		})
	}
}

func (s *story) nobodyAnswers(since probe.Instant, when string) {
	s.t.Helper()
	if n := s.answeredFrom(since); n > 0 {
		s.t.Errorf("%s the address was answered %d times", when, n)
	}
}

func TestANodeThatStartsMuchLaterFindsItsPlace(t *testing.T) {
	t.Parallel()
	s := begin(t, scenario.Options{})
	s.must(s.Director1, "standby", "--wait=30s")
	if err := s.Daemons["director1"].Terminate(limit); err != nil {
		t.Fatalf("stopping director1: %v", err)
	}
	// What it missed: a version, and many entries of the log.
	s.WriteSpec(s.Director2, scenario.Options{Groups: twoGroups})
	s.must(s.Director2, "apply")
	s.Client.Probe(secondVIP, askEvery).WaitAnswer("director2", 0, limit)
	s.Start(s.Director1)
	s.settle()
	if got, want := fileOn(s.Director1, haresources), fileOn(s.Director2, haresources); got != want {
		t.Errorf("director1 has\n%s\nwant director2's\n%s", got, want)
	}
}

func TestFaultyFilesAtStart(t *testing.T) {
	t.Parallel()
	s := prepare(t, scenario.Options{})

	t.Run("of the node itself: it refuses, and names the line", func(t *testing.T) {
		good := fileOn(s.Director1, "/etc/keepbeat/ha.yaml")
		for _, c := range []struct{ name, path, content, words string }{
			{"unknown key", "/etc/keepbeat/ha.yaml", good + "keepalife: 1s\n", "ha.yaml:"},
			{"broken", "/etc/keepbeat/ha.yaml", "nodes: [\n", "ha.yaml:"},
			{"two voters", "/etc/keepbeat/ha.yaml", strings.Replace(good, "  arbiter: {role: witness}\n", "", 1), "witness"},
			{"no key", "/etc/keepbeat/authkeys", "auth 1\n", "authkeys"},
		} {
			was := fileOn(s.Director1, c.path)
			s.Director1.WriteFile(c.path, c.content, 0o600)
			out, err := s.Director1.Keepbeat("run")
			if lab.ExitCode(err) != 1 || !strings.Contains(out, c.words) {
				t.Errorf("%s: exit status %d, want 1 and %q in:\n%s", c.name, lab.ExitCode(err), c.words, out)
			}
			s.Director1.WriteFile(c.path, was, 0o600)
		}
		s.Director1.WriteFile("/etc/keepbeat/authkeys", fileOn(s.Director2, "/etc/keepbeat/authkeys"), 0o644)
		if out, err := s.Director1.Keepbeat("run"); lab.ExitCode(err) != 1 || !strings.Contains(out, "600") {
			t.Errorf("authkeys that everybody may read: exit status %d, want 1 and 0600 in:\n%s", lab.ExitCode(err), out)
		}
		s.Director1.WriteFile("/etc/keepbeat/authkeys", fileOn(s.Director2, "/etc/keepbeat/authkeys"), 0o600)
	})

	t.Run("of the cluster: the other director's are taken, and these are put aside", func(t *testing.T) {
		s.Director1.WriteFile(haresources, "groups:\n  web:\n    prefer: [director9]\n    resources:\n      - vip: 192.168.56.200\n", 0o644)
		s.startAll()
		s.settle()
		s.Lab.Eventually(limit, "director1 to have director2's file", func() bool {
			return fileOn(s.Director1, haresources) == fileOn(s.Director2, haresources)
		})
		if out := s.Director1.Run("ls", "/etc/keepbeat"); !strings.Contains(out, "haresources.yaml.unapplied-") {
			t.Errorf("the faulty file is gone; there is\n%s", out)
		}
	})

	t.Run("of a running cluster's node: it says so and runs what the cluster runs", func(t *testing.T) {
		before, since := s.standing(), probe.Now()
		if err := s.Daemons["director2"].Terminate(limit); err != nil {
			t.Fatalf("stopping director2: %v", err)
		}
		s.Director2.WriteFile(haresources, "groups: {web: nonsense}\n", 0o644)
		s.Start(s.Director2)
		s.settle()
		s.Daemons["director2"].WaitLog(limit, `unapplied`)
		s.noMoreThan(blink, since, "a restart with faulty files")
		s.unmoved(before, "a restart with faulty files")
	})
}
