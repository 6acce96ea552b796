package state

import (
	"fmt"
	"maps"
	"slices"

	"github.com/keepbeat/keepbeat/conf"
)

// A version of the specification says what is to run; what its owner still runs
// of a group is known when the owner has said so. Until then both count: an
// exclusive resource that stands elsewhere now is not started there, and a group
// that had to be fenced still has to be.

// Runs returns what the owner of a group may run of it: what the specification
// says, and what earlier versions said and has not been reported stopped. Only
// the latter is left of a group that was taken out; nil: nothing.
func (s *State) Runs(name string) *conf.Group {
	_, c := s.Group(name)
	left, leaving := s.Leaving[name]
	switch {
	case !leaving:
		return c
	case c == nil:
		return &left
	}
	all := *c
	all.Resources = slices.Concat(c.Resources, left.Resources)
	return &all
}

// keep notes, before a version is replaced, what the owners may go on running
// of it. A resource that the next one has in the same group, as what may be
// there twice or not, stays.
func (e *edit) keep(next *conf.Spec) {
	named := byName(next)
	leaving := map[string]conf.Group{}
	for name, g := range e.Groups {
		was := e.Runs(name)
		if g.Owner == "" || was == nil {
			continue
		}
		left := *was
		if c := named[name]; c != nil {
			left.Resources = slices.DeleteFunc(slices.Clone(was.Resources), func(r conf.Resource) bool {
				return slices.ContainsFunc(c.Resources, func(n conf.Resource) bool { return n.Class == r.Class && n.Takes() == r.Takes() })
			})
		}
		if len(left.Resources) > 0 {
			leaving[name] = left
		}
	}
	e.Leaving = nil
	if len(leaving) > 0 {
		e.Leaving = leaving
	}
}

// gone forgets what was left of a group: it has been reported stopped, or its
// owner does not act any more.
func (e *edit) gone(name string) bool {
	if _, leaving := e.Leaving[name]; !leaving {
		return false
	}
	e.Leaving = maps.Clone(e.Leaving)
	delete(e.Leaving, name)
	if len(e.Leaving) == 0 {
		e.Leaving = nil
	}
	return true
}

func byName(s *conf.Spec) map[string]*conf.Group {
	named := map[string]*conf.Group{}
	if s != nil {
		for i := range s.Groups {
			named[s.Groups[i].Name] = &s.Groups[i]
		}
	}
	return named
}

// Held says by what they take (conf.Resource.Takes) which group the exclusive
// resources belong to that somebody may run now.
type Held map[string]string

// Held returns what is held. It is made anew each time.
func (s *State) Held() Held {
	h := Held{}
	if s.Spec != nil {
		for i := range s.Spec.Groups {
			if c := &s.Spec.Groups[i]; s.Groups[c.Name].Owner != "" {
				h.add(c)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Leaving)) {
		left := s.Leaving[name]
		h.add(&left)
	}
	return h
}

// add notes what a group takes, and returns what another one has already; empty: nothing.
func (h Held) add(c *conf.Group) string {
	clash := ""
	for _, r := range c.Resources {
		if r.Class == conf.Shared {
			continue
		}
		what := r.Takes()
		if has, taken := h[what]; !taken {
			h[what] = c.Name
		} else if has != c.Name && clash == "" {
			clash = what
		}
	}
	return clash
}

// Waits says why a group that nobody owns cannot be started anywhere now:
// another one still has something of it. Empty: nothing is in the way.
func (s *State) Waits(c *conf.Group, held Held) string {
	for _, r := range c.Resources {
		what := r.Takes()
		if has, taken := held[what]; taken && has != c.Name && r.Class != conf.Shared {
			return fmt.Sprintf("waits until %s does not run in group %s on %s any more", what, has, s.Groups[has].Owner)
		}
	}
	return ""
}

// Clash says why a specification cannot be the next version: a group that runs
// would get what another one that runs has. Its owner would start that by itself, without
// anybody's leave, so it is not made to wait. Empty: there is no such thing.
func (s *State) Clash(next *conf.Spec) string {
	held := s.Held()
	for i := range next.Groups {
		c := &next.Groups[i]
		to := s.Groups[c.Name].Owner
		if to == "" {
			continue
		}
		if what := held.add(c); what != "" {
			has := held[what]
			return fmt.Sprintf("%s belongs to group %s, which %s runs, and would go to group %s, which %s runs: apply a version in which no group has it, wait until `keepbeat status` does not name it any more, then apply this one",
				what, has, s.Groups[has].Owner, c.Name, to)
		}
	}
	return ""
}
