package screen

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/conf"
)

// safety is the part of the page on what keeps two nodes from acting at once
// beside leases: the pair, fencing, watchdogs. Each is one line while it is
// well; what is wrong with it stands among the problems, and the rest here.
func (p *page) safety(s cluster.Status) {
	var parts []part
	for _, x := range []part{pairPart(s), fencingPart(s), watchdogPart(s)} {
		if x.line != "" {
			p.wrapped(x.shade, "", "  ", x.line)
		}
		if len(x.rows) > 0 {
			parts = append(parts, x)
		}
	}
	for _, x := range parts {
		p.b.WriteByte('\n')
		p.line(head, x.title)
		p.table("  ", x.rows)
	}
}

// part is a line, or a title and a table, or both.
type part struct {
	line  string
	shade shade
	title string
	rows  [][]cell
}

func pairPart(s cluster.Status) part {
	var rules, generations []string
	whole, tie := true, ""
	var rows [][]cell
	var members []string
	for _, n := range s.Nodes {
		if h := n.Here; h != nil && h.Pair != nil {
			members = append(members, n.Name, h.Pair.Peer)
		}
	}
	for _, n := range s.Nodes {
		switch h := n.Here; {
		case !slices.Contains(members, n.Name): // one that joins
		case h == nil:
			whole = false
			rows = append(rows, []cell{text("%s", n.Name), text("not heard").in(bad), text("generation ?"), text("")})
		case h.Pair == nil:
			whole = false
			rows = append(rows, []cell{text("%s", n.Name), text("no pair").in(mild), text(""), text("it goes by a majority, or other nodes")})
		default:
			x := h.Pair
			rules, generations = append(rules, x.Rule), append(generations, x.Generation)
			whole = whole && x.Phase == pair.Whole.String() && !x.OnlySerial
			tale := x.How
			if x.TieBreaker != "" {
				tie = "; tie-breaker " + x.TieBreaker
				tale = strings.TrimPrefix(tale+"; ", "; ") + "the tie-breaker " + x.TieBreaker
			}
			rows = append(rows, []cell{text("%s", n.Name), text("%s", x.Phase).in(phaseShade(*x)), text("generation %s", x.Generation), text("%s", tale)})
		}
	}
	rules, generations = distinct(rules), distinct(generations)
	if len(rules) == 0 {
		return part{}
	}
	if whole && len(rules) == 1 && len(generations) == 1 {
		return part{line: fmt.Sprintf("Pair: whole, quorum %s, generation %s%s", rules[0], generations[0], tie), shade: good}
	}
	return part{title: "Pair, quorum " + strings.Join(rules, " and "), rows: rows}
}

func distinct(words []string) []string {
	slices.Sort(words)
	return slices.Compact(words)
}

func phaseShade(x cluster.PairStatus) shade {
	switch x.Phase {
	case pair.Whole.String():
		return good
	case pair.Sole.String():
		if !x.Contested {
			return good
		}
		return mild
	case pair.Joining.String(), pair.Rejoining.String():
		return mild
	}
	return bad
}

// device is a fencing device as all nodes together see it.
type device struct {
	name, kind    string
	here, checked bool        // by some node
	faults        [][2]string // node, what it says
}

func devicesOf(s cluster.Status) (all []*device) {
	for _, n := range s.Nodes {
		if n.Here == nil {
			continue
		}
		for _, d := range n.Here.Devices {
			i := slices.IndexFunc(all, func(x *device) bool { return x.name == d.Name })
			if i < 0 {
				i, all = len(all), append(all, &device{name: d.Name, kind: d.Kind})
			}
			x := all[i]
			x.here, x.checked = x.here || d.Here, x.checked || !d.Checked.IsZero()
			if d.Error != "" {
				x.faults = append(x.faults, [2]string{n.Name, d.Error})
			}
		}
	}
	return all
}

func fencingPart(s cluster.Status) part {
	x := part{title: "Fencing"}
	for _, node := range slices.Sorted(maps.Keys(s.Fencing)) {
		r := s.Fencing[node]
		tries := ""
		if r.Tries > 0 {
			tries = ", " + count(r.Tries, "try has failed", "tries have failed")
		}
		x.rows = append(x.rows, []cell{text("%s", node), text("being fenced").in(mild), text("by %s for %s%s", r.Operator, span(s.Time.Sub(r.At)), tries)})
	}
	for _, n := range s.Nodes {
		if n.Here == nil {
			continue
		}
		for _, w := range n.Here.Waiting {
			x.rows = append(x.rows, []cell{text("%s", w.Node), text("A PERSON").in(bad), text("is waited for since %s: keepbeat fence confirm %s", span(s.Time.Sub(w.Since)), w.Node)})
		}
	}
	var answer, untried, others []string
	for _, d := range devicesOf(s) {
		switch {
		case len(d.faults) > 0:
			fault := "no answer"
			if d.kind == conf.FenceWatchdog.String() {
				fault = "fences nobody" // it is asked nothing: what it waits for is not known to happen
			}
			for _, f := range d.faults {
				x.rows = append(x.rows, []cell{text("%s", d.name), text("%s", fault).in(bad), text("on %s: %s", f[0], f[1])})
			}
		case !d.here:
		case d.kind == conf.FenceManual.String() || d.kind == conf.FenceWatchdog.String():
			others = append(others, d.name+" ("+d.kind+")")
		case !d.checked:
			untried = append(untried, d.name)
		default:
			answer = append(answer, d.name)
		}
	}
	var words []string
	for _, w := range []struct {
		names     []string
		one, many string
	}{{answer, " answers", " answer"}, {untried, " has not been asked yet", " have not been asked yet"}, {others, "", ""}} {
		switch n := len(w.names); {
		case n > 4:
			words = append(words, fmt.Sprintf("%d devices%s", n, w.many))
		case n > 1:
			words = append(words, strings.Join(w.names, ", ")+w.many)
		case n == 1:
			words = append(words, w.names[0]+w.one)
		}
	}
	if len(words) > 0 {
		x.line = "Fencing: " + strings.Join(words, "; ")
	}
	return x
}

func watchdogPart(s cluster.Status) part {
	x := part{title: "Watchdog"}
	var fed, loops []string
	var timeout time.Duration
	for _, n := range s.Nodes {
		if n.Here == nil || n.Here.Watchdog == nil {
			continue
		}
		w := n.Here.Watchdog
		row := func(c cell, format string, args ...any) {
			x.rows = append(x.rows, []cell{text("%s", n.Name), c, text(format, args...)})
		}
		switch {
		case w.Starved != "":
			row(text("RESETS ITSELF").in(bad), "%s", w.Starved)
		case !w.Running && w.Error != "":
			row(text("NOT ARMED").in(bad), "%s", w.Error)
		case !w.Running:
			row(text("not armed").in(mild), "yet: the node has not joined, or something is left from before")
		case len(w.Held) > 0:
			row(text("NOT FED").in(bad), "resets in %s: %s", seconds(w.Left), strings.Join(w.Held, "; "))
		default:
			for _, b := range w.Beats {
				loops = append(loops, b.Name)
			}
			fed = append(fed, n.Name)
			timeout = max(timeout, w.Timeout)
		}
	}
	if len(fed) > 0 {
		x.line = fmt.Sprintf("Watchdog (%s): fed by %s on %s", seconds(timeout), strings.Join(distinct(loops), ", "), strings.Join(fed, ", "))
	}
	return x
}

func seconds(d time.Duration) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", max(d, 0).Seconds()), ".0") + " s"
}
