package screen

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/ipvs"
)

// pool shows the virtual services of an IPVS pool as its owner reports them.
func (p *page) pool(now time.Time, g cluster.GroupStatus, d ipvs.Detail) {
	p.b.WriteByte('\n')
	title := "Services of " + d.Pool
	if g.Owner != "" { // virtual routers alone have their pools here
		title += " on " + g.Owner
	}
	if !d.Started {
		title += " (not in the kernel's table)"
	}
	p.line(head, title)
	if d.Trouble != "" {
		p.wrapped(bad, "  ", "    ", d.Trouble)
	}
	if d.Blind != "" {
		p.wrapped(mild, "  ", "    ", d.Blind)
	}
	if k := d.Kernel; k != nil && len(k.Sync) > 0 {
		p.wrapped(plain, "  ", "    ", "connections are synchronised: "+strings.Join(k.Sync, "; "))
	}
	if k := d.Kernel; k != nil && len(k.Settings) > 0 {
		p.wrapped(plain, "  ", "    ", "settings of the kernel: "+settings(k.Settings))
	}
	if d.Repairs > 0 {
		p.wrapped(plain, "  ", "    ", fmt.Sprintf("changes of others undone: %s, the last %s", count(int(d.Repairs), "time", "times"), age(now, d.LastRepair)))
	}
	services := slices.Clone(d.Services)
	sort.SliceStable(services, func(i, j int) bool { return whole(services[i]) < whole(services[j]) })
	for _, v := range services {
		p.service(now, d.Started, v)
	}
}

// settings shows them as sysctl does.
func settings(all map[string]string) string {
	var s []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		s = append(s, name+"="+all[name])
	}
	return strings.Join(s, " ")
}

// whole is how well a service is: the worst come first.
func whole(v ipvs.ServiceDetail) int {
	switch {
	case v.Up == 0:
		return 0
	case v.Quorum == ipvs.QuorumLost:
		return 1
	case v.Up < len(v.Reals):
		return 2
	}
	return 3
}

func (p *page) service(now time.Time, started bool, v ipvs.ServiceDetail) {
	words := []string{v.Name, v.Scheduler}
	words = append(words, v.Flags...)
	if v.Persistent > 0 {
		words = append(words, fmt.Sprintf("persistent %d s", v.Persistent))
	}
	if v.Quiescent {
		words = append(words, "quiescent")
	}
	if v.Needed > 1 {
		words = append(words, fmt.Sprintf("quorum %d", v.Needed))
		if v.Hysteresis > 0 {
			words = append(words, fmt.Sprintf("+-%d", v.Hysteresis))
		}
	}
	state := fmt.Sprintf("%d of %d up", v.Up, len(v.Reals))
	if v.Needed > 1 {
		state += fmt.Sprintf(", weight %d", v.Sum)
	}
	s := good
	switch {
	case started && !v.InKernel:
		s, state = bad, state+", NOT IN THE KERNEL'S TABLE"
	case v.Up > 0 && v.Quorum == ipvs.QuorumLost && v.Active() != nil:
		s, state = bad, state+", NO QUORUM, FALLBACK ANSWERS"
	case v.Active() != nil:
		s, state = bad, state+", FALLBACK ANSWERS"
	case v.Up == 0 || v.Sum == 0 && v.Needed > 0:
		s, state = bad, state+", NOTHING ANSWERS"
	case v.Quorum == ipvs.QuorumLost:
		s, state = bad, state+", NO QUORUM"
	case v.Up < len(v.Reals):
		s = mild
	}
	p.wrapped(s, "  ", "      ", strings.Join(words, " ")+": "+state)
	if v.Title != "" {
		p.wrapped(plain, "      ", "      ", v.Title)
	}
	if v.Comment != "" {
		p.wrapped(plain, "      ", "      ", v.Comment)
	}
	title := []cell{text("->"), text("forward"), text("weight"), text("state"), text("conns"), text("last answer")}
	rows := [][]cell{title}
	for _, r := range v.Reals {
		rows = append(rows, realRow(now, started, v, r))
	}
	for i, f := range v.Fallbacks {
		rows = append(rows, fallbackRow(f, i == 0))
	}
	p.table("    ", rows)
}

// fallbackRow shows a fallback; only one that is not up needs more than a word.
func fallbackRow(f ipvs.FallbackInfo, first bool) []cell {
	state, weight := text("idle"), fmt.Sprintf("-/%d", f.Weight)
	switch {
	case f.Active:
		state, weight = text("active").in(bad), fmt.Sprintf("%d/%d", f.Weight, f.Weight)
	case f.State == ipvs.StateDown:
		state = text("down").in(bad)
	case f.State == ipvs.StateUnknown:
		state = text("unknown").in(mild)
	}
	what := "fallback"
	if !first {
		what = "next fallback"
	}
	if f.Answer != "" {
		what += ": " + f.Answer
	}
	return []cell{text("%s", f.Address), text("%s", f.Forward), text("%s", weight).toRight(), state, conns(f.Traffic).toRight(), text("%s", what)}
}

func realRow(now time.Time, started bool, v ipvs.ServiceDetail, r ipvs.RealDetail) []cell {
	weight := "-"
	switch {
	case r.InKernel != nil:
		weight = fmt.Sprint(*r.InKernel)
	case !started && r.Wanted >= 0:
		weight = fmt.Sprint(r.Wanted) // that it would get here
	}
	answer, reason := r.Answer, r.Reason
	if len(r.Checks) > 1 && reason != "" {
		answer, reason = reason, "" // it names the check that fails
	}
	if !r.LastCheck.IsZero() {
		answer = strings.TrimSuffix(age(now, r.LastCheck)+": "+answer, ": ")
	}
	if r.Overdue {
		answer = "overdue, " + answer
	}
	if reason != "" {
		answer = strings.TrimSuffix(reason+"; "+answer, "; ")
	}
	if r.Trouble != "" {
		answer = "the kernel does not take it: " + r.Trouble
	}
	if answer == "" {
		answer = "not checked yet"
	}
	return []cell{
		text("%s", r.Address), text("%s", r.Forward), text("%s/%d", weight, r.Weight).toRight(),
		realState(v, r), conns(r.Traffic).toRight(), text("%s", answer),
	}
}

// realState is the server's state in ldirectord's words.
func realState(v ipvs.ServiceDetail, r ipvs.RealDetail) cell {
	switch {
	case r.Check == conf.Off.String():
		return text("off")
	case r.File != "":
		return text("maintenance").in(mild)
	case r.Order != nil && r.Order.Action == ipvs.Disable:
		return text("disabled").in(mild)
	case r.Order != nil && r.Order.Action == ipvs.Drain && r.State != ipvs.StateDown:
		return text("drained").in(mild)
	case r.Removed:
		return text("removed").in(mild)
	case r.Rising:
		return text("up, rising").in(good)
	case r.State == ipvs.StateUp && !r.OK:
		return text("up, failing").in(mild)
	case r.State == ipvs.StateUp:
		return text("up").in(good)
	case r.State == ipvs.StateDown && v.Quiescent:
		return text("quiescent").in(bad)
	case r.State == ipvs.StateDown:
		return text("down").in(bad)
	}
	return text("unknown").in(mild)
}

// conns are active and inactive connections, ipvsadm's ActiveConn and InActConn.
func conns(c *ipvs.Counters) cell {
	if c == nil {
		return text("-")
	}
	return text("%d+%d", c.Active, c.Inactive)
}
