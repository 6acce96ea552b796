package screen

import (
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/api"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/vip"
)

// Status renders the state of the cluster.
func Status(s cluster.Status, o Options) string {
	p := newPage(o)
	p.trouble(s)
	p.cluster(s)
	p.safety(s)
	p.nodes(s)
	p.groups(s)
	p.services(s)
	return p.b.String()
}

func (p *page) trouble(s cluster.Status) {
	if len(s.Trouble) == 0 {
		p.line(good, "All is well.")
		return
	}
	p.line(bad, strings.ToUpper(count(len(s.Trouble), "problem", "problems")))
	for _, t := range s.Trouble[:min(len(s.Trouble), maxTrouble)] {
		// Faults of files are several lines, each with its own place.
		for i, l := range strings.Split(t, "\n") {
			if i == 0 {
				p.wrapped(plain, "  - ", "    ", l)
			} else {
				p.wrapped(plain, "    ", "      ", l)
			}
		}
	}
	if n := len(s.Trouble) - maxTrouble; n > 0 {
		p.line(plain, fmt.Sprintf("  - and %d more: `keepbeat status --json` has all", n))
	}
}

func (p *page) cluster(s cluster.Status) {
	leader := "no leader"
	if s.Leader != "" {
		leader = "leader " + s.Leader
	}
	spec := "no specification yet"
	if s.Reading != "" {
		spec = "specification not read yet"
	} else if s.Spec.Version > 0 {
		spec = fmt.Sprintf("specification %d from %s, %s", s.Spec.Version, s.Spec.From, age(s.Time, s.Spec.At))
	}
	p.b.WriteByte('\n')
	p.wrapped(plain, "", "  ", fmt.Sprintf("Cluster %s as %s sees it: %s, profile %s, %s", s.Cluster, s.Node, leader, s.Profile, spec))
}

func stateShade(state string) shade {
	switch state {
	case "up", "active", "started":
		return good
	case "late", "joining", "starting", "stopping", "moving":
		return mild
	case "stopped", "":
		return plain
	}
	return bad
}

// nodes is the matrix of nodes and links.
func (p *page) nodes(s cluster.Status) {
	var links []string
	for _, n := range s.Nodes {
		for _, l := range n.Links {
			if !slices.Contains(links, l.Link) {
				links = append(links, l.Link)
			}
		}
	}
	title := []cell{text("Nodes"), text("role"), text("state"), text("lease")}
	for _, l := range links {
		title = append(title, text("%s", l))
	}
	for i := range title {
		title[i].shade = head
	}
	rows := [][]cell{title}
	for _, n := range s.Nodes {
		role := n.Role
		if !n.Votes && s.Index > 0 { // before, nobody knows
			role += ", no vote"
		}
		r := []cell{text("%s", n.Name), text("%s", role), text("%s", n.State).in(stateShade(n.State)), lease(n)}
		for _, l := range links {
			r = append(r, linkCell(s, n, l))
		}
		rows = append(rows, r)
	}
	p.b.WriteByte('\n')
	p.table("", rows)
}

func lease(n cluster.NodeStatus) cell {
	switch {
	case n.Role != conf.Director.String():
		return text("-")
	case n.Here == nil:
		return text("?")
	case n.Here.Lease > 0 && n.Here.Guard == "off":
		return text("no guard").in(mild)
	case n.Here.Lease > 0:
		return text("live").in(good)
	}
	return text("none").in(bad)
}

func linkCell(s cluster.Status, n cluster.NodeStatus, name string) cell {
	if n.Name == s.Node {
		return text("this node")
	}
	for _, l := range n.Links {
		if l.Link != name {
			continue
		}
		c := text("%s", l.State)
		switch l.State {
		case "up", "late":
			if l.RTT > 0 {
				c.text += fmt.Sprintf(" %.1f ms", l.RTT)
			}
			if l.Loss >= 0.005 {
				c.text += fmt.Sprintf(", %.0f%% lost", l.Loss*100)
			}
		default:
			if !l.Since.IsZero() {
				c.text += " " + span(s.Time.Sub(l.Since))
			}
		}
		return c.in(stateShade(l.State))
	}
	return text("-")
}

// rank puts what needs attention first.
func rank(g cluster.GroupStatus) int {
	switch g.State {
	case "active":
		return 1
	default:
		return 0
	}
}

func (p *page) groups(s cluster.Status) {
	p.b.WriteByte('\n')
	if len(s.Groups) == 0 {
		switch {
		case s.Waiting != "":
			p.line(plain, "No groups yet: the cluster has not begun.")
		case !s.Quorum:
			p.line(plain, "No groups known here: there is no quorum.")
		case s.Reading != "":
			p.line(plain, "No groups known here yet: this node is reading its log.")
		default:
			p.line(plain, "No groups: write haresources.yaml and run `keepbeat apply`.")
		}
		return
	}
	p.line(head, "Groups")
	groups := slices.Clone(s.Groups)
	sort.SliceStable(groups, func(i, j int) bool { return rank(groups[i]) < rank(groups[j]) })
	for _, g := range groups {
		p.group(s.Time, g, lost(s, g.Owner))
	}
}

// lost says whether a node is not heard. What the log says of its groups is then what was.
func lost(s cluster.Status, node string) bool {
	return slices.ContainsFunc(s.Nodes, func(n cluster.NodeStatus) bool { return n.Name == node && n.State == "down" })
}

// situation says in words where a group is.
func situation(now time.Time, g cluster.GroupStatus) string {
	since := ""
	if !g.Since.IsZero() {
		since = " for " + span(now.Sub(g.Since))
	}
	switch g.State {
	case "active":
		return "active on " + g.Owner + since
	case "down":
		return "RUNS NOWHERE"
	case "blocked":
		return "BLOCKED on " + g.Owner
	case "moving":
		if g.Owner == g.Target {
			return "being restarted on " + g.Owner
		}
		return "moving from " + g.Owner + " to " + g.Target
	case "starting":
		return "starting on " + g.Owner + since
	case "silent":
		return "SILENT on " + g.Owner + ": its lease has ended"
	}
	return g.State + " on " + g.Owner + since
}

func (p *page) group(now time.Time, g cluster.GroupStatus, lost bool) {
	if lost {
		p.wrapped(bad, "  ", "      ", g.Name+": NOT TAKEN FROM "+g.Owner+" yet, which is down")
	} else {
		p.wrapped(stateShade(g.State), "  ", "      ", g.Name+": "+situation(now, g))
	}
	if g.Blocked != "" {
		p.wrapped(plain, "      ", "        ", "blocked: "+g.Blocked)
	}
	if g.Reason != "" {
		p.wrapped(plain, "      ", "        ", "why: "+g.Reason)
	}
	if g.Manual != "" {
		p.wrapped(plain, "      ", "        ", "kept on "+g.Manual+" by an operator's command")
	}
	var rows [][]cell
	for _, r := range g.Resource {
		state := text("%s", r.State).in(stateShade(r.State))
		what := ""
		if !r.Since.IsZero() {
			what = "for " + span(now.Sub(r.Since))
		}
		if d := resourceDetail(r); d != "" {
			what += ", " + d
		}
		if r.Error != "" {
			what = r.Error
		}
		rows = append(rows, []cell{text("%s", r.Name), state, text("%s", strings.TrimPrefix(what, ", "))})
	}
	p.table("      ", rows)
}

// resourceDetail says what a resource tells of itself beyond its state; pools have their own part of the page.
func resourceDetail(r resources.ResourceStatus) string {
	if d, ok := api.Announcer(r); ok {
		return announcerDetail(d)
	}
	if r.Kind != conf.KindVIP || len(r.Detail) == 0 {
		return ""
	}
	var d vip.Detail
	if json.Unmarshal(r.Detail, &d) != nil {
		return ""
	}
	var parts []string
	if d.Interface != "" {
		parts = append(parts, "on "+d.Interface)
	}
	if d.Restored > 0 {
		parts = append(parts, "put back "+count(int(d.Restored), "time", "times"))
	}
	if d.Fault != "" && d.Fault != r.Error {
		parts = append(parts, d.Fault)
	}
	return strings.Join(parts, ", ")
}

func (p *page) services(s cluster.Status) {
	for _, g := range s.Groups {
		for _, d := range api.Pools(g) {
			p.pool(s.Time, g, d)
		}
	}
}
