package ipvs

import "context"

// settled is what settle found and did.
type settled struct {
	Before []Op      // what differed at the beginning
	Left   []Refused // what still differs, since the kernel refused it
	Actual []Entry   // the table as last read
	Fresh  bool      // Actual was read after the last change
}

// rounds bounds how often settle reads and writes: once to do it, once to see
// that it is done, and the rest for somebody else who writes at the same time.
const rounds = 4

// settle makes the services of the keys in the table those that are wanted.
// With verify it reads the table again until nothing differs; without it
// trusts the kernel's word that every change was done.
func settle(ctx context.Context, t Table, wanted []Entry, keys []Key, verify bool) (settled, error) {
	var s settled
	list := t.List
	if len(wanted) == 0 {
		list = t.Services // they go whole
	}
	said := map[string]error{} // what the kernel refused, by operation
	for round := range rounds {
		actual, err := list(ctx, keys)
		if err != nil {
			return s, err
		}
		s.Actual, s.Fresh = actual, true
		ops := Diff(wanted, actual)
		if round == 0 {
			s.Before = ops
		}
		s.Left = s.Left[:0]
		var todo []Op
		for _, op := range ops {
			if err, again := said[op.String()]; again {
				s.Left = append(s.Left, Refused{op, err})
			} else {
				todo = append(todo, op)
			}
		}
		if len(todo) == 0 {
			return s, nil
		}
		s.Fresh = false
		refused, err := t.Apply(ctx, todo)
		if err != nil {
			return s, err
		}
		for _, r := range refused {
			said[r.Op.String()] = r.Err
		}
		if len(refused) == 0 && len(s.Left) == 0 && !verify {
			return s, nil
		}
	}
	// Somebody undoes it as fast as it is done.
	actual, err := list(ctx, keys)
	if err != nil {
		return s, err
	}
	s.Actual, s.Fresh, s.Left = actual, true, nil
	for _, op := range Diff(wanted, actual) {
		err := said[op.String()]
		if err == nil {
			err = errUndone
		}
		s.Left = append(s.Left, Refused{op, err})
	}
	return s, nil
}

// serious returns the first of what is left that makes a service fail: the
// service itself was refused, or all servers that it needs. A single server
// that the kernel does not take (a multicast address, say) would be refused on
// every node, so it is reported and does not move the group.
func (s settled) serious(wanted []Entry) error {
	if len(s.Left) == 0 {
		return nil
	}
	for _, r := range s.Left {
		switch r.Op.Verb {
		case AddService, EditService, DeleteService:
			return r.Err
		}
	}
	serving := make(map[Key]bool, len(s.Actual))
	for _, e := range s.Actual {
		for _, d := range e.Dests {
			if d.Weight > 0 {
				serving[e.Service.Key] = true
			}
		}
	}
	needs := make(map[Key]bool, len(wanted))
	for _, e := range wanted {
		for _, d := range e.Dests {
			if d.Weight > 0 {
				needs[e.Service.Key] = true
			}
		}
	}
	for _, r := range s.Left {
		if k := r.Op.Service.Key; needs[k] && !serving[k] {
			return r.Err
		}
	}
	return nil
}
