package cluster

import (
	"testing"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

func TestLeadershipGoesToTheWitnessSoThatAnOwnersDeathElectsNobody(t *testing.T) {
	t.Parallel()
	s := begin(t, scenario.Options{})
	both := s.leadByDirector()
	s.own(both)
	s.settle()
	before, since := s.standing(), probe.Now()
	if before.leader != both.Name {
		t.Fatalf("%s leads, not the owner %s", before.leader, both.Name)
	}
	st := s.wait(s.Arbiter, "the witness to lead, or the leader to own nothing", func(st cluster.Status) bool {
		return st.Leader == s.Arbiter.Name || st.Leader != "" && len(st.Groups) == 1 && st.Groups[0].State == "active" && st.Groups[0].Owner != st.Leader
	})
	if st.Leader != s.Arbiter.Name {
		s.amiss(costly, before.at, "the group went to %s, and %s leads: leadership had no reason to move", st.Groups[0].Owner, st.Leader)
		return
	}
	s.settle()
	s.noMoreThan(blink, since, "the move of leadership")
	led := s.unmoved(before, "the move of leadership")
	if led.moved != before.moved+1 || led.leader != s.Arbiter.Name {
		s.amiss(costly, before.at, "%+v became %+v; want leadership moved once", before, led)
	}
	s.nothingMoves(led, since, "the witness's leadership")

	epoch, terms := s.epoch(), map[string]string{}
	for _, n := range s.standingStatus().Nodes {
		terms[n.Name] = n.Here.Term
	}
	since = both.Die()
	s.takenOver(s.other(both), since, epoch)
	st = s.wait(s.Arbiter, "the survivors' terms", func(st cluster.Status) bool {
		return s.hereOf(st, s.Arbiter.Name) != nil && s.hereOf(st, s.other(both).Name) != nil
	})
	for _, h := range s.others(both) {
		if now, then := s.hereOf(st, h.Name).Term, terms[h.Name]; now != then {
			s.amiss(costly, since, "%s was in term %s and is in %s: the owner's death cost an election", h.Name, then, now)
		}
	}
	if st.Leader != s.Arbiter.Name {
		s.amiss(costly, since, "%s leads", st.Leader)
	}
	s.revive(both)
}

func (s *story) hereOf(st cluster.Status, node string) *cluster.LocalStatus {
	for _, n := range st.Nodes {
		if n.Name == node {
			return n.Here
		}
	}
	return nil
}
