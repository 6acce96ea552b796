package scenario

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab"
)

// authkeys is every node's.
const authkeys = "auth 1\n1 sha1 a-secret-of-the-lab-only\n"

// Directors are the machines that every scenario has: director1, director2 and
// a client, two heartbeat switches and the service network. Nothing on them is
// keepbeat's but its files, so that another program may run there instead.
type Directors struct {
	Lab       *lab.Lab
	Heartbeat [2]*lab.Switch
	Service   *lab.Switch
	Director1 *lab.Host
	Director2 *lab.Host
	Client    *lab.Host
	Daemons   map[string]*lab.Process // by host; Start puts them there

	t         TB
	observers []*lab.Host
}

// NewDirectors makes the machines. Interfaces: eth0 service, eth1 and eth2 heartbeat.
func NewDirectors(t TB) *Directors {
	l := lab.New(t)
	d := &Directors{t: t, Lab: l, Daemons: map[string]*lab.Process{}}
	d.Heartbeat[0], d.Heartbeat[1], d.Service = l.Switch("heartbeat1"), l.Switch("heartbeat2"), l.Switch("service")
	for i, h := range []**lab.Host{&d.Director1, &d.Director2} {
		*h = l.Host(fmt.Sprintf("director%d", i+1))
		d.attachHeartbeats(*h, i+1)
		(*h).Attach(d.Service, "eth0", fmt.Sprintf("192.168.56.1%d/24", i+1), fmt.Sprintf("fd56::1%d/64", i+1))
		(*h).StartResponder()
	}
	d.Client = l.Host("client")
	d.Client.Attach(d.Service, "eth0", Client+"/24", "fd56::1/64")
	return d
}

func (d *Directors) attachHeartbeats(h *lab.Host, node int) {
	for n, s := range d.Heartbeat {
		h.Attach(s, fmt.Sprintf("eth%d", n+1), fmt.Sprintf("10.0.%d.%d/24", n+1, node))
	}
}

// Both are director1 and director2.
func (d *Directors) Both() [2]*lab.Host { return [2]*lab.Host{d.Director1, d.Director2} }

// Other is the director that h is not.
func (d *Directors) Other(h *lab.Host) *lab.Host {
	if h == d.Director1 {
		return d.Director2
	}
	return d.Director1
}

// Start starts the daemon of a node.
func (d *Directors) Start(h *lab.Host) *lab.Process {
	p := h.StartKeepbeat("run")
	d.Daemons[h.Name] = p
	return p
}

// Status asks a node; ok is false when it does not answer, or is dead.
func (d *Directors) Status(h *lab.Host) (s cluster.Status, ok bool) {
	if h.Dead() {
		return s, false
	}
	out, err := h.Keepbeat("status", "--json")
	if err != nil {
		return s, false
	}
	return s, json.Unmarshal([]byte(out), &s) == nil
}

// activeIn says whether every group is active, and where the first one is.
func activeIn(s cluster.Status) (owner string, active bool) {
	if len(s.Groups) == 0 {
		return "", false
	}
	for _, g := range s.Groups {
		if g.State != "active" {
			return g.Owner, false
		}
	}
	return s.Groups[0].Owner, true
}

// Observe asks vip, an IPv4 address, from two machines of the service network,
// each of which believes for ever that vip is at one director. lab.Overlap of the
// two clients is the time of two owners. It may be called again.
func (d *Directors) Observe(vip string, interval time.Duration) (one, two *lab.Client) {
	var clients [2]*lab.Client
	for i, director := range d.Both() {
		if len(d.observers) <= i {
			h := d.Lab.Host("watcher-of-" + director.Name)
			h.Attach(d.Service, "eth0", fmt.Sprintf("192.168.56.%d/24", 241+i))
			d.observers = append(d.observers, h)
		}
		d.observers[i].Neighbour("eth0", vip, director.PortOn(d.Service).MAC)
		clients[i] = d.observers[i].Probe(vip, interval)
	}
	return clients[0], clients[1]
}

// writeLocal writes ha.yaml and authkeys of a node; nodes are the lines below `nodes:`.
func (d *Directors) writeLocal(h *lab.Host, nodes string, o Options) {
	if o.Profile == "" {
		o.Profile = "default"
	}
	if len(o.Links) == 0 {
		o.Links = []string{"- bcast: eth1", "- bcast: eth2"}
	}
	h.WriteFile("/etc/keepbeat/ha.yaml", "cluster: lab\nnodes:\n"+nodes+"links:\n  "+
		strings.Join(o.Links, "\n  ")+"\nprofile: "+o.Profile+"\n"+o.Extra, 0o644)
	h.WriteFile("/etc/keepbeat/authkeys", authkeys, 0o600)
}

// WriteSpec writes haresources.yaml and the pools of one node.
func (d *Directors) WriteSpec(h *lab.Host, o Options) {
	failback := "off"
	if o.Failback {
		failback = "on"
	}
	groups := o.Groups
	if groups == "" {
		groups = "  web:\n    prefer: [director1, director2]\n    resources:\n      - vip: " + VIP + "/24/eth0\n"
	}
	text := "auto_failback: " + failback + "\ngroups:\n" + groups
	if o.Fencing != "" {
		text += "fencing:\n" + o.Fencing
	}
	h.WriteFile("/etc/keepbeat/haresources.yaml", text, 0o644)
	for name, text := range o.Pools {
		h.WriteFile("/etc/keepbeat/"+name, text, 0o644)
	}
}

// Newcomer makes a machine on both heartbeat switches that was not in the
// cluster before; nodes are the lines below `nodes:` of its ha.yaml.
func (d *Directors) Newcomer(name string, number int, nodes string, o Options) *lab.Host {
	h := d.Lab.Host(name)
	d.attachHeartbeats(h, number)
	d.writeLocal(h, nodes, o)
	return h
}
