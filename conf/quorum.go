package conf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

const (
	// DefaultInitDead is heartbeat's for a deadtime of ten seconds and more, rounded up: a machine's boot and its network.
	DefaultInitDead = 30 * time.Second
	maxPingGroup    = 16
)

// What each rule of a pair means, as messages say it.
const (
	meansFencing = `"quorum: fencing": the survivor fences the other before it acts`
	meansPing    = `"quorum: ping": the side that reaches ping_group goes on`
	meansUnsafe  = `"quorum: unsafe": whoever misses the other takes over, and two nodes own the same when the links are cut`
	addWitness   = `a third node, which may be any small machine: "arbiter: {role: witness}"`
)

// rawPair are the keys of ha.yaml that only a pair has.
type rawPair struct {
	waitForAll opt[bool]
	initDead   opt[time.Duration]
	pingGroup  opt[[]netip.Addr]
}

func (raw *rawPair) fields(r *reader) []field {
	return []field{
		{"wait_for_all", "Pairs: whether a node that has just started takes nothing before it has seen the other one, or `keepbeat quorum confirm` was said. no: it waits for initdead only. Default yes.", into(&raw.waitForAll, r.boolean)},
		{"initdead", "Pairs with `wait_for_all: no`: how long a node that has just started waits for the other, 1s to 1h and at least the lease. Default 30s.", into(&raw.initDead, r.duration(time.Second, time.Hour))},
		{"ping_group", "Pairs with `quorum: ping`: the addresses that decide, such as the routers of the service network; the node that reaches one of them goes on. A list, or heartbeat's NAME ADDRESS... Required there.", into(&raw.pingGroup, r.pingGroup)},
	}
}

func (r *reader) quorumRule(n *yaml.Node) (Quorum, bool) {
	return oneOf(r, []string{"witness", "fencing", "ping", "unsafe"}, QuorumMajority, QuorumFencing, QuorumPing, QuorumUnsafe)(n)
}

// pingGroup reads the tie-breaker: a list of addresses, or heartbeat's line.
func (r *reader) pingGroup(n *yaml.Node) ([]netip.Addr, bool) {
	var group []netip.Addr
	good := true
	add := func(n *yaml.Node, a netip.Addr, err error) {
		switch {
		case err != nil:
		case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			err = fmt.Errorf("%s is not the address of another machine", a)
		case a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "":
			err = fmt.Errorf("%s needs its interface: %s%%eth1", a, a)
		case slices.Contains(group, a):
			err = fmt.Errorf("duplicate address %s in ping_group", a)
		case len(group) == maxPingGroup:
			err = fmt.Errorf("more than %d addresses in ping_group; one that answers is enough", maxPingGroup)
		}
		if err != nil {
			if good || len(group) < maxPingGroup {
				r.errorf(n, "%s", err)
			}
			good = false
			return
		}
		group = append(group, a)
	}
	if n.Kind == yaml.ScalarNode {
		text, ok := r.scalar(n, "a list of addresses")
		if !ok {
			return nil, false
		}
		words := strings.Fields(text)
		// ha.cf: ping_group NAME ADDRESS...
		if _, err := netip.ParseAddr(strings.Join(words[:min(1, len(words))], "")); err != nil && len(words) > 1 {
			words = words[1:]
		}
		for _, w := range words {
			a, err := parseAddress(w)
			add(n, a, err)
		}
	} else {
		ok := r.list(n, "ping_group", func(_ int, n *yaml.Node) {
			if a, ok := r.address(n); ok {
				add(n, a, nil)
			} else {
				good = false
			}
		})
		good = good && ok
	}
	if good && len(group) == 0 {
		r.errorf(n, "ping_group is empty; list addresses that answer a ping, such as the routers of the service network")
		good = false
	}
	return group, good
}

// checkQuorum looks at the rule and at the nodes that it is for.
func (raw *rawLocal) checkQuorum(r *reader, l *Local, directors int) {
	at := raw.quorum.at
	if at != nil && !raw.quorum.ok {
		return
	}
	switch n := len(l.Nodes); {
	case n == 2 && directors == 2:
		raw.checkPair(r, l)
		return
	case n == 2 && directors == 1:
		r.errorf(raw.nodes[0].at, "one director and one witness: nobody takes over when the director dies; make both directors and choose a quorum rule, or add a second director")
	case at != nil && l.Quorum != QuorumMajority && n == 1:
		r.errorf(at, "quorum %s is for two directors, and there is one node; take the line out", l.Quorum)
	case at != nil && l.Quorum != QuorumMajority:
		r.errorf(at, "quorum %s is for two directors alone; the majority of %d nodes decides: write \"witness\", or take the line out", l.Quorum, n)
	}
	l.Quorum = QuorumMajority
	// Warnings, so that a pair can be grown and shrunk while it runs: only
	// nodes and quorum are changed then (EditNodes).
	raw.uselessPairKeys(r)
}

func (raw *rawLocal) uselessPairKeys(r *reader) {
	for _, k := range []struct {
		name string
		at   *yaml.Node
	}{{"wait_for_all", raw.waitForAll.at}, {"initdead", raw.initDead.at}, {"ping_group", raw.pingGroup.at}} {
		if k.at != nil {
			r.warnf(k.at, "%s is for two directors alone and has no use here: a node acts only when a majority has granted it a lease; take it out", k.name)
		}
	}
}

// checkPair looks at what two directors alone have to say.
func (raw *rawLocal) checkPair(r *reader, l *Local) {
	at := raw.quorum.at
	switch {
	case at == nil:
		r.errorf(raw.nodes[0].at, "two directors alone cannot tell a dead peer from a cut wire; add %s, or choose what decides: %s; %s; %s", addWitness, meansFencing, meansPing, meansUnsafe)
	case l.Quorum == QuorumMajority:
		r.errorf(at, "quorum witness needs %s; two directors alone choose fencing, ping or unsafe", addWitness)
	case l.Quorum == QuorumPing:
		r.warnf(at, "quorum ping: when both nodes reach ping_group and not each other, two nodes own the same; a third node as a witness, or fencing, has no such gap")
	case l.Quorum == QuorumUnsafe:
		r.warnf(at, "quorum unsafe: when the links are cut, two nodes own the same; a third node as a witness, or fencing, prevents that")
	}
	if at == nil {
		l.Quorum = 0 // and no more is said of what the rule needs
	}
	raw.checkPingGroup(r, l)
	l.WaitForAll = raw.waitForAll.or(true)
	l.InitDead = raw.initDead.or(DefaultInitDead)
	switch {
	case raw.waitForAll.at != nil && !raw.waitForAll.ok:
	case l.WaitForAll && raw.initDead.at != nil:
		r.errorf(raw.initDead.at, "initdead has no use while wait_for_all is yes: a node that starts waits for the other however long that takes, or until \"keepbeat quorum confirm\"; take initdead out, or write \"wait_for_all: no\" with it")
	case !l.WaitForAll && raw.initDead.ok && l.InitDead < l.Profile.Lease:
		r.errorf(raw.initDead.at, "initdead (%s) is shorter than the lease (%s): the other node would never be waited for; 30s is usual", brief(l.InitDead), brief(l.Profile.Lease))
	case !l.WaitForAll:
		r.warnf(raw.waitForAll.at, "wait_for_all: no: a node that starts and does not see the other for %s goes on alone%s", brief(l.InitDead), alone[l.Quorum])
	}
}

// alone is what going on alone means under each rule.
var alone = map[Quorum]string{
	QuorumFencing: " and fences it, also when only the links are down",
	QuorumPing:    " when it reaches ping_group",
	QuorumUnsafe:  ", also when only the links are down",
}

func (raw *rawLocal) checkPingGroup(r *reader, l *Local) {
	switch {
	case l.Quorum == QuorumPing && raw.pingGroup.at == nil:
		if r.odd == 0 {
			r.errorf(raw.quorum.at, "quorum ping needs \"ping_group\": addresses that both nodes reach over the service network, such as its routers: \"ping_group: [192.168.56.1]\"")
		}
	case l.Quorum != QuorumPing && l.Quorum != 0 && raw.pingGroup.at != nil:
		r.errorf(raw.pingGroup.at, "ping_group is for \"quorum: ping\", and here quorum is %s; take it out", l.Quorum)
	case l.Quorum == QuorumPing:
		l.PingGroup = raw.pingGroup.v
	}
	for _, k := range raw.links {
		for _, a := range k.Addresses {
			if slices.Contains(l.PingGroup, a) {
				r.errorf(raw.pingGroup.at, "%s in ping_group is the address of a node (link %s %s); the tie-breaker has to be another machine", a, k.Type, k.Interface)
				return
			}
		}
	}
}
