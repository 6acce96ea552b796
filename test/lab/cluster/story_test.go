// Package cluster holds lab tests of whole clusters: two directors, a witness
// and a client, each a host with the program under test as an administrator
// starts it. What needs IPVS is in test/lab/kernel.
//
// Every test has a client that asks the address all the time and one observer
// for each director; whatever the test is about, it fails when both directors
// were ever seen to answer. Bounds on time are those that a busy machine keeps:
// `make bench-failover` prints the milliseconds. What the machine has spoilt by its
// own lateness, which is measured, is logged (see amiss).
package cluster

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

const (
	// limit is for what has to happen at all.
	limit = 30 * time.Second
	// soon is for what takes about half a second on a quiet machine: a takeover.
	soon = 10 * time.Second
	// lease is that of the profile default.
	lease = 500 * time.Millisecond
	// blink is a silence that is no outage: processes of a busy machine wait for a processor.
	blink = 400 * time.Millisecond
	// a while is for what must not happen, many times what it would take.
	aWhile = 2 * time.Second
)

// story is a cluster with who watches it.
type story struct {
	*scenario.Trio
	*watchers
	t *testing.T
}

// prepare makes the machines and the watchers; no daemon runs.
func prepare(t *testing.T, o scenario.Options) *story {
	t.Helper()
	return watch(t, scenario.NewTrio(t, o), scenario.VIP)
}

// watch lets a client and two observers ask the address until the test ends.
func watch(t *testing.T, c *scenario.Trio, vip string) *story {
	t.Helper()
	s := &story{Trio: c, watchers: newWatchers(t, c.Directors, vip), t: t}
	t.Cleanup(s.oneOwner)
	return s
}

// begin is prepare, with every daemon started and director1 the owner.
func begin(t *testing.T, o scenario.Options) *story {
	t.Helper()
	s := prepare(t, o)
	s.startAll()
	s.settle()
	return s
}

// startAll starts every daemon and waits for the first answers, to the client and to the owner's observer.
func (s *story) startAll() {
	s.t.Helper()
	s.StartAll(limit)
	s.client.WaitAnswer("", s.client.From, limit)
	s.owner()
}

func (s *story) other(h *lab.Host) *lab.Host {
	if h == s.Director1 {
		return s.Director2
	}
	return s.Director1
}

func (s *story) others(h *lab.Host) []*lab.Host {
	var others []*lab.Host
	for _, n := range s.Nodes() {
		if n != h {
			others = append(others, n)
		}
	}
	return others
}

func (s *story) host(name string) *lab.Host {
	s.t.Helper()
	for _, h := range s.Nodes() {
		if h.Name == name {
			return h
		}
	}
	s.t.Fatalf("no node %q", name)
	return nil
}

// oneOwner is what holds in every story.
func (s *story) oneOwner() {
	if d := s.overlap(); d != 0 {
		s.t.Errorf("both directors answered for the address, for %v in all", d)
	}
}

// status asks a node, and asks again while it does not answer.
func (s *story) status(h *lab.Host) cluster.Status {
	s.t.Helper()
	var st cluster.Status
	s.Lab.Eventually(limit, "an answer of keepbeat status on "+h.Name, func() (ok bool) {
		st, ok = s.Status(h)
		return ok
	})
	return st
}

// wait waits until the status as a node has it is as wanted.
func (s *story) wait(h *lab.Host, what string, ok func(cluster.Status) bool) cluster.Status {
	s.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		if st, answered := s.Status(h); answered && ok(st) {
			return st
		}
		if time.Now().After(deadline) {
			out, _ := h.Keepbeat("status")
			s.t.Fatalf("waited %v in vain for %s, as %s sees it:\n%s", limit, what, h.Name, out)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// settled says whether all is well: every node up and voting on every link, every group active.
func settled(st cluster.Status) bool {
	if !st.Quorum || len(st.Groups) == 0 || len(st.Trouble) > 0 {
		return false
	}
	for _, n := range st.Nodes {
		if n.State != "up" || !n.Votes || n.Here == nil {
			return false
		}
		for _, l := range n.Links {
			if l.State != "up" {
				return false
			}
		}
	}
	for _, g := range st.Groups {
		if g.State != "active" {
			return false
		}
	}
	return true
}

// settle waits until every node says that all is well.
func (s *story) settle() {
	s.t.Helper()
	for _, h := range s.Nodes() {
		s.wait(h, "all to be well", settled)
	}
}

// stand is what an event that moves nothing leaves as it is: who owns what since
// which epoch, and how many elections there were.
type stand struct {
	at     probe.Instant // before that
	names  string        // of the groups
	groups string
	term   string
	leader string
	moved  int // how often leadership was moved on purpose, to a node that owns nothing
}

// standing is the cluster's as every node agrees on it.
func (s *story) standing() stand {
	s.t.Helper()
	at := probe.Now()
	st := s.wait(s.Arbiter, "every node's term", func(st cluster.Status) bool {
		for _, n := range st.Nodes {
			if n.Here == nil {
				return false
			}
		}
		return st.Leader != ""
	})
	var names, groups, terms []string
	for _, g := range st.Groups {
		names = append(names, g.Name)
		groups = append(groups, fmt.Sprintf("%s on %s epoch %d", g.Name, g.Owner, g.Epoch))
	}
	for _, n := range st.Nodes {
		terms = append(terms, n.Name+" in term "+n.Here.Term)
	}
	return stand{at, strings.Join(names, ", "), strings.Join(groups, ", "), strings.Join(terms, ", "), st.Leader, s.leadershipMoved()}
}

func (s *story) leadershipMoved() (n int) {
	for _, d := range s.Daemons {
		n += strings.Count(d.Log(), "moving leadership to a node that owns nothing")
	}
	return n
}

// owner is the director that the first group is active on, and whose observer hears it.
func (s *story) owner() *lab.Host {
	s.t.Helper()
	s.WaitActive(limit)
	h := s.host(s.status(s.Arbiter).Groups[0].Owner)
	s.seen(h)
	return h
}

// WaitOwner is the trio's, and waits for the observer of that director, too.
func (s *story) WaitOwner(h *lab.Host, limit time.Duration) {
	s.t.Helper()
	s.Trio.WaitOwner(h, limit)
	s.seen(h)
}

func (s *story) epoch() uint64 {
	s.t.Helper()
	return s.status(s.Arbiter).Groups[0].Epoch
}

// own makes a director the owner.
func (s *story) own(h *lab.Host) {
	s.t.Helper()
	if s.owner() != h {
		s.must(h, "takeover", "--wait=30s")
	}
	s.WaitOwner(h, limit)
}

// must runs an operator's command that has to succeed.
func (s *story) must(h *lab.Host, args ...string) string {
	s.t.Helper()
	out, err := h.Keepbeat(args...)
	if err != nil {
		s.t.Fatalf("keepbeat %s on %s: %v\n%s", strings.Join(args, " "), h.Name, err, out)
	}
	return out
}

// refused runs an operator's command that has to fail with an exit status and these words.
func (s *story) refused(h *lab.Host, code int, words string, args ...string) {
	s.t.Helper()
	out, err := h.Keepbeat(args...)
	if lab.ExitCode(err) != code || !strings.Contains(out, words) {
		s.t.Errorf("keepbeat %s on %s: exit status %d, want %d and %q in:\n%s", strings.Join(args, " "), h.Name, lab.ExitCode(err), code, words, out)
	}
}

// nothingMoves lets a while pass, in which the client hears its owner without a
// break and nothing is decided, and returns what stands now.
func (s *story) nothingMoves(before stand, since probe.Instant, what string) stand {
	s.t.Helper()
	time.Sleep(aWhile)
	s.noMoreThan(blink, since, what)
	return s.stands(before, what)
}

// stands checks that no group has moved and nobody was elected, and returns what stands now.
func (s *story) stands(before stand, what string) stand {
	s.t.Helper()
	since, after := before.at, s.unmoved(before, what)
	if after.moved > before.moved { // that is no election that this brought about
		before.term, before.leader, before.moved = after.term, after.leader, after.moved
	}
	before.at, before.groups = after.at, after.groups
	if after != before {
		s.amiss(costly, since, "%s: %+v became %+v; want no election", what, before, after)
	}
	return after
}

// unmoved checks that every group is where it was, in the epoch that it was in, and returns what stands now.
func (s *story) unmoved(before stand, what string) stand {
	s.t.Helper()
	after := s.standing()
	switch {
	case after.names != before.names:
		s.t.Errorf("%s: the groups %s became %s", what, before.names, after.names)
	case after.groups != before.groups:
		s.amiss(costly, before.at, "%s: %s became %s; want no move", what, before.groups, after.groups)
	}
	return after
}

// takenOver waits until another director answers, and checks that it does so in
// the epoch after this one and goes on doing so.
func (s *story) takenOver(by *lab.Host, since probe.Instant, epoch uint64) {
	s.t.Helper()
	s.client.WaitAnswer(by.Name, since, soon)
	s.WaitOwner(by, limit)
	s.Lab.Logf("%s answers: %v", by.Name, s.client.Outage(since))
	s.movedOnce(since, epoch, s.epoch())
}

// kill ends the daemon of a node without a chance to do anything.
func (s *story) kill(h *lab.Host) probe.Instant {
	s.t.Helper()
	d := s.Daemons[h.Name]
	at := d.Signal(syscall.SIGKILL)
	if !d.Wait(soon) {
		s.t.Fatalf("the daemon on %s survived SIGKILL", h.Name)
	}
	return at
}

// hang stops the daemon of a node until SIGCONT.
func (s *story) hang(h *lab.Host) probe.Instant {
	s.t.Helper()
	return s.Daemons[h.Name].Signal(syscall.SIGSTOP)
}

// wake continues a daemon that hangs.
func (s *story) wake(h *lab.Host) { s.t.Helper(); s.Daemons[h.Name].Signal(syscall.SIGCONT) }

// revive switches a dead machine on and starts its daemon.
func (s *story) revive(h *lab.Host) {
	s.t.Helper()
	h.Revive()
	s.Start(h)
	s.settle()
}

// leader is the node that leads, as the witness or, when that is gone, director1 sees it.
func (s *story) leader() *lab.Host {
	s.t.Helper()
	var name string
	s.Lab.Eventually(limit, "a leader", func() bool {
		for _, h := range s.Nodes() {
			if d := s.Daemons[h.Name]; h.Dead() || d == nil || d.Ended() {
				continue
			}
			if st, ok := s.Status(h); ok && st.Leader != "" {
				name = st.Leader
				return true
			}
		}
		return false
	})
	return s.host(name)
}

// leadByDirector makes one of the directors raft's leader, by restarting the witness when it leads.
func (s *story) leadByDirector() *lab.Host {
	s.t.Helper()
	for range 5 {
		if l := s.leader(); l != s.Arbiter {
			return l
		}
		s.kill(s.Arbiter)
		s.Lab.Eventually(limit, "a director to lead", func() bool {
			st, ok := s.Status(s.Director1)
			return ok && st.Leader != "" && st.Leader != s.Arbiter.Name
		})
		s.Start(s.Arbiter)
		s.settle()
	}
	s.t.Fatal("the witness led five times in a row")
	return nil
}

// leftBehind is what a node still has of the cluster: addresses, filters, journal.
func (s *story) leftBehind(h *lab.Host, vips ...string) string {
	s.t.Helper()
	var left []string
	for _, vip := range vips {
		if h.HasAddress(vip) {
			left = append(left, "address "+vip)
		}
	}
	for _, side := range []string{"ingress", "egress"} {
		if out, _ := h.Try("tc", "filter", "show", "dev", "eth0", side); strings.TrimSpace(out) != "" {
			left = append(left, "tc filter "+side+": "+out)
		}
	}
	if out, err := h.Try("sh", "-c", "ls /run/keepbeat/journal 2>/dev/null"); err == nil && strings.TrimSpace(out) != "" {
		left = append(left, "journal "+out)
	}
	return strings.Join(left, "\n")
}

// nothingLeft checks that a node has nothing left of the cluster.
func (s *story) nothingLeft(h *lab.Host, vips ...string) {
	s.t.Helper()
	if left := s.leftBehind(h, vips...); left != "" {
		s.t.Errorf("on %s there is left:\n%s", h.Name, left)
	}
}

// guarded says whether both filters of the guard are on an interface.
func guarded(h *lab.Host, ifname string) bool {
	for _, side := range []string{"ingress", "egress"} {
		if out, err := h.Try("tc", "filter", "show", "dev", ifname, side); err != nil || !strings.Contains(out, "bpf") {
			return false
		}
	}
	return true
}

// fileOn is a file of a host; "" when there is none.
func fileOn(h *lab.Host, path string) string {
	b, err := os.ReadFile(h.Path(path))
	if err != nil {
		return ""
	}
	return string(b)
}
