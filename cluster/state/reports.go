package state

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// What nodes report of the groups that they own, and how failures are remembered.

// owned returns the group when node acts for it as the report says.
func (e *edit) owned(group, node string, incarnation, epoch uint64) (Group, Result) {
	g, ok := e.Groups[group]
	n := e.Nodes[node]
	if !ok || g.Owner != node || g.Epoch != epoch || !n.Valid || n.Incarnation != incarnation {
		return g, refuse("group %s: not owned by %s (incarnation %d) under epoch %d any more", group, node, incarnation, epoch)
	}
	return g, Result{}
}

func (e *edit) started(s Started) Result {
	g, r := e.owned(s.Group, s.Node, s.Incarnation, s.Epoch)
	if r.Refused != "" {
		return r
	}
	if _, c := e.Group(s.Group); c != nil && s.Version == e.SpecInfo.Version && e.gone(s.Group) {
		e.note(g.Name, s.Node, "has stopped what the specification no longer has")
	}
	if g.Active {
		return r
	}
	g.Active, g.Blocked = true, ""
	e.setGroup(g)
	e.note(g.Name, s.Node, "started")
	return r
}

func (e *edit) stopped(s Stopped) Result {
	g, r := e.owned(s.Group, s.Node, s.Incarnation, s.Epoch)
	if r.Refused != "" {
		return r
	}
	if f := s.Failure; f != nil {
		g.Failures = withFailure(g.Failures, s.Node, *f)
		e.note(g.Name, s.Node, fmt.Sprintf("failed: %s: %s", f.Resource, f.Error))
		if g.Manual == s.Node {
			g.Manual = ""
		}
	} else {
		e.note(g.Name, s.Node, "stopped")
	}
	if _, c := e.Group(s.Group); c == nil {
		e.retire(g) // taken out of the specification
		return r
	}
	to, why := g.Target, g.TargetReason
	if t := e.Nodes[to]; to == s.Node || !t.Valid || !t.Director || g.FailedOn(to) {
		to, why = "", "stopped on "+s.Node
		if s.Failure != nil {
			why = fmt.Sprintf("failed on %s: %s: %s", s.Node, s.Failure.Resource, s.Failure.Error)
		}
	}
	e.setOwner(g, to, why)
	return r
}

// failureMemory is how long a failure counts towards the next one's waiting time.
const failureMemory = time.Hour

func withFailure(old map[string]Failure, node string, f Failure) map[string]Failure {
	m := maps.Clone(old)
	if m == nil {
		m = map[string]Failure{}
	}
	f.Count = 1
	if before, ok := m[node]; ok && f.At.Sub(before.At) < failureMemory {
		f.Count = before.Count + 1
	}
	f.Until = f.At.Add(RetryAfter(f.Count))
	m[node] = f
	return m
}

// RetryAfter is how long a node is left alone after its n-th failure of a
// group within an hour: 10 s, doubling, at most 10 minutes.
func RetryAfter(n int) time.Duration {
	return min(10*time.Second<<min(max(n-1, 0), 10), 10*time.Minute)
}

func without(m map[string]Failure, node string) map[string]Failure {
	c := maps.Clone(m)
	delete(c, node)
	return c
}

func (e *edit) blocked(b Blocked) Result {
	g, r := e.owned(b.Group, b.Node, b.Incarnation, b.Epoch)
	if r.Refused != "" || g.Blocked == b.Why {
		return r
	}
	g.Blocked = b.Why
	e.setGroup(g)
	e.note(g.Name, b.Node, "BLOCKED: "+b.Why)
	return r
}

func (e *edit) problems(p Problems) Result {
	n := e.Nodes[p.Node]
	if !n.Valid || n.Incarnation != p.Incarnation {
		return refuse("node %s is not at incarnation %d any more", p.Node, p.Incarnation)
	}
	for _, group := range slices.Sorted(maps.Keys(p.Problems)) {
		if why := p.Problems[group]; n.Problems[group] != why {
			e.note(group, p.Node, p.Node+" is not ready: "+why)
		}
	}
	for _, group := range slices.Sorted(maps.Keys(n.Problems)) {
		if _, still := p.Problems[group]; !still {
			e.note(group, p.Node, p.Node+" is ready again")
			e.excuse(group, p.Node)
		}
	}
	n.Problems = p.Problems
	if e.Format >= 3 {
		n.Unsettled = p.Unsettled
	}
	e.setNode(n)
	return Result{}
}

// excuse ends the waiting time of a failure whose reason has been seen to be gone.
func (e *edit) excuse(group, node string) {
	g, ok := e.Groups[group]
	f, failed := g.Failures[node]
	if !ok || !failed || f.Until.IsZero() || e.Format < 2 {
		return
	}
	f.Until = time.Time{}
	g.Failures = maps.Clone(g.Failures)
	g.Failures[node] = f
	e.setGroup(g)
}

func (e *edit) forgive(f Forgive) Result {
	g, ok := e.Groups[f.Group]
	old, failed := g.Failures[f.Node]
	if !ok || !failed || !old.Until.Equal(f.Until) {
		return refuse("group %s: no such failure on %s any more", f.Group, f.Node)
	}
	old.Until = time.Time{} // may be tried; Count stays, for the next waiting time
	g.Failures = maps.Clone(g.Failures)
	g.Failures[f.Node] = old
	e.setGroup(g)
	e.note(f.Group, f.Node, "may be tried again: "+f.Why)
	return Result{}
}
