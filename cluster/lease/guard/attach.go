package guard

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	bpflink "github.com/cilium/ebpf/link"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// firstPref is the lowest preference there is; the kernel takes 0 for "choose one".
const firstPref = 1

// madeSuffix is appended to the name of our filters on an interface whose
// clsact we made: the only memory of that which outlives the daemon.
const madeSuffix = "+clsact"

// guardSuffix ends the name of every guard's filter, also of other owners.
const guardSuffix = "-guard"

// moveInterval is how often at most ours is put back in front on one side:
// somebody else's program may want to be first as well, and try as hard.
const moveInterval = time.Minute

// frontKey is one side of an interface; dir+tcx is its tcx.
type frontKey struct {
	ifindex int
	dir     direction
}

const tcx direction = 2

func filterName(owner string, made bool) string {
	n := owner + guardSuffix
	if made {
		n += madeSuffix
	}
	return n
}

// ours tells whether a filter is of this owner, and whether its clsact is.
func ours(owner string, f filter) (is, made bool) {
	if f.kind != "bpf" {
		return false, false
	}
	switch f.name {
	case filterName(owner, false):
		return true, false
	case filterName(owner, true):
		return true, true
	}
	return false, false
}

// aGuard tells whether a filter is a guard's, of any owner. Such a filter in
// front of ours does no harm: what it does not drop goes on to ours.
func aGuard(f filter) bool {
	return f.kind == "bpf" && strings.HasSuffix(strings.TrimSuffix(f.name, madeSuffix), guardSuffix)
}

// ensureAll puts the filters on every interface. g.mu is held, or nobody else
// has g yet. An error of one interface does not keep the others from theirs.
func (g *Guard) ensureAll() (alarms []string, err error) {
	links, err := g.tc.links()
	if err != nil {
		return nil, err
	}
	present := make(map[int]bool, len(links))
	var errs []error
	for _, l := range links {
		present[l.index] = true
		more, err := g.ensure(l)
		alarms = append(alarms, more...)
		if err != nil {
			errs = append(errs, err)
		}
	}
	for i := range g.seen {
		if !present[i] {
			g.forget(i)
		}
	}
	alarms = append(alarms, g.checkTCX(links)...)
	return alarms, errors.Join(errs...)
}

// ensureOne is ensureAll for one interface that something happened to.
func (g *Guard) ensureOne(ifindex int) (alarms []string, err error) {
	l, ok, err := g.tc.link(ifindex)
	if err != nil {
		return nil, err
	}
	if !ok {
		g.forget(ifindex)
		return nil, nil
	}
	if l.loopback {
		return nil, nil
	}
	return g.ensure(l)
}

func (g *Guard) forget(ifindex int) {
	delete(g.seen, ifindex)
	for _, d := range []direction{ingress, egress} {
		delete(g.front, frontKey{ifindex, d})
		delete(g.front, frontKey{ifindex, d + tcx})
		delete(g.moved, frontKey{ifindex, d})
	}
}

// ensure makes both filters of an interface stand first and run our programs.
func (g *Guard) ensure(l link) (alarms []string, err error) {
	_, had := g.seen[l.index]
	missing, err := g.ensureSides(l, &alarms)
	if err != nil {
		if gone(err) && !errors.Is(err, ErrUnsupported) {
			if _, still, lerr := g.tc.link(l.index); lerr == nil && !still {
				g.forget(l.index)
				return nil, nil
			}
		}
		err = fmt.Errorf("interface %s: %w", l.name, err)
		if had {
			alarms = append(alarms, fmt.Sprintf("the guard was removed from interface %s and could not be put back: %v", l.name, err))
		}
		return alarms, err
	}
	if had && missing {
		alarms = append(alarms, fmt.Sprintf("somebody removed the guard from interface %s; it is back", l.name))
	}
	g.seen[l.index] = l.name
	return alarms, nil
}

func (g *Guard) ensureSides(l link, alarms *[]string) (missing bool, err error) {
	lists := map[direction][]filter{}
	made := false
	for _, d := range []direction{ingress, egress} {
		fs, err := g.tc.filters(l.index, d)
		if err != nil {
			return false, err
		}
		lists[d] = fs
		has := false
		for _, f := range fs {
			is, m := ours(g.cfg.Owner, f)
			has = has || is
			made = made || m
		}
		missing = missing || !has
	}
	if missing {
		now, err := g.tc.addClsact(l.index)
		if err != nil {
			return true, err
		}
		made = made || now
	}
	for _, d := range []direction{ingress, egress} {
		alarm, err := g.ensureSide(l, d, lists[d], made)
		if err != nil {
			return missing, fmt.Errorf("%s: %w", d, err)
		}
		if alarm != "" {
			*alarms = append(*alarms, alarm)
		}
	}
	return missing, nil
}

// ensureSide brings one side in order. A filter of ours that stands is only
// taken away after another of ours stands in front of it.
func (g *Guard) ensureSide(l link, d direction, fs []filter, made bool) (alarm string, err error) {
	v := variant{d, l.framing()}
	want, fd := g.ids[v], g.progs[v].FD()
	name := filterName(g.cfg.Owner, made)

	key := frontKey{l.index, d}
	mine, before := -1, -1 // the first of ours, and the first in front of it that is no guard
	for i, f := range fs {
		if is, _ := ours(g.cfg.Owner, f); is {
			mine = i
			break
		}
		if before < 0 && !aGuard(f) {
			before = i
		}
	}
	place, free := frontPlace(fs)
	if mine >= 0 && before >= 0 && time.Since(g.moved[key]) < moveInterval {
		free = false // not again so soon
	}
	var keep filter
	if mine >= 0 && (before < 0 || !free) {
		keep = fs[mine]
		if keep.prog != want || !keep.direct || keep.name != name {
			keep.name = name
			if err := g.tc.replaceFilter(l.index, d, keep, fd); err != nil {
				return "", fmt.Errorf("replacing filter %s: %w", keep, err)
			}
		}
	} else {
		if err := g.tc.addFilter(l.index, d, filter{prio: place, proto: unix.ETH_P_ALL, name: name}, fd); err != nil {
			return "", fmt.Errorf("adding a filter at pref %d: %w", place, err)
		}
	}
	for i, f := range fs {
		if is, _ := ours(g.cfg.Owner, f); is && (f.handle != keep.handle || f.prio != keep.prio) {
			if err := g.tc.delFilter(l.index, d, fs[i]); err != nil {
				return "", err
			}
		}
	}

	switch {
	case before < 0 || (mine < 0 && free):
		return g.frontChanged(key, "", ""), nil
	case free:
		g.moved[key] = time.Now()
		g.frontChanged(key, "", "")
		return fmt.Sprintf("interface %s, %s: somebody's filter (%s) stood in front of the guard; the guard is in front again",
			l.name, d, fs[before]), nil
	}
	return g.frontChanged(key, fs[before].String(),
		fmt.Sprintf("interface %s, %s: somebody's filter (%s) stands in front of the guard and may pass what it should stop; give it a pref greater than %d",
			l.name, d, fs[before], firstPref)), nil
}

// frontPlace returns the preference at which a new filter of ours stands as
// far in front as it can, and whether that is in front of all others. One
// preference belongs to one kind and one protocol; within it the newest stands first.
func frontPlace(fs []filter) (prio uint16, free bool) {
	prio = firstPref
	for i, f := range fs {
		if f.prio > prio {
			return prio, i == 0
		}
		if f.kind == "bpf" && f.proto == unix.ETH_P_ALL && (i == 0 || fs[i-1].prio != f.prio) {
			return f.prio, i == 0
		}
		if f.prio == prio && (i == len(fs)-1 || fs[i+1].prio != f.prio) {
			prio++
		}
	}
	return prio, len(fs) == 0
}

// frontChanged returns the message once for each change of what stands in front.
func (g *Guard) frontChanged(k frontKey, what, msg string) string {
	if g.front[k] == what {
		return ""
	}
	if what == "" {
		delete(g.front, k)
		return ""
	}
	g.front[k] = what
	return msg
}

// checkTCX looks for programs in tcx, which since Linux 6.6 runs before clsact
// and may let a packet by.
func (g *Guard) checkTCX(links []link) (alarms []string) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// bpf(2) looks an interface up in the namespace of the thread.
	here, err := netns.Get()
	if err != nil {
		return nil
	}
	defer here.Close()
	if !here.Equal(g.tc.ns) {
		if err := netns.Set(g.tc.ns); err != nil {
			return nil
		}
		defer func() {
			if err := netns.Set(here); err != nil {
				runtime.LockOSThread() // never unlocked: the thread ends with its goroutine
			}
		}()
	}
	for _, l := range links {
		for _, x := range []struct {
			d direction
			t ebpf.AttachType
		}{{ingress, ebpf.AttachTCXIngress}, {egress, ebpf.AttachTCXEgress}} {
			res, err := bpflink.QueryPrograms(bpflink.QueryOptions{Target: l.index, Attach: x.t})
			if err != nil {
				continue // no tcx in this kernel, or no such interface any more
			}
			what := ""
			if len(res.Programs) > 0 {
				what = fmt.Sprintf("tcx program %d", res.Programs[0].ID)
			}
			if a := g.frontChanged(frontKey{l.index, x.d + tcx}, what,
				fmt.Sprintf("interface %s, %s: a program in tcx (%s) runs before the guard and may pass what it should stop", l.name, x.d, what)); a != "" {
				alarms = append(alarms, a)
			}
		}
	}
	return alarms
}
