package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/cluster/consensus"
	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/cluster/membership"
	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/cluster/placement"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/fencing"
	"github.com/keepbeat/keepbeat/fencing/watchdog"
	"github.com/keepbeat/keepbeat/resources"
)

// Status is what `keepbeat status --json` prints.
type Status struct {
	Cluster string    `json:"cluster"`
	Node    string    `json:"node"` // that was asked
	Version string    `json:"version"`
	Time    time.Time `json:"time"`

	Trouble []string `json:"trouble"`         // most serious first; empty: all is well
	Notes   []string `json:"notes,omitempty"` // what holds all the time and should be known

	Quorum  bool   `json:"quorum"`            // a leader is known
	Waiting string `json:"waiting,omitempty"` // what a cluster that has not begun waits for
	// Reading says that this node has not read its log again since its start:
	// Spec, Groups and the rest of what the log says are older than what the cluster
	// knows, or not there at all. Empty: they are what it knows.
	Reading string         `json:"reading,omitempty"`
	Leader  string         `json:"leader,omitempty"`
	Profile string         `json:"profile"`
	Spec    state.SpecInfo `json:"spec"`
	Index   uint64         `json:"index"`

	Fencing map[string]state.FenceRequest `json:"fencing,omitempty"` // by node: what is under way

	// Foreign says who is heard that belongs to the history of another cluster, and the way out.
	Foreign string `json:"foreign,omitempty"`

	Nodes  []NodeStatus  `json:"nodes"`
	Groups []GroupStatus `json:"groups"`
	// Leaving says in words what may still run although the specification does not have it any more.
	Leaving []string `json:"leaving,omitempty"`
}

// NodeStatus is a node as the cluster sees it.
type NodeStatus struct {
	Name        string       `json:"name"`
	Role        string       `json:"role"`
	State       string       `json:"state"` // up, late, down, joining, stopped, revoked
	Why         string       `json:"why,omitempty"`
	Votes       bool         `json:"votes"`
	Incarnation uint64       `json:"incarnation"`
	Owns        []string     `json:"owns,omitempty"`
	Links       []LinkStatus `json:"links,omitempty"` // from the node that was asked to this one
	Here        *LocalStatus `json:"here,omitempty"`  // what the node says of itself; nil: it did not answer
	// Differs says that its replicated state is not what the node that was asked had at the same index.
	Differs bool `json:"differs,omitempty"`
}

// LinkStatus is one link towards a node.
type LinkStatus struct {
	Link  string    `json:"link"`
	State string    `json:"state"` // up, late, down
	Why   string    `json:"why,omitempty"`
	RTT   float64   `json:"rtt_ms"`
	Loss  float64   `json:"loss"` // 0 to 1
	Since time.Time `json:"since"`
}

// LocalStatus is what only the node itself knows.
type LocalStatus struct {
	Node      string                  `json:"node"`
	Version   string                  `json:"version"`
	Boot      string                  `json:"boot"`
	Started   time.Time               `json:"started"`
	Lease     float64                 `json:"lease_left_ms"` // 0: none
	Guard     string                  `json:"guard"`         // on, off
	Profile   string                  `json:"profile"`       // of its ha.yaml
	Nodes     string                  `json:"nodes"`         // of its ha.yaml, with their roles
	SpecError string                  `json:"spec_error,omitempty"`
	Unstored  string                  `json:"unstored,omitempty"` // why it cannot write to its data directory
	Raft      string                  `json:"raft"`               // Leader, Follower, Candidate
	Term      string                  `json:"term"`               // raft's: grows with every election that was tried
	Index     uint64                  `json:"index,omitempty"`    // up to which it has applied the log
	Digest    string                  `json:"digest,omitempty"`   // of the replicated state there
	Gossip    map[string]string       `json:"gossip,omitempty"`
	Groups    []resources.GroupStatus `json:"groups,omitempty"`
	// Refused are datagrams that came in on its links and were not believed.
	Refused []link.Refused `json:"refused_datagrams,omitempty"`

	Pair     *PairStatus            `json:"pair,omitempty"` // nil: a majority decides
	Devices  []fencing.DeviceStatus `json:"fencing_devices,omitempty"`
	Waiting  []fencing.Waiting      `json:"fencing_waits,omitempty"` // confirmations by a person
	Held     map[string]time.Time   `json:"fencing_held,omitempty"`  // by node: by the leader, not to be fenced again before
	Watchdog *watchdog.Status       `json:"watchdog,omitempty"`
}

// GroupStatus is a group as the log has it, with what its owner says of the resources.
type GroupStatus struct {
	Name     string                     `json:"name"`
	Owner    string                     `json:"owner,omitempty"`
	Epoch    uint64                     `json:"epoch"`
	State    string                     `json:"state"` // active, starting, moving, blocked, down, silent
	Target   string                     `json:"target,omitempty"`
	Since    time.Time                  `json:"since,omitzero"`
	Reason   string                     `json:"reason,omitempty"`
	Manual   string                     `json:"manual,omitempty"`
	Blocked  string                     `json:"blocked,omitempty"`
	Prefer   []string                   `json:"prefer"`
	Failback bool                       `json:"auto_failback"`
	Failures map[string]state.Failure   `json:"failures,omitempty"`
	Refused  map[string]string          `json:"refused,omitempty"` // directors that cannot have it now, and why
	Resource []resources.ResourceStatus `json:"resources,omitempty"`
}

// LocalStatus returns what this node knows of itself.
func (n *Node) LocalStatus() LocalStatus {
	n.mu.Lock()
	specErr := n.specErr
	n.mu.Unlock()
	raft := n.cons.Stats()
	nodes, _ := n.nodesOf(n.State())
	s := LocalStatus{
		Node: n.self, Version: n.cfg.Version, Boot: fmt.Sprintf("%016x", uint64(n.cfg.Boot)), Started: n.started,
		Guard: "on", Profile: n.cfg.Local.Profile.Name, Nodes: listed(nodes), SpecError: specErr, Raft: raft["state"], Term: raft["term"],
	}
	if n.cfg.Guard == nil {
		s.Guard = "off"
	}
	if err := cmp.Or(n.keeper.Unstored(), n.cfg.Stores.Failing()); err != nil {
		s.Unstored = err.Error()
	}
	if left := n.keeper.Left(); left > 0 {
		s.Lease = float64(left.Microseconds()) / 1000
	}
	if n.manager != nil {
		s.Groups = n.manager.Status()
	}
	if r, ok := n.cfg.Datagrams.(interface{ Refused() []link.Refused }); ok { // the simulation's medium keeps no such book
		s.Refused = r.Refused()
	}
	s.Pair = n.pair.status()
	if n.cfg.Fencing != nil && fencingOf(n.State()) != nil {
		s.Devices, s.Waiting = n.cfg.Fencing.Status(), n.cfg.Fencing.Waiting()
		doubt(n.State(), s.Devices)
		if n.cons.Leading() {
			n.mu.Lock()
			s.Held = n.fencingHeld
			n.mu.Unlock()
		}
	}
	if dog := n.cfg.Watchdog; dog != nil {
		if w := dog.Status(); w.Device != "" {
			s.Watchdog = &w
		}
	}
	if n.members != nil {
		s.Gossip = gossip(n.members.Members())
	}
	return s
}

// listed is `nodes:` in a line, whatever their order in the file.
func listed(nodes []conf.Node) string {
	var all []string
	for _, n := range nodes {
		name := n.Name
		if n.Role != conf.Director {
			name += " (" + n.Role.String() + ")"
		}
		all = append(all, name)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func gossip(members []membership.Member) map[string]string {
	m := map[string]string{}
	for _, x := range members {
		m[x.Name] = x.State.String()
	}
	return m
}

// Status asks the other nodes what they know of themselves, waits for them a
// second at most, and puts it together.
func (n *Node) Status(ctx context.Context) Status {
	st := n.State()
	s := Status{
		Cluster: n.cfg.Local.Cluster, Node: n.self, Version: n.cfg.Version, Time: time.Now().UTC(),
		Leader: n.cons.Leader(), Spec: st.SpecInfo, Index: st.Index, Profile: n.cfg.Local.Profile.Name,
	}
	s.Quorum = s.Leader != ""
	s.Fencing = st.Fencing
	if st.Spec != nil {
		s.Profile = st.Spec.Settings.Profile.Name
	}
	here := n.askAll(ctx)
	differ := n.differing(ctx, here)
	peers := map[string]link.Peer{}
	for _, p := range n.cfg.Datagrams.Peers() {
		peers[p.Node] = p
	}
	nodes, _ := n.nodesOf(st)
	for _, c := range nodes {
		x := n.nodeStatus(st, c, peers[c.Name], here[c.Name])
		x.Differs = slices.Contains(differ, c.Name)
		s.Nodes = append(s.Nodes, x)
	}
	if st.Spec != nil {
		for i := range st.Spec.Groups {
			s.Groups = append(s.Groups, groupStatus(st, &st.Spec.Groups[i], here))
		}
	}
	s.Leaving = leaving(st)
	s.Foreign = n.pair.foreigner()
	s.Waiting, s.Reading = n.cons.Waiting(), n.reading(st, s.Quorum)
	s.Trouble = trouble(s)
	s.Notes = []string{}
	if fencingOf(st) == nil {
		s.Notes = append(s.Notes, fmt.Sprintf("without fencing, a machine that is paused as a whole may act for up to %v when it wakes (docs/safety.md)", n.lease(st)))
	}
	return s
}

// reading says in words whether st is behind what this node's log held at its
// start; empty: it is not. A node that was admitted since has read it all.
func (n *Node) reading(st *state.State, leader bool) string {
	switch {
	case st.Nodes[n.self].Boot == uint64(n.cfg.Boot) || !n.cons.Reading(st):
		return ""
	case !leader:
		return "what stands in this node's log counts again when there is a leader: until then specification and groups may be missing here"
	}
	return "this node is reading its log again after its start: specification and groups are not all there yet"
}

func (n *Node) askAll(ctx context.Context) map[string]*LocalStatus {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	local := n.withDigest(n.LocalStatus())
	all := map[string]*LocalStatus{n.self: &local}
	var mu sync.Mutex // guards all
	var wg sync.WaitGroup
	for name := range n.heard() {
		wg.Go(func() {
			a, err := n.calls.ask(ctx, name, request{Op: "status"})
			if err != nil {
				return
			}
			var l LocalStatus
			if json.Unmarshal(a.Status, &l) == nil {
				mu.Lock()
				all[name] = &l
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return all
}

// alsoJoins names a node that joins together with this one and is not heard; empty: there is none.
func alsoJoins(m *state.Members, name, self string, heard map[string]consensus.Member) string {
	if m == nil || !slices.Contains(m.Joining, name) {
		return ""
	}
	for _, other := range m.Joining {
		if _, there := heard[other]; !there && other != name && other != self {
			return other
		}
	}
	return ""
}

func (n *Node) nodeStatus(st *state.State, c conf.Node, p link.Peer, here *LocalStatus) NodeStatus {
	logged := st.Nodes[c.Name]
	s := NodeStatus{Name: c.Name, Role: c.Role.String(), Incarnation: logged.Incarnation, Owns: st.OwnedBy(c.Name), Here: here}
	s.Votes = slices.ContainsFunc(st.Voters.IDs, func(id string) bool { return consensus.Identity(id) == logged.ID })
	for _, l := range p.Links {
		s.Links = append(s.Links, LinkStatus{l.Link, l.State.String(), l.Why, float64(l.RTT.Microseconds()) / 1000, l.Loss, l.Since.UTC()})
	}
	switch {
	case c.Name == n.self && n.admitted(st):
		s.State = "up"
	case c.Name == n.self:
		s.State, s.Why = "joining", "not admitted by the log yet"
		if w := n.cons.Waiting(); w != "" {
			s.Why = w
		}
	case p.State == link.Up || p.State == link.Late:
		s.State = p.State.String()
		if !logged.Valid {
			s.State, s.Why = "joining", "not admitted by the log yet"
			if other := alsoJoins(st.Members, c.Name, n.self, n.heard()); other != "" {
				s.Why = fmt.Sprintf("it votes when %s follows as well, which is not heard: start that one, or take it out again (`keepbeat node remove %[1]s`)", other)
			}
		}
	default:
		s.State, s.Why = "down", "not heard on any link"
		if !logged.Valid && logged.Why != "" {
			s.Why = logged.Why
		}
	}
	return s
}

func groupStatus(st *state.State, c *conf.Group, here map[string]*LocalStatus) GroupStatus {
	g := st.Groups[c.Name]
	s := GroupStatus{
		Name: c.Name, Owner: g.Owner, Epoch: g.Epoch, Target: g.Target, Since: g.Since, Reason: g.Reason,
		Manual: g.Manual, Blocked: g.Blocked, Prefer: c.Prefer, Failback: c.AutoFailback, Failures: g.Failures,
	}
	s.Refused = placement.Place(st, c, nil).Refused
	owner := here[g.Owner]
	switch {
	case g.Owner == "":
		s.State = "down"
		if why := st.Waits(c, st.Held()); why != "" {
			s.Reason = why
		}
	case g.Blocked != "":
		s.State = "blocked"
	case g.Target != "":
		s.State, s.Reason = "moving", g.TargetReason
	case owner != nil && owner.Lease == 0:
		s.State = "silent"
	case !g.Active:
		s.State = "starting"
	default:
		s.State = "active"
	}
	if owner != nil {
		for _, h := range owner.Groups {
			if h.Name == c.Name {
				s.Resource = h.Resources
			}
		}
	}
	return s
}

// leaving says what the specification no longer has and its owner has not reported stopped.
func leaving(st *state.State) []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(st.Leaving)) {
		g := st.Groups[name]
		var what []string
		for _, r := range st.Leaving[name].Resources {
			what = append(what, r.Takes())
		}
		text := fmt.Sprintf("group %s: %s may still run on %s, and the specification does not have it any more", name, strings.Join(what, ", "), g.Owner)
		if g.Blocked != "" {
			text += ": " + g.Blocked
		}
		all = append(all, text)
	}
	return all
}

// trouble lists what an administrator should know, the most serious first.
func trouble(s Status) []string {
	type item struct {
		rank int
		text string
	}
	var items []item
	add := func(rank int, format string, args ...any) {
		items = append(items, item{rank, fmt.Sprintf(format, args...)})
	}
	if text := disagreement(s); text != "" {
		add(-1, "%s", text)
	}
	switch {
	case s.Waiting != "":
		add(0, "%s", s.Waiting)
	case s.Quorum && s.Reading != "":
		add(0, "%s", s.Reading)
	case !s.Quorum && here(s) != nil && here(s).Pair != nil:
		// What the pair says of itself, below, is more to the point.
	case !s.Quorum:
		add(0, "no quorum: this node sees no majority of voters; groups whose lease has ended are silent")
	}
	fenceTrouble(s, add)
	for _, l := range s.Leaving {
		if s.Reading == "" {
			add(2, "%s", l)
		}
	}
	if s.Foreign != "" {
		add(1, "%s", s.Foreign)
	}
	rivals := false
	if h := here(s); h != nil && h.Pair != nil {
		rivals = h.Pair.Phase == pair.Rivals.String()
	}
	for _, g := range s.Groups {
		if s.Reading != "" || rivals {
			break // it is as it was, or as only this one of two histories has it
		}
		switch g.State {
		case "blocked":
			add(1, "group %s is blocked on %s: %s", g.Name, g.Owner, g.Blocked)
		case "down":
			add(1, "group %s runs nowhere: %s", g.Name, g.Reason)
		case "silent":
			add(1, "group %s: its owner %s has no live lease; the guard keeps its addresses silent", g.Name, g.Owner)
		}
		for node, f := range g.Failures {
			if !f.Until.IsZero() {
				add(2, "group %s failed on %s: %s: %s (tried again after a while)", g.Name, node, f.Resource, f.Error)
			}
		}
		for _, r := range g.Resource {
			if r.Error != "" {
				add(2, "group %s: %s: %s", g.Name, r.Name, r.Error)
			}
		}
		for node, why := range g.Refused {
			if f, failed := g.Failures[node]; failed && !f.Until.IsZero() {
				continue
			}
			if slices.ContainsFunc(s.Nodes, func(x NodeStatus) bool { return x.Name == node && x.State == "up" }) {
				add(3, "group %s could not run on %s: %s", g.Name, node, why)
			}
		}
	}
	ours := ""
	for _, n := range s.Nodes {
		if n.Name == s.Node && n.Here != nil {
			ours = n.Here.Nodes
		}
	}
	for _, n := range s.Nodes {
		if n.State != "up" {
			unknown := n.State == "joining" && s.Reading != "" // who is admitted is not read yet
			if s.Waiting == "" && !unknown && !pairSays(n) {
				add(2, "%s", strings.TrimSuffix(fmt.Sprintf("node %s is %s: %s", n.Name, n.State, n.Why), ": "))
			}
			if n.State == "down" {
				continue // its links say nothing more
			}
		}
		for _, l := range n.Links {
			if l.State != "up" {
				add(3, "%s", strings.TrimSuffix(fmt.Sprintf("link %s to %s is %s: %s", l.Link, n.Name, l.State, l.Why), ": "))
			}
		}
		if h := n.Here; h != nil {
			if h.SpecError != "" {
				add(3, "node %s: its files are not what the cluster runs: %s", n.Name, h.SpecError)
			}
			if h.Unstored != "" {
				add(2, "node %s cannot write to its data directory: it follows the cluster no longer, and its vote is missing: %s; make room there, or see what is wrong with the disk", n.Name, h.Unstored)
			}
			if h.Nodes != ours {
				add(3, "node %s: its ha.yaml has other nodes (%s) than this one's (%s): make them the same and run `keepbeat restart` where it was changed", n.Name, h.Nodes, ours)
			}
			for _, r := range h.Refused {
				add(3, "node %s, link %s: %s (%d so far, the last from %s %v ago)", n.Name, r.Link, r.What, r.Count, r.From, s.Time.Sub(r.Last).Round(time.Second))
			}
			if h.Version != s.Version {
				add(4, "node %s runs keepbeat %s, this one %s", n.Name, h.Version, s.Version)
			}
			if h.Profile != s.Profile {
				add(4, "node %s: its ha.yaml says profile %s, the cluster runs %s: its hellos and raft keep the file's timings", n.Name, h.Profile, s.Profile)
			}
			if h.Guard == "off" && n.Role == conf.Director.String() {
				add(4, "node %s runs without the guard (guard: off): a daemon that hangs there keeps its addresses", n.Name)
			}
		}
	}
	sort.SliceStable(items, func(i, j int) bool {
		if items[i].rank != items[j].rank {
			return items[i].rank < items[j].rank
		}
		return items[i].text < items[j].text
	})
	lines := []string{}
	for _, i := range items {
		lines = append(lines, i.text)
	}
	return lines
}

// Why is what `keepbeat why GROUP` prints.
type Why struct {
	Group     GroupStatus      `json:"group"`
	Wanted    string           `json:"wanted,omitempty"` // node; empty: none
	Because   string           `json:"because"`
	Order     []string         `json:"order"` // directors, best first
	Decisions []state.Decision `json:"decisions"`
}

// Why explains where a group is.
func (n *Node) Why(ctx context.Context, group string) (Why, error) {
	st := n.State()
	g, c := st.Group(group)
	if c == nil {
		var names []string
		if st.Spec != nil {
			for _, x := range st.Spec.Groups {
				names = append(names, x.Name)
			}
		}
		if len(names) == 0 {
			if w := n.cons.Waiting(); w != "" {
				return Why{}, errors.New(w)
			}
			if r := n.reading(st, n.cons.Leader() != ""); r != "" {
				return Why{}, errors.New(r)
			}
			return Why{}, errors.New("the cluster has no groups yet")
		}
		return Why{}, fmt.Errorf("no group %q; there are %s", group, strings.Join(names, ", "))
	}
	want := placement.Place(st, c, nil)
	w := Why{Group: groupStatus(st, c, n.askAll(ctx)), Wanted: want.Node, Because: want.Reason, Order: placement.Order(st, c)}
	for _, d := range st.Decisions {
		if d.Group == group || (d.Group == "" && (d.Node == g.Owner || slices.Contains(c.Prefer, d.Node))) {
			w.Decisions = append(w.Decisions, d)
		}
	}
	return w, nil
}
