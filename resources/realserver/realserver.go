package realserver

import (
	"errors"
	"fmt"
	"slices"

	"github.com/keepbeat/keepbeat/conf"
)

// kernel is what start and stop need of a machine.
type kernel interface {
	look(Step) (there bool, now string, err error)
	make(Step) error
	undo(Done) (note string, err error)
}

// Host is this machine as a real server.
type Host struct {
	dir    string
	boot   func() (string, error)
	kernel kernel
}

// New makes a Host that keeps its store in a directory, which is made when it is
// needed: the run directory, since nothing of it outlives the kernel's run.
func New(dir string) *Host { return &Host{dir: dir, boot: bootID, kernel: machine{}} }

// open locks the store and reads it.
func (h *Host) open() (*storeFile, Store, error) {
	boot, err := h.boot()
	if err != nil {
		return nil, Store{}, fmt.Errorf("boot id: %w", err)
	}
	return openStore(h.dir, boot)
}

// Start sets the machine up for addresses, on behalf of by, beside those that it
// has started before. What stands already is left as it is, and is not taken back
// later. When a step fails, what this call has done is taken back. It is idempotent.
func (h *Host) Start(by string, addresses []conf.RealServer) error {
	_, err := h.change(by, addresses, false)
	return err
}

// Set is Start for all addresses of by: those that it held and that are not
// among them are given back. notes are those of Stop.
func (h *Host) Set(by string, addresses []conf.RealServer) (notes []string, err error) {
	return h.change(by, addresses, true)
}

func (h *Host) change(by string, addresses []conf.RealServer, only bool) (notes []string, err error) {
	for _, a := range addresses {
		if err := Check(a); err != nil {
			return nil, err
		}
	}
	f, s, err := h.open()
	if err != nil {
		return nil, err
	}
	defer f.close()
	before := s.clone()
	if only {
		s.let(by, nil)
	}
	if err := s.hold(by, addresses); err != nil {
		return nil, err
	}
	if err := h.apply(f, &s); err != nil {
		s.Addresses = before.Addresses
		_, undone := h.settle(f, &s)
		return nil, errors.Join(err, undone)
	}
	if only {
		return h.settle(f, &s)
	}
	return nil, nil
}

// apply makes what is missing. Before anything is changed the store says so.
func (h *Host) apply(f *storeFile, s *Store) error {
	var todo []Step
	for _, step := range All(s.wanted()) {
		there, now, err := h.kernel.look(step)
		if err != nil {
			return fmt.Errorf("%v: %w", step, err)
		}
		if there {
			continue
		}
		todo = append(todo, step)
		if !slices.ContainsFunc(s.Done, func(d Done) bool { return d.step() == step }) {
			s.Done = append(s.Done, Done{step.Kind, step.Name, step.Value, now})
		}
	}
	if err := f.write(*s); err != nil {
		return err
	}
	for _, step := range todo {
		// An interface that was not there when it was looked at came with its
		// module; only now its own values can be read.
		there, now, err := h.kernel.look(step)
		if err == nil && !there {
			i := slices.IndexFunc(s.Done, func(d Done) bool { return d.step() == step })
			if step.Kind == Sysctl && s.Done[i].Before == "" {
				s.Done[i].Before = now
				err = f.write(*s)
			}
			if err == nil {
				err = h.kernel.make(step)
			}
		}
		if err != nil {
			return fmt.Errorf("%v: %w", step, err)
		}
	}
	return nil
}

// Stop ends what by has started of the addresses, of all when there are none.
// What nobody else holds is put back as it was. notes say what was left, since
// somebody else has changed it meanwhile.
func (h *Host) Stop(by string, addresses []conf.RealServer) (notes []string, err error) {
	f, s, err := h.open()
	if err != nil {
		return nil, err
	}
	defer f.close()
	s.let(by, addresses)
	return h.settle(f, &s)
}

// settle takes back every step that no address needs any more, the last first.
func (h *Host) settle(f *storeFile, s *Store) (notes []string, err error) {
	needed := All(s.wanted())
	steps := slices.Clone(s.Done)
	slices.Reverse(steps)
	slices.SortStableFunc(steps, func(a, b Done) int { return int(b.Kind) - int(a.Kind) })
	var errs []error
	for _, d := range steps {
		if slices.Contains(needed, d.step()) {
			continue
		}
		note, err := h.kernel.undo(d)
		if err != nil {
			errs = append(errs, fmt.Errorf("taking back %v: %w", d.step(), err))
			continue // it stays in the store, and the next stop tries again
		}
		if note != "" {
			notes = append(notes, note)
		}
		s.Done = slices.DeleteFunc(s.Done, func(x Done) bool { return x == d })
	}
	return notes, errors.Join(append(errs, f.write(*s))...)
}

// Line is a step that an address needs, and whether it stands.
type Line struct {
	Step  Step
	Ours  bool // made by us, and taken back by stop
	There bool
	Now   string // of a sysctl
}

// Status tells who has started what, and whether it stands.
func (h *Host) Status() ([]Holder, []Line, error) {
	f, s, err := h.open()
	if err != nil {
		return nil, nil, err
	}
	defer f.close()
	var lines []Line
	for _, step := range All(s.wanted()) {
		there, now, err := h.kernel.look(step)
		if err != nil {
			return nil, nil, fmt.Errorf("%v: %w", step, err)
		}
		ours := slices.ContainsFunc(s.Done, func(d Done) bool { return d.step() == step })
		lines = append(lines, Line{step, ours, there, now})
	}
	return s.Addresses, lines, nil
}
