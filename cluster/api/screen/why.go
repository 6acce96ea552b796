package screen

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/api"
	"github.com/keepbeat/keepbeat/cluster/state"
)

// Why renders the explanation of where a group is.
func Why(w cluster.Why, now time.Time, o Options) string {
	p := newPage(o)
	g := w.Group
	p.wrapped(stateShade(g.State), "", "    ", "group "+g.Name+": "+situation(now, g))
	say := func(format string, args ...any) { p.wrapped(plain, "  ", "    ", fmt.Sprintf(format, args...)) }
	if g.Reason != "" {
		say("why: %s", g.Reason)
	}
	if g.Blocked != "" {
		say("blocked: %s", g.Blocked)
	}
	switch {
	case w.Wanted == "":
		say("no director can have it: %s", w.Because)
	case w.Wanted == g.Owner:
		say("it belongs on %s: %s", w.Wanted, w.Because)
	default:
		say("it would be placed on %s: %s", w.Wanted, w.Because)
	}
	failback := "stays where it is when a better node returns (auto_failback: off)"
	if g.Failback {
		failback = "returns to the best node as soon as it is there (auto_failback: on)"
	}
	say("directors, best first: %s; the group %s", strings.Join(w.Order, ", "), failback)
	if g.Manual != "" {
		say("kept on %s by an operator's command", g.Manual)
	}
	for _, r := range g.Resource {
		d, _ := api.Announcer(r)
		for _, text := range d.Trouble {
			say("%s: %s", d.Router, text)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(g.Refused)) {
		say("not on %s: %s", n, g.Refused[n])
	}
	for _, n := range slices.Sorted(maps.Keys(g.Failures)) {
		f := g.Failures[n]
		say("failed on %s %s (%s): %s: %s", n, age(now, f.At), count(f.Count, "time", "times"), f.Resource, f.Error)
	}
	if len(w.Decisions) > 0 {
		p.b.WriteByte('\n')
		p.line(head, "Decisions, oldest first")
		p.decisions("  ", w.Decisions)
	}
	return p.b.String()
}

// History renders decisions in the order given.
func History(d []state.Decision, o Options) string {
	p := newPage(o)
	if len(d) == 0 {
		p.line(plain, "no decisions yet")
	}
	p.decisions("", d)
	return p.b.String()
}

func (p *page) decisions(indent string, all []state.Decision) {
	var rows [][]cell
	for _, d := range all {
		about := d.Group
		if about == "" {
			about = d.Node
		}
		rows = append(rows, []cell{text("%s", d.At.Local().Format("2006-01-02 15:04:05.000")), text("%s", about), text("%s", d.Text)})
	}
	p.table(indent, rows)
}
