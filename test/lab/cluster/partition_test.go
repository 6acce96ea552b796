package cluster

import (
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

// The service network is whole in all of these: the client could be answered by
// both directors.
func TestPartition(t *testing.T) {
	s := begin(t, scenario.Options{})

	for _, c := range []struct {
		name string
		cut  func(owner *lab.Host)
	}{
		{"the owner alone", func(owner *lab.Host) { s.Lab.Partition([]*lab.Host{owner}, s.others(owner)) }},
		{"the owner is not heard", func(owner *lab.Host) {
			for _, h := range s.others(owner) {
				s.Lab.DropOneWay(owner, h)
			}
		}},
		{"the owner hears nobody", func(owner *lab.Host) {
			for _, h := range s.others(owner) {
				s.Lab.DropOneWay(h, owner)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			owner, epoch, since := s.owner(), s.epoch(), probe.Now()
			c.cut(owner)
			cut := probe.Now()
			s.takenOver(s.other(owner), since, epoch)
			s.silentBy(owner, cut, hushed)
			time.Sleep(aWhile)
			healed := probe.Now()
			s.Lab.Heal()
			s.settle()
			s.silentBy(owner, cut, hushed)
			s.noMoreThan(blink, healed, "the healing")
		})
	}

	t.Run("the owner and leader alone", func(t *testing.T) {
		both := s.leadByDirector()
		s.own(both)
		epoch, since := s.epoch(), probe.Now()
		s.Lab.Partition([]*lab.Host{both}, s.others(both))
		cut := probe.Now()
		s.takenOver(s.other(both), since, epoch)
		s.silentBy(both, cut, hushed)
		s.Lab.Heal()
		s.settle()
	})

	t.Run("a leader alone that owns nothing", func(t *testing.T) {
		leader := s.leader()
		if leader != s.Arbiter {
			s.own(s.other(leader))
		}
		before, since := s.standing(), probe.Now()
		s.Lab.Partition([]*lab.Host{leader}, s.others(leader))
		s.Lab.Eventually(limit, "another leader", func() bool {
			st, ok := s.Status(s.others(leader)[0])
			return ok && st.Leader != "" && st.Leader != leader.Name
		})
		time.Sleep(aWhile)
		s.Lab.Heal()
		s.settle()
		s.noMoreThan(blink, since, "a leader cut off and back")
		s.unmoved(before, "a leader cut off and back")
	})

	t.Run("between the directors only moves nothing", func(t *testing.T) {
		// The witness hears both: the owner keeps its majority.
		before, since := s.standing(), probe.Now()
		s.Lab.Partition([]*lab.Host{s.Director1}, []*lab.Host{s.Director2})
		time.Sleep(2 * aWhile)
		s.noMoreThan(blink, since, "directors that do not hear each other")
		s.Lab.Heal()
		s.settle()
		s.unmoved(before, "directors that did not hear each other")
	})

	t.Run("everybody alone: silence, and service again when it heals", func(t *testing.T) {
		owner := s.owner()
		s.Lab.Partition(s.directors[:], []*lab.Host{s.Arbiter})
		s.Lab.Partition([]*lab.Host{s.Director1}, []*lab.Host{s.Director2})
		cut := probe.Now()
		time.Sleep(aWhile)
		s.silentBy(owner, cut, hushed)
		if n := s.answeredFrom(cut.Add(hushed)); n > 0 {
			t.Errorf("%d answers without a majority", n)
		}
		s.Lab.Heal()
		s.client.WaitAnswer("", probe.Now(), limit)
		s.settle()
	})
}
