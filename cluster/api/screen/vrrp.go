package screen

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/resources/vrrp"
	"github.com/keepbeat/keepbeat/resources/vrrp/announce"
	"github.com/keepbeat/keepbeat/resources/vrrp/site"
)

// VRRP renders the virtual routers of a machine, behind the state of the
// cluster or, of a machine that is in none, alone.
func VRRP(s site.Status, alone bool, now time.Time, o Options) string {
	p := newPage(o)
	if alone {
		p.trouble(cluster.Status{Trouble: s.Trouble})
	} else {
		for _, t := range s.Trouble {
			p.wrapped(bad, "  - ", "    ", t)
		}
	}
	p.b.WriteByte('\n')
	title := []cell{text("VRRP instance"), text("VRID"), text("interface"), text("state"), text("for"), text("priority"), text("master")}
	for i := range title {
		title[i].shade = head
	}
	rows := [][]cell{title}
	for _, i := range s.Instances {
		rows = append(rows, routerRow(i, now))
	}
	p.table("", rows)
	for _, i := range s.Instances {
		p.holds(i, now)
		p.tracks(i)
		p.notes(i, now)
	}
	for _, o := range s.Strangers {
		p.wrapped(mild, "  ", "    ", fmt.Sprintf("VRID %d, which nobody has here, is heard on %s: %s the last, from %s", o.VRID, o.Interface, age(now, o.At), o.From))
	}
	p.pools(s)
	return p.b.String()
}

func routerRow(i vrrp.InstanceStatus, now time.Time) []cell {
	state := text("%s", i.State)
	switch i.State {
	case vrrp.Master:
		state = state.in(good)
	case vrrp.Fault:
		state = state.in(bad)
	}
	if i.Programs {
		state = text("%s, programming", i.State).in(mild)
	}
	if i.Waits {
		state = text("%s, waits for a first result", i.State).in(mild)
	}
	master := "not heard"
	if i.State == vrrp.Master {
		master = "this router"
	} else if m := masterOf(i, now); m.IsValid() {
		master = m.String()
	}
	priority := fmt.Sprint(i.Priority)
	if i.Priority != i.Base {
		priority = fmt.Sprintf("%d (%d)", i.Priority, i.Base)
	}
	name := i.Name
	if i.Group != "" {
		name += " in " + i.Group
	}
	family := "IPv4"
	if i.IPv6 {
		family = "IPv6"
	}
	return []cell{
		text("%s", name), text("%d v%d %s", i.VRID, i.Version, family), text("%s", i.Interface), state,
		text("%s", span(now.Sub(i.Since))), text("%s", priority), text("%s", master),
	}
}

// lately is how long a router that was heard is told of where nobody waits for it.
const lately = 10 * time.Second

// masterOf is the master as a backup knows it, or whom an instance in state FAULT
// hears, which waits for none; invalid: nobody.
func masterOf(i vrrp.InstanceStatus, now time.Time) netip.Addr {
	if !i.Master.IsValid() && i.State != vrrp.Master && now.Sub(i.HeardAt) < lately {
		return i.Heard
	}
	return i.Master
}

// someAddresses is how many addresses of an instance are shown; --json has all.
const someAddresses = 3

// holds are the addresses of the virtual router, and how its master ranks.
func (p *page) holds(i vrrp.InstanceStatus, now time.Time) {
	var all []string
	for _, a := range i.Addresses {
		if a.IsSingleIP() {
			all = append(all, a.Addr().String())
		} else {
			all = append(all, a.String())
		}
	}
	if n := len(all) - someAddresses; n > 1 {
		all = append(all[:someAddresses], fmt.Sprintf("and %d more", n))
	}
	line := i.Name + ": " + strings.Join(all, ", ")
	if m := masterOf(i, now); m.IsValid() && m == i.Heard {
		line += fmt.Sprintf("; the master has priority %d", i.HeardPriority)
	}
	p.wrapped(plain, "  ", "    ", line)
}

// tracks are what is tracked with a weight, and is not well. What makes a FAULT is a trouble.
func (p *page) tracks(i vrrp.InstanceStatus) {
	for _, t := range i.Tracks {
		if t.Well || t.Weight == 0 {
			continue
		}
		weight := fmt.Sprintf("weight %d", t.Weight)
		if t.Reverse {
			weight += " reverse"
		}
		p.wrapped(mild, "  ", "    ", fmt.Sprintf("%s: %s (%s)", i.Name, t, weight))
	}
}

// notes are what was wrong with advertisements of others.
func (p *page) notes(i vrrp.InstanceStatus, now time.Time) {
	for _, n := range i.Notes {
		its := "its"
		if n.Count != 1 {
			its = "their"
		}
		what, shade := fmt.Sprintf("taken although %s %s is not ours", its, n.Why), mild
		switch {
		case n.Why == vrrp.ReasonRival:
			what = "of another master, of lower priority"
		case n.Refused:
			what, shade = fmt.Sprintf("refused for %s %s", its, n.Why), bad
		}
		p.wrapped(shade, "  ", "    ", fmt.Sprintf("%s: %s %s, %s the last, from %s",
			i.Name, count(int(n.Count), "advertisement", "advertisements"), what, age(now, n.At), n.From))
	}
}

// pools are those of a machine without a cluster.
func (p *page) pools(s site.Status) {
	if len(s.Pools) == 0 {
		return
	}
	var groups []cluster.GroupStatus
	for _, g := range s.Pools {
		groups = append(groups, cluster.GroupStatus{Name: g.Name, Resource: g.Resources})
	}
	slices.SortFunc(groups, func(a, b cluster.GroupStatus) int { return strings.Compare(a.Name, b.Name) })
	p.services(cluster.Status{Groups: groups, Time: time.Now()})
}

// announcerDetail says what the announcer of a group does; what is wrong with
// other masters stands among the troubles.
func announcerDetail(d announce.Detail) string {
	parts := []string{fmt.Sprintf("version %d, priority %d, every %s", d.Version, d.Priority, d.Interval)}
	if !d.Announces {
		parts = append(parts, "silent")
	}
	if d.SendError != "" {
		parts = append(parts, fmt.Sprintf("%s not sent, the last: %s", count(int(d.SendErrors), "advertisement", "advertisements"), d.SendError))
	}
	return strings.Join(parts, "; ")
}
