package screen

import (
	"fmt"
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
	title := []cell{text("Virtual routers"), text("VRID"), text("interface"), text("state"), text("since"), text("priority"), text("master")}
	for i := range title {
		title[i].shade = head
	}
	rows := [][]cell{title}
	for _, i := range s.Instances {
		rows = append(rows, routerRow(i, now))
	}
	p.table("", rows)
	for _, i := range s.Instances {
		p.notes(i, now)
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
	switch {
	case i.State == vrrp.Master:
		master = "this router"
	case i.Master.IsValid():
		master = i.Master.String()
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
		text("%s", age(now, i.Since)), text("%s", priority), text("%s", master),
	}
}

// notes are what was wrong with advertisements of others.
func (p *page) notes(i vrrp.InstanceStatus, now time.Time) {
	for _, n := range i.Notes {
		what, shade := "taken although its %s is not ours", mild
		if n.Refused {
			what, shade = "refused for its %s", bad
		}
		p.wrapped(shade, "  ", "    ", fmt.Sprintf("%s: %s "+what+", the last from %s %s", i.Name, count(int(n.Count), "advertisement", "advertisements"), n.Why, n.From, age(now, n.At)))
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
