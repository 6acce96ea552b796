package fault

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// plan is one fault from its beginning to its end: steps in the order of time, all
// on the one goroutine that owns the lab. What it needs to know about the cluster
// (who owns, who leads) is asked when it is drawn, and everything random is drawn then.
type plan struct {
	what  string // for the timeline: which node, how long, how much
	steps []step
	// uses names the nodes whose daemon, disk or machine the fault handles; two
	// faults at once do not handle the same.
	uses []string
}

type step struct {
	after time.Duration // since the beginning of the plan
	what  string        // empty: not worth a line
	do    func()
}

func (p *plan) at(after time.Duration, what string, do func()) {
	p.steps = append(p.steps, step{after, what, do})
}

// length is when the last step is due.
func (p plan) length() time.Duration {
	var last time.Duration
	for _, s := range p.steps {
		last = max(last, s.after)
	}
	return last
}

// together is two plans at once, the second a little later than the first.
func together(a, b plan, later time.Duration) plan {
	both := plan{what: fmt.Sprintf("%s; and %v later %s", a.what, later.Round(time.Millisecond), b.what), uses: slices.Concat(a.uses, b.uses)}
	both.steps = slices.Clone(a.steps)
	for _, s := range b.steps {
		s.after += later
		both.steps = append(both.steps, s)
	}
	slices.SortStableFunc(both.steps, func(x, y step) int { return int(x.after - y.after) })
	return both
}

// clash says whether two plans handle the same node.
func clash(a, b plan) bool {
	return slices.ContainsFunc(a.uses, func(n string) bool { return slices.Contains(b.uses, n) })
}

// kind is a kind of fault: a row of the table.
type kind struct {
	name string
	// kernel: it needs what only the lab kernel is sure to have, or must not touch this machine's.
	kernel bool
	// alone: it is never combined with another.
	alone bool
	draw  func(a *arena, r *rand.Rand) plan
}

// twoAtOnce is the row for combinations; what was combined is in the timeline.
const twoAtOnce = "two faults at once"

// drawTwo combines two kinds that do not clash.
func drawTwo(a *arena, r *rand.Rand, from []kind) plan {
	var some []kind
	for _, k := range from {
		if !k.alone {
			some = append(some, k)
		}
	}
	for {
		x, y := some[r.IntN(len(some))], some[r.IntN(len(some))]
		p, q := x.draw(a, r), y.draw(a, r)
		if x.name == y.name || clash(p, q) {
			continue
		}
		return together(p, q, time.Duration(r.Int64N(int64(max(p.length(), time.Second)))))
	}
}

// between draws a duration.
func between(r *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(r.Int64N(int64(to-from)+1))
}

// one draws one of several.
func one[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }
