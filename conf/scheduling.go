package conf

import (
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// rawScheduling says how connections are spread over the real servers.
type rawScheduling struct {
	scheduler, engine opt[string]
	flags, netmask    *yaml.Node
	ops               opt[bool]
	persistent        opt[time.Duration]
}

func (s *rawScheduling) fields(p *poolReader) []field {
	keep := func(to **yaml.Node) func(*yaml.Node) { return func(n *yaml.Node) { *to = n } }
	return []field{
		{"scheduler", "Scheduler of the kernel: " + strings.Join(Schedulers(), " ") + ". Default wrr.", into(&s.scheduler, oneOf(p.reader, Schedulers(), Schedulers()...))},
		{"schedflags", "Flags of the scheduler: sh-port, sh-fallback, mh-port, mh-fallback, and for schedulers of other makers flag-1, flag-2, flag-3; a list, or with commas.", keep(&s.flags)},
		{"ops", "One-packet scheduling: every datagram is given to a real server for itself; UDP only. Default no.", into(&s.ops, p.boolean)},
		{"persistent", "How long a client stays with its real server, whole seconds from 1s to 744h. Default: not at all.", into(&s.persistent, p.wholeSeconds("persistent", maxPersistent))},
		{"netmask", "With persistent: clients of one network count as one; netmask or prefix length. Default: each for itself.", keep(&s.netmask)},
		{"persistence_engine", "With persistent, UDP only: sip, what belongs together is told by the Call-ID of SIP. Default: by the address of the client.", into(&s.engine, oneOf(p.reader, []string{"sip"}, "sip"))},
	}
}

// wholeSeconds reads a time that the kernel counts in seconds.
func (r *reader) wholeSeconds(key string, most time.Duration) func(*yaml.Node) (time.Duration, bool) {
	return func(n *yaml.Node) (time.Duration, bool) {
		if n.Kind == yaml.ScalarNode && (n.Value == "0" || n.Value == "0s") {
			r.errorf(n, "%s %s: leave the line out, which is what 0 stands for", key, n.Value)
			return 0, false
		}
		d, ok := r.duration(time.Second, most)(n)
		if ok && d%time.Second != 0 {
			r.errorf(n, "%s %s: the kernel counts whole seconds; write %q", key, d, d.Round(time.Second).String())
			return 0, false
		}
		return d, ok
	}
}

// scheduling takes the values over and refuses what the kernel would, or would leave without effect.
func (p *poolReader) scheduling(s *rawScheduling, v *Virtual) {
	v.Scheduler = s.scheduler.or(DefaultScheduler)
	v.Persistent = s.persistent.or(0)
	v.OPS, v.Engine = s.ops.or(false), s.engine.or("")
	if s.flags != nil {
		p.flags(s.flags, v)
	}
	p.persistence(s, v)
	p.hashing(s, v)
	// A mark tells no protocol; what it is put on is the administrator's.
	datagrams := v.Protocol == UDP || v.Protocol == FWM
	if v.OPS && !datagrams {
		p.errorf(s.ops.at, "ops is for UDP, and virtual %s is not; take it out, or write \"protocol: udp\"", v)
	} else if v.OPS && s.persistent.at != nil {
		p.errorf(s.ops.at, "ops and persistent exclude each other: one gives each datagram to another server, the other keeps a client with one; take one out")
	}
	if s.engine.ok && !datagrams {
		p.errorf(s.engine.at, "persistence_engine sip is for UDP, and virtual %s is not; take it out, or write \"protocol: udp\"", v)
	} else if s.engine.ok && s.persistent.at == nil {
		p.errorf(s.engine.at, "persistence_engine without persistent has no effect; add \"persistent: 5m\", or take it out")
	}
}

// hashing warns of schedulers that give a server its clients by their address,
// be its weight 0 or not (net/netfilter/ipvs/ip_vs_sh.c, ip_vs_dh.c, ip_vs_mh.c).
func (p *poolReader) hashing(s *rawScheduling, v *Virtual) {
	way := ""
	switch {
	case !v.Quiescent, s.flags != nil && len(v.Flags) == 0: // a flag that is not understood may be the one
		return
	case v.Scheduler == "dh":
		way = "write \"quiescent: no\""
	case (v.Scheduler == "sh" || v.Scheduler == "mh") && !slices.Contains(v.Flags, v.Scheduler+"-fallback"):
		way = "add \"schedflags: " + v.Scheduler + "-fallback\", or write \"quiescent: no\""
	default:
		return
	}
	p.warnf(s.scheduler.at, "scheduler %s with quiescent: the clients that it has for a real server that is down are refused; %s", v.Scheduler, way)
}

// flags reads schedflags. The kernel has three bits, of which sh and mh have named two.
func (p *poolReader) flags(n *yaml.Node, v *Virtual) {
	known := []string{"sh-port", "sh-fallback", "mh-port", "mh-fallback", "flag-1", "flag-2", "flag-3"}
	named := v.Scheduler == "sh" || v.Scheduler == "mh"
	add := func(n *yaml.Node, s string) {
		if named && s == "flag-1" {
			s = v.Scheduler + "-fallback"
		} else if named && s == "flag-2" {
			s = v.Scheduler + "-port"
		}
		of, _, _ := strings.Cut(s, "-")
		switch {
		case !slices.Contains(known, s):
			p.errorf(n, "unknown flag %s%s", quote(s), didYouMean(s, known))
		case of != "flag" && of != v.Scheduler:
			p.errorf(n, "flag %s is for scheduler %s; this one is %s", s, of, v.Scheduler)
		case !slices.Contains(v.Flags, s):
			v.Flags = append(v.Flags, s)
		}
	}
	if n.Kind == yaml.SequenceNode {
		if len(n.Content) == 0 {
			p.errorf(n, "schedflags is empty; list the flags, or take it out")
		}
		p.list(n, "schedflags", func(_ int, n *yaml.Node) {
			if s, ok := p.scalar(n, "a flag"); ok {
				add(n, s)
			}
		})
	} else if s, ok := p.scalar(n, "a flag"); ok {
		for _, w := range strings.Split(s, ",") {
			add(n, strings.TrimSpace(w))
		}
	}
	slices.Sort(v.Flags)
}

func (p *poolReader) persistence(s *rawScheduling, v *Virtual) {
	v.Netmask = 32
	if v.IPv6 {
		v.Netmask = 128
	}
	if s.netmask != nil {
		if m, ok := p.netmask(v.Netmask)(s.netmask); ok {
			v.Netmask = m
		}
		if s.persistent.at == nil {
			p.errorf(s.netmask, "netmask without persistent has no effect; add \"persistent: 5m\", or take it out")
		}
	}
	if s.persistent.ok && v.Quiescent && p.stays {
		p.warnf(s.persistent.at, "persistent with quiescent: a client stays with a real server that is down until its time is over; \"quiescent: no\", or \"expire_quiescent_template: no\" taken out of \"ipvs\" in haresources.yaml, sends it elsewhere")
	}
}

// netmask reads a dotted netmask or a prefix length for persistence.
func (p *poolReader) netmask(bits int) func(*yaml.Node) (int, bool) {
	return func(n *yaml.Node) (int, bool) {
		s, ok := p.scalar(n, "a netmask or the length of a prefix")
		if !ok {
			return 0, false
		}
		v, err := parsePrefixLength(s, bits)
		if err != nil {
			p.errorf(n, "netmask %s: write 255.255.255.0 or the length of the prefix, 1 to %d", quote(s), bits)
			return 0, false
		}
		return v, true
	}
}
