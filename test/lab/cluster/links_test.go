package cluster

import (
	"testing"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

func TestLossOfEitherLinkMovesNothingAndElectsNobody(t *testing.T) {
	for _, c := range []struct {
		name  string
		links []string
	}{
		{"bcast", []string{"- bcast: eth1", "- bcast: eth2"}},
		{"mcast", []string{"- mcast: eth1 225.0.0.1 694 1 0", "- mcast: {interface: eth2, group: 239.1.2.3}"}},
		{"ucast", []string{"- ucast: eth1 10.0.1.1 10.0.1.2 10.0.1.3", "- ucast: {interface: eth2, addresses: [10.0.2.1, 10.0.2.2, 10.0.2.3]}"}},
		{"mixed, with other ports", []string{"- ucast: {interface: eth1, port: 1694, addresses: [10.0.1.1, 10.0.1.2, 10.0.1.3]}", "- mcast: eth2 225.0.0.1 2694 1 0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := begin(t, scenario.Options{Links: c.links})
			before := s.standing()
			for _, lost := range []int{0, 1} {
				since := probe.Now()
				for _, h := range s.Nodes() {
					h.PortOn(s.Heartbeat[lost]).Block()
				}
				s.wait(s.Arbiter, "the lost link to be seen", func(st cluster.Status) bool { return linksIn(st, "down") == 2 })
				before = s.nothingMoves(before, since, "the loss of link "+s.Heartbeat[lost].Name)
				since = probe.Now()
				s.Lab.Heal()
				s.settle()
				before = s.nothingMoves(before, since, "the return of link "+s.Heartbeat[lost].Name)
			}
		})
	}
}

// linksIn counts the links of the node that was asked which are in a state.
func linksIn(st cluster.Status, state string) (n int) {
	for _, node := range st.Nodes {
		for _, l := range node.Links {
			if l.State == state {
				n++
			}
		}
	}
	return n
}

func TestAPulledCableOfOneNodeMovesNothing(t *testing.T) {
	s := begin(t, scenario.Options{})
	before := s.standing()
	for _, h := range []*lab.Host{s.owner(), s.leader()} {
		since := probe.Now()
		h.PortOn(s.Heartbeat[0]).Down()
		before = s.nothingMoves(before, since, "the cable of "+h.Name+" out")
		since = probe.Now()
		h.PortOn(s.Heartbeat[0]).Up()
		s.settle()
		before = s.nothingMoves(before, since, "the cable of "+h.Name+" back")
	}
}

func TestAThirdOfAllDatagramsLostOnBothLinksMovesNothing(t *testing.T) {
	s := begin(t, scenario.Options{Profile: "calm"})
	since, before := probe.Now(), s.standing()
	for _, h := range s.Nodes() {
		for _, wire := range s.Heartbeat {
			h.PortOn(wire).Lose(180) // on the way in and out: a third
		}
	}
	s.nothingMoves(before, since, "much loss on both links")
}

func TestALinkWhoseInterfaceIsMissingAtStartComesUpByItself(t *testing.T) {
	t.Parallel()
	s := prepare(t, scenario.Options{Links: []string{"- bcast: eth1", "- bcast: eth3"}})
	s.startAll()
	for _, h := range s.Nodes() {
		st := s.wait(h, "one link up", func(st cluster.Status) bool { return linksIn(st, "up") == 2 && linksIn(st, "down") == 2 })
		if len(st.Trouble) == 0 {
			t.Errorf("status on %s says nothing of the link that is missing", h.Name)
		}
	}
	before, since := s.standing(), probe.Now()
	late := s.Lab.Switch("late")
	for i, h := range s.Nodes() {
		h.Attach(late, "eth3", []string{"10.0.3.1/24", "10.0.3.2/24", "10.0.3.3/24"}[i])
	}
	s.settle()
	for _, h := range s.Nodes() {
		h.PortOn(s.Heartbeat[0]).Block()
	}
	s.nothingMoves(before, since, "the loss of the link that was there first")
}

func TestTwoClustersOnOneWireDoNotHearEachOther(t *testing.T) {
	t.Parallel()
	s := begin(t, scenario.Options{})
	const vip = "192.168.56.222"
	second := s.SecondCluster("second", vip)
	for _, h := range second {
		h.StartKeepbeat("run")
	}
	client := s.Client.Probe(vip, askEvery)
	client.WaitAnswer("east1", client.From, limit)
	for i, h := range append(s.Nodes(), second...) {
		st := s.wait(h, "all to be well", settled)
		if want := []string{"lab", "second"}[i/3]; st.Cluster != want || len(st.Nodes) != 3 || linksIn(st, "up") != 4 {
			t.Errorf("%s is in cluster %s of %d nodes with %d links up; want %s, 3, 4", h.Name, st.Cluster, len(st.Nodes), linksIn(st, "up"), want)
		}
	}
	// The one's death is no matter of the other.
	since, before := probe.Now(), s.standing()
	second[0].Die()
	client.WaitAnswer("east2", since, soon)
	s.nothingMoves(before, since, "a death in the other cluster")
}

func TestANodeWithAnotherKeyStaysOutAndTheLogSaysSo(t *testing.T) {
	t.Parallel()
	s := begin(t, scenario.Options{})
	if err := s.Daemons["director2"].Terminate(limit); err != nil {
		t.Fatalf("stopping director2: %v", err)
	}
	s.Director2.WriteFile("/etc/keepbeat/authkeys", "auth 1\n1 sha1 a-key-of-somebody-else\n", 0o600)
	since := probe.Now()
	stranger := s.Start(s.Director2)
	s.Daemons["director1"].WaitLog(limit, `(?i)authenticat|another key|wrong key|authkeys`)
	stranger.WaitLog(limit, `(?i)authenticat|another key|wrong key|authkeys`)
	s.wait(s.Arbiter, "director2 to be down and the group active", func(st cluster.Status) bool {
		return st.Quorum && st.Groups[0].State == "active" && st.Nodes[1].State == "down"
	})
	s.noMoreThan(blink, since, "a stranger's datagrams")

	if err := stranger.Terminate(limit); err != nil {
		t.Errorf("the stranger's end: %v", err)
	}
	s.Director2.WriteFile("/etc/keepbeat/authkeys", fileOn(s.Director1, "/etc/keepbeat/authkeys"), 0o600)
	s.Start(s.Director2)
	s.settle()
}

func TestAnInterfaceThatGoesAwayAndComesBackIsALinkThatDoes(t *testing.T) {
	t.Parallel()
	s := begin(t, scenario.Options{})
	before, since := s.standing(), probe.Now()
	owner := s.owner()
	owner.Run("ip", "link", "del", "eth2") // both ends of it
	s.wait(owner, "both links over eth2 to be down", func(st cluster.Status) bool { return linksIn(st, "down") == 2 })
	owner.Attach(s.Lab.Switch("spare"), "eth2", "10.0.2.9/24") // a wire with nobody on it
	before = s.nothingMoves(before, since, "an interface away and back, on another wire")
	owner.Run("ip", "link", "del", "eth2")
	owner.Attach(s.Heartbeat[1], "eth2", "10.0.2.9/24")
	s.settle()
	s.nothingMoves(before, since, "and on the right one")
}
