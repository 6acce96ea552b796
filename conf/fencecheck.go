package conf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// misfit is a place where a specification and a node's ha.yaml do not go together.
type misfit struct {
	device string     // a device it is about
	vip    netip.Addr // an address it is about
	fenced bool       // it is about the first resource of class fenced
	router string     // a foreign router it is about
	msg    string
}

// ValidFor says whether a specification may run with the nodes, the quorum
// rule, the ping group, the serial lines and the watchdog of a node's ha.yaml; the error has a
// line for each fault. ParseSpec has looked already, with the ha.yaml of the
// node where it was called. The daemon asks again with its own, and before
// the nodes are changed.
func (s *Spec) ValidFor(l *Local) error {
	var errs []error
	for _, m := range misfits(s, l) {
		errs = append(errs, errors.New(m.msg))
	}
	return errors.Join(errs...)
}

func misfits(s *Spec, l *Local) []misfit {
	out := witnessOperates(s.Fencing, l)
	bare := unfenced(s.Fencing, l)
	if l.Quorum == QuorumFencing {
		if len(bare) > 0 {
			out = append(out, misfit{msg: fmt.Sprintf("quorum is fencing in ha.yaml, and no device that another node may operate can fence %s; add one under \"fencing: {devices: ...}\"", strings.Join(bare, " and "))})
		}
		out = append(out, watchdogAlone(s.Fencing, l)...)
	}
	if name := firstFenced(s); name != "" {
		switch {
		case l.Quorum == QuorumPing || l.Quorum == QuorumUnsafe:
			out = append(out, misfit{fenced: true, msg: fmt.Sprintf("%s is of class fenced, and under quorum %s two nodes could own it; use quorum fencing, or a witness and fencing devices", name, l.Quorum)})
		case len(bare) > 0 && l.Quorum != QuorumFencing:
			out = append(out, misfit{fenced: true, msg: fmt.Sprintf("%s is of class fenced, and no device that another node may operate can fence %s; add one under \"fencing: {devices: ...}\"", name, strings.Join(bare, " and "))})
		}
	}
	for _, link := range l.Links {
		if why := tooSlow(link, s.Settings.Profile); why != "" && s.Settings.Profile != l.Profile {
			out = append(out, misfit{msg: "the profile of the cluster is not that of ha.yaml: " + why})
		}
	}
	for _, g := range s.Groups {
		for _, r := range g.Resources {
			if r.VIP != nil && slices.Contains(l.PingGroup, r.VIP.Address) {
				out = append(out, misfit{vip: r.VIP.Address, msg: fmt.Sprintf("group %s: vip %s is in ping_group of ha.yaml, and its owner would always reach it; the tie-breaker has to be another machine", g.Name, r.VIP.Address)})
			}
			if r.VRRP != nil && slices.ContainsFunc(l.Nodes, func(n Node) bool { return n.Name == r.VRRP.Foreign }) {
				out = append(out, misfit{router: r.VRRP.Foreign, msg: fmt.Sprintf("group %s: foreign %s is a node of the cluster, and raft decides about those; name another machine", g.Name, r.VRRP.Foreign)})
			}
		}
	}
	return append(out, ownWatchdog(s, l)...)
}

// unfenced returns the directors that nothing can fence from another node.
func unfenced(f *Fencing, l *Local) (names []string) {
	for _, n := range l.Nodes {
		operable := func(level []string) bool {
			return !slices.ContainsFunc(level, func(name string) bool {
				d := f.Device(name)
				return d == nil || !slices.ContainsFunc(l.Nodes, func(o Node) bool { return d.mayRunOn(o, n.Name) })
			})
		}
		if n.Role == Director && !slices.ContainsFunc(f.Levels(n.Name), operable) {
			names = append(names, n.Name)
		}
	}
	return names
}

// witnessOperates finds devices that a witness is to operate: the log asks directors only.
func witnessOperates(f *Fencing, l *Local) (out []misfit) {
	if f == nil {
		return nil
	}
	for _, d := range f.Devices {
		for _, name := range d.RunOn {
			if slices.Contains(l.Nodes, Node{Name: name, Role: Witness}) {
				out = append(out, misfit{device: d.Name, msg: fmt.Sprintf("device %s is operated by directors, and %s in run_on is a witness, which votes and does nothing else; take it out of run_on, and name a director, or nobody (every director but the target)", quote(d.Name), name)})
			}
		}
	}
	return out
}

// watchdogAlone finds levels that prove nothing in a pair. Waiting is proof
// where a silent node stops feeding its watchdog; of a pair whose links are
// cut each fences the other and goes on.
func watchdogAlone(f *Fencing, l *Local) (out []misfit) {
	for _, n := range l.Nodes {
		for _, level := range f.Levels(n.Name) {
			more := slices.ContainsFunc(level, func(name string) bool { d := f.Device(name); return d == nil || d.Type != FenceWatchdog })
			if !more && len(level) > 0 {
				out = append(out, misfit{device: level[0], msg: fmt.Sprintf("device %s alone cannot fence %s in a pair: when the links are cut, each node would wait for the other's watchdog, and both go on; let a device that switches the node off succeed with it, take it out, or add a witness", quote(level[0]), n.Name)})
			}
		}
	}
	return out
}

// ownWatchdog looks at the devices that count on the watchdog of this node.
func ownWatchdog(s *Spec, l *Local) (out []misfit) {
	f := s.Fencing
	if f == nil {
		return nil
	}
	for _, d := range f.Devices {
		if d.Type != FenceWatchdog || d.Target(l.Name) == nil {
			continue
		}
		if l.Watchdog.Device == "" {
			out = append(out, misfit{device: d.Name, msg: fmt.Sprintf("device %s counts on the watchdog of %s, and ha.yaml there names none; add \"watchdog: /dev/watchdog\" to it", quote(d.Name), l.Name)})
			continue
		}
		// The daemon may have fed it just before it fell silent, and a watchdog
		// may be late.
		if d.Timeout < l.Watchdog.Timeout*3/2 {
			enough := ResetWithin(s.Settings.Profile.Lease, s.longestStop(), l.Watchdog.Timeout)
			out = append(out, misfit{device: d.Name, msg: fmt.Sprintf("device %s waits %s, and the watchdog of %s takes up to %s (ha.yaml); make its timeout %s or more", quote(d.Name), brief(d.Timeout), l.Name, brief(l.Watchdog.Timeout), brief(enough))})
		}
	}
	return out
}

func firstFenced(s *Spec) string {
	for _, g := range s.Groups {
		for _, r := range g.Resources {
			if r.Class == Fenced {
				return fmt.Sprintf("group %s: %s", g.Name, r.Name)
			}
		}
	}
	return ""
}

// together checks what needs the groups, the devices and ha.yaml.
func (s *specReader) together() {
	if s.fence.faulty || s.odd > 0 || len(s.errs) > 0 && s.fence.at == nil {
		return // what is missing may be what is faulty
	}
	s.fencingWarnings()
	if s.local == nil {
		return
	}
	for _, m := range misfits(s.spec, s.local) {
		at := s.fence.at
		switch {
		case m.device != "":
			at = s.fence.deviceAt[m.device]
		case m.fenced:
			at = s.fence.fencedAt
		case m.router != "":
			at = s.foreign[m.router]
		case m.vip.IsValid():
			at = s.vipAt[m.vip]
		}
		if at == nil {
			at = s.root
		}
		s.errorf(at, "%s", m.msg)
	}
}

// fencingWarnings tells what is allowed and should be known.
func (s *specReader) fencingWarnings() {
	f := s.spec.Fencing
	if f == nil {
		return
	}
	levels := map[string][][]string{} // by node
	used := map[string]bool{}
	var slowest time.Duration
	for _, d := range f.Devices {
		slowest = max(slowest, d.Delay)
		for _, t := range d.Targets {
			if _, ok := levels[t.Node]; ok {
				continue
			}
			levels[t.Node] = f.Levels(t.Node)
			for _, level := range levels[t.Node] {
				for _, name := range level {
					used[name] = true
				}
			}
		}
	}
	for _, d := range f.Devices {
		if !used[d.Name] {
			s.warnf(s.fence.deviceAt[d.Name], "device %s is in no level of topology and is never used; add it there, or take it out", quote(d.Name))
		}
	}
	pair := s.local != nil && s.local.Quorum == QuorumFencing
	at := s.fence.priorityAt
	if at == nil {
		at = s.fence.at
	}
	switch wait := f.RandomDelay + slowest; {
	case pair && f.PriorityDelay == 0 && f.RandomDelay == 0:
		s.warnf(at, "priority_fencing_delay and random_delay are both 0s: when the links are cut, the two nodes may fence each other at the same moment")
	case f.PriorityDelay > 0 && wait > 0 && f.PriorityDelay < 2*wait:
		s.warnf(at, "priority_fencing_delay (%s) is less than twice what random_delay and the delay of a device may add (%s): the node with more at stake may be fenced by the other; make it %s or more", brief(f.PriorityDelay), brief(wait), brief(2*wait))
	}
	// A node that is not heard sees that later than one that does not hear.
	if seen := s.spec.Settings.Profile.Lease * 13 / 10; pair && f.PriorityDelay > 0 && f.PriorityDelay < seen {
		s.warnf(at, "priority_fencing_delay (%s) is less than 1.3 leases (%s): where one node hears the other and is not heard, the one with more at stake may be fenced; make it %s or more, and what the device takes", brief(f.PriorityDelay), brief(seen), brief(seen))
	}
	s.personWarnings(f, levels)
	s.watchdogWarnings(f)
}

// personWarnings names the nodes that only a person can fence.
func (s *specReader) personWarnings(f *Fencing, levels map[string][][]string) {
	person := map[string]bool{}
	first := ""
	for _, d := range f.Devices {
		if person[d.Name] = d.Type == FenceManual; person[d.Name] && first == "" {
			first = d.Name
		}
	}
	if first == "" {
		return
	}
	var names []string
	for _, node := range sortedKeys(levels) {
		alone := !slices.ContainsFunc(levels[node], func(level []string) bool {
			return !slices.ContainsFunc(level, func(name string) bool { return person[name] })
		})
		if alone {
			names = append(names, node)
		}
	}
	if len(names) > 0 {
		s.warnf(s.fence.deviceAt[first], "%s can be fenced by a person only: until somebody says \"keepbeat fence confirm\", what has to wait for fencing stays down", strings.Join(names, " and "))
	}
}

// watchdogWarnings compares a watchdog device with all that comes before the reset of
// a node that has fallen silent. The watchdogs of other nodes are not known here.
func (s *specReader) watchdogWarnings(f *Fencing) {
	const parts = "2 leases, the longest stop of a group of class fenced, 5s for a loop that hangs"
	lease, stop := s.spec.Settings.Profile.Lease, s.spec.longestStop()
	for _, d := range f.Devices {
		if d.Type != FenceWatchdog {
			continue
		}
		at, others := s.fence.deviceAt[d.Name], ResetWithin(lease, stop, 0)
		if l := s.local; l != nil && l.Watchdog.Device != "" && d.Target(l.Name) != nil {
			switch need := ResetWithin(lease, stop, l.Watchdog.Timeout); {
			case d.Timeout < l.Watchdog.Timeout*3/2: // ownWatchdog refuses it
				continue
			case d.Timeout < need:
				s.warnf(at, "device %s waits %s, and %s may take %s to reset itself (%s, twice the timeout of its watchdog): it is not believed to have done so; make the timeout of the device that or more", quote(d.Name), brief(d.Timeout), l.Name, brief(need), parts)
				continue
			}
		}
		if d.Timeout <= others {
			s.warnf(at, "device %s waits %s, and a node may take %s and twice the timeout of its watchdog to reset itself (%s): it is not believed to have done so; make the timeout of the device that or more", quote(d.Name), brief(d.Timeout), brief(others), parts)
		}
	}
}
