package guard

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/cilium/ebpf"
)

// Side is one filter of ours.
type Side struct {
	// Pref is its preference in tc; 0 when there is no filter.
	Pref uint16 `json:"pref"`
	// Program is the id by which `bpftool prog show id N` finds the program.
	Program uint32 `json:"program"`
	// Behind names the first filter of somebody else that stands in front of it, "" when none.
	Behind string `json:"behind,omitempty"`
}

// Interface is what stands on one interface.
type Interface struct {
	Index   int    `json:"index"`
	Name    string `json:"name"`
	Ingress Side   `json:"ingress"`
	Egress  Side   `json:"egress"`
}

// Guarded tells whether both filters stand.
func (i Interface) Guarded() bool { return i.Ingress.Pref != 0 && i.Egress.Pref != 0 }

// Status is what stands in the kernel, of whatever process.
type Status struct {
	// Standing tells whether any filter of ours is on any interface.
	Standing bool `json:"standing"`
	// Live tells whether the deadline is ahead: nothing is dropped.
	Live bool `json:"live"`
	// Deadline is an absolute CLOCK_BOOTTIME.
	Deadline time.Duration `json:"deadline_ns"`
	// Addrs and VRIDs are what is held, in order.
	Addrs []netip.Addr `json:"addresses"`
	VRIDs []VRID       `json:"vrids"`
	// Interfaces are all but lo.
	Interfaces []Interface `json:"interfaces"`
}

// standing is one set of maps that filters in the kernel use.
type standing struct{ maps *maps }

// findStanding opens the maps behind every filter of ours. There is more than
// one set only when two daemons ran, or something went badly wrong.
func findStanding(t *tc, owner string) (found []*standing, err error) {
	defer func() {
		if err != nil {
			closeStanding(found)
			found = nil
		}
	}()
	links, err := t.links()
	if err != nil {
		return nil, err
	}
	progs := map[ebpf.ProgramID]bool{}
	states := map[ebpf.MapID]bool{}
	for _, l := range links {
		for _, d := range []direction{ingress, egress} {
			fs, err := t.filters(l.index, d)
			if err != nil {
				return found, fmt.Errorf("interface %s: %w", l.name, err)
			}
			for _, f := range fs {
				if is, _ := ours(owner, f); !is || progs[f.prog] {
					continue
				}
				progs[f.prog] = true
				m, id, err := openMaps(f.prog)
				if errors.Is(err, os.ErrNotExist) {
					continue // went away while we looked
				}
				if err != nil {
					return found, fmt.Errorf("interface %s: %s filter %s: %w (another version left it: `keepbeat release` removes it)", l.name, d, f, err)
				}
				if states[id] {
					m.close()
					continue
				}
				states[id] = true
				found = append(found, &standing{m})
			}
		}
	}
	return found, nil
}

func closeStanding(found []*standing) {
	for _, s := range found {
		s.maps.close()
	}
}

// Inspect reads what stands in this network namespace under cfg.Owner. It changes nothing.
func Inspect(ctx context.Context, cfg Config) (Status, error) {
	cfg = cfg.withDefaults()
	st, err := withTC(func(t *tc) (Status, error) { return inspect(ctx, t, cfg.Owner) })
	if err != nil {
		return Status{}, fmt.Errorf("guard: %w", explain(err))
	}
	return st, nil
}

func inspect(ctx context.Context, t *tc, owner string) (st Status, err error) {
	links, err := t.links()
	if err != nil {
		return st, err
	}
	for _, l := range links {
		if err := ctx.Err(); err != nil {
			return st, err
		}
		i := Interface{Index: l.index, Name: l.name}
		for _, d := range []direction{ingress, egress} {
			fs, err := t.filters(l.index, d)
			if err != nil {
				return st, fmt.Errorf("interface %s: %w", l.name, err)
			}
			side := &i.Ingress
			if d == egress {
				side = &i.Egress
			}
			n := slices.IndexFunc(fs, func(f filter) bool { is, _ := ours(owner, f); return is })
			if n < 0 {
				continue
			}
			st.Standing = true
			side.Pref, side.Program = fs[n].prio, uint32(fs[n].prog)
			if b := slices.IndexFunc(fs[:n], func(f filter) bool { return !aGuard(f) }); b >= 0 {
				side.Behind = fs[b].String()
			}
		}
		st.Interfaces = append(st.Interfaces, i)
	}
	found, err := findStanding(t, owner)
	if err != nil {
		return st, err
	}
	defer closeStanding(found)
	for n, s := range found {
		d, err := s.maps.readDeadline()
		if err != nil {
			return st, err
		}
		if n == 0 || d < st.Deadline {
			st.Deadline = d
		}
		addrs, err := s.maps.listAddrs()
		if err != nil {
			return st, err
		}
		vrids, err := s.maps.listVRIDs()
		if err != nil {
			return st, err
		}
		st.Addrs = append(st.Addrs, addrs...)
		st.VRIDs = append(st.VRIDs, vrids...)
	}
	slices.SortFunc(st.Addrs, netip.Addr.Compare)
	st.Addrs = slices.Compact(st.Addrs)
	slices.SortFunc(st.VRIDs, compareVRID)
	st.VRIDs = slices.Compact(st.VRIDs)
	st.Live = st.Standing && BootNow() < st.Deadline
	return st, nil
}

// Clear removes the filters of cfg.Owner from this network namespace, and with
// the last of them all that was held; the clsact of an interface goes only if
// we made it and nobody else has a filter in it. What is held opens: call it
// when everything is stopped, and no Run is at work. Nothing there is no error.
func Clear(ctx context.Context, cfg Config) error {
	cfg = cfg.withDefaults()
	_, err := withTC(func(t *tc) (struct{}, error) { return struct{}{}, clearAll(ctx, t, cfg.Owner) })
	if err != nil {
		return fmt.Errorf("guard: clearing: %w", explain(err))
	}
	return nil
}

func clearAll(ctx context.Context, t *tc, owner string) error {
	links, err := t.links()
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range links {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if err := clearLink(t, owner, l); err != nil {
			errs = append(errs, fmt.Errorf("interface %s: %w", l.name, err))
		}
	}
	return errors.Join(errs...)
}

func clearLink(t *tc, owner string, l link) error {
	made, others := false, false
	type one struct {
		d direction
		f filter
	}
	var mine []one
	for _, d := range []direction{ingress, egress} {
		fs, err := t.filtersOfAllChains(l.index, d)
		if err != nil {
			return err
		}
		for _, f := range fs {
			is, m := ours(owner, f)
			if !is {
				others = true
				continue
			}
			mine = append(mine, one{d, f})
			made = made || m
		}
	}
	if made && !others {
		return t.delClsact(l.index) // with our filters in it: at once, or not at all
	}
	for _, x := range mine {
		if err := t.delFilter(l.index, x.d, x.f); err != nil {
			return err
		}
	}
	return nil
}

// withTC runs f with sockets of this thread's network namespace.
func withTC[T any](f func(*tc) (T, error)) (T, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	t, err := openTC()
	if err != nil {
		var zero T
		return zero, err
	}
	defer t.close()
	return f(t)
}
