// Package guard makes the kernel enforce the lease when the daemon cannot.
//
// On every interface but lo two filters stand in tc, one on the way in and one
// on the way out. They compare the clock with one deadline for the whole node.
// Until the deadline they do nothing; from it on they drop what comes in for
// the held addresses, what leaves with them as source, ARP and neighbour
// discovery about them, and VRRP advertisements of held virtual routers.
// Nothing but a later deadline opens them: not the death of the daemon, not a
// flush of a firewall's rules. docs/guard.md says what it cannot do.
package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// DefaultOwner names our filters when Config.Owner is empty.
const DefaultOwner = "keepbeat"

// MaxAhead is how far in the future a deadline may be: far more than any lease,
// so that a deadline by another clock is refused instead of never reached.
const MaxAhead = 10 * time.Minute

// Config is what a Guard needs.
type Config struct {
	// Logger; nil discards.
	Logger *slog.Logger
	// Owner names the filters, as OWNER-guard; DefaultOwner when empty. Guards
	// with different owners in one network namespace do not know each other.
	Owner string
	// Alarm is told that somebody removed the guard from an interface and it was
	// put back, or that it could not be, or that somebody stands in front of it.
	// It is called without locks, by Run, Hold and Open. May be nil.
	Alarm func(msg string)
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Owner == "" {
		c.Owner = DefaultOwner
	}
	if c.Alarm == nil {
		c.Alarm = func(string) {}
	}
	return c
}

// Guard is the kernel's guard of one network namespace. Its methods may be
// called from any goroutine.
type Guard struct {
	cfg   Config
	tc    *tc
	progs programs
	ids   map[variant]ebpf.ProgramID

	// word guards the deadline's memory against Close. Nothing waits under it,
	// so a renewal never waits for netlink.
	word   sync.Mutex
	maps   *maps
	closed bool // written under word and mu, read under either

	// mu guards the kernel's filters and maps against our own other calls, and the fields below.
	mu    sync.Mutex
	addrs map[netip.Addr]struct{}
	vrids map[VRID]struct{}
	seen  map[int]string         // interfaces, by index, that have had the filters: a missing one was removed
	front map[frontKey]string    // what was last said to stand in front of ours
	moved map[frontKey]time.Time // when ours was last put back in front
}

// Open takes over the filters that a daemon before this one left in this
// network namespace, with their deadline and all they hold, or makes new ones
// with a deadline that has passed and nothing held. On return every interface
// but lo has them. A daemon that is killed anywhere in Open leaves the
// addresses as guarded as they were.
//
// The error wraps ErrUnsupported when the kernel has not what is needed, and
// ErrClock when deadlines would not mean the same to it.
func Open(ctx context.Context, cfg Config) (*Guard, error) {
	// The sockets must be of one namespace.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	g, alarms, err := open(ctx, cfg.withDefaults())
	if err != nil {
		return nil, fmt.Errorf("guard: %w", explain(err))
	}
	g.say(alarms)
	return g, nil
}

func open(ctx context.Context, cfg Config) (_ *Guard, alarms []string, err error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, nil, fmt.Errorf("raising the limit of locked memory: %w", err)
	}
	if err := checkClock(); err != nil {
		return nil, nil, explainBPF(err)
	}
	t, err := openTC()
	if err != nil {
		return nil, nil, err
	}
	g := &Guard{
		cfg: cfg, tc: t,
		ids:   map[variant]ebpf.ProgramID{},
		addrs: map[netip.Addr]struct{}{}, vrids: map[VRID]struct{}{},
		seen: map[int]string{}, front: map[frontKey]string{},
		moved: map[frontKey]time.Time{},
	}
	defer func() {
		if err != nil {
			_ = g.Close()
		}
	}()
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}

	standing, err := findStanding(t, cfg.Owner)
	if err != nil {
		return nil, nil, err
	}
	if g.maps, err = adopt(standing); err != nil {
		return nil, nil, err
	}
	if g.maps == nil {
		if g.maps, err = newMaps(); err != nil {
			return nil, nil, explainBPF(err)
		}
	}
	if err := g.maps.mapState(); err != nil {
		return nil, nil, explainBPF(err)
	}
	if err := g.noteCut(); err != nil {
		return nil, nil, err
	}
	addrs, err := g.maps.listAddrs()
	if err != nil {
		return nil, nil, err
	}
	for _, a := range addrs {
		g.addrs[a] = struct{}{}
	}
	vrids, err := g.maps.listVRIDs()
	if err != nil {
		return nil, nil, err
	}
	for _, v := range vrids {
		g.vrids[v] = struct{}{}
	}
	if g.progs, err = loadPrograms(g.maps); err != nil {
		return nil, nil, explainBPF(err)
	}
	for v, p := range g.progs {
		info, err := p.Info()
		if err != nil {
			return nil, nil, fmt.Errorf("reading program %s: %w", v.name(), err)
		}
		id, ok := info.ID()
		if !ok {
			return nil, nil, fmt.Errorf("%w: its programs have no id", ErrUnsupported)
		}
		g.ids[v] = id
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if alarms, err = g.ensureAll(); err != nil {
		return nil, nil, err
	}
	if len(standing) > 0 {
		cfg.Logger.Info("guard: took over what an earlier daemon left", "addresses", len(addrs), "vrids", len(vrids),
			"deadline", g.Deadline(), "boottime", BootNow())
	}
	return g, alarms, nil
}

// adopt makes one set of maps of all that were found: nothing that one of them
// holds is let go, and no deadline gets longer. It returns nil for none.
func adopt(found []*standing) (_ *maps, err error) {
	if len(found) == 0 {
		return nil, nil
	}
	base := found[0].maps
	defer func() {
		for i, s := range found {
			if i > 0 || err != nil {
				s.maps.close()
			}
		}
	}()
	// The base's interfaces are guarded by it meanwhile, the others' by theirs.
	deadline, err := base.readDeadline()
	if err != nil {
		return nil, err
	}
	for _, s := range found[1:] {
		d, err := s.maps.readDeadline()
		if err != nil {
			return nil, err
		}
		if d < deadline {
			deadline = d
			if err := base.state.Put(uint32(slotDeadline), uint64(d)); err != nil {
				return nil, fmt.Errorf("keeping the earlier deadline: %w", err)
			}
		}
		addrs, err := keysOf[addrKey](s.maps.addrs)
		if err != nil {
			return nil, err
		}
		for _, k := range addrs {
			if err := keep(base.addrs, s.maps.addrs, k); err != nil {
				return nil, fmt.Errorf("keeping a held address: %w", err)
			}
		}
		vrids, err := keysOf[vridKey](s.maps.vrids)
		if err != nil {
			return nil, err
		}
		for _, k := range vrids {
			if err := keep(base.vrids, s.maps.vrids, k); err != nil {
				return nil, fmt.Errorf("keeping a held VRID: %w", err)
			}
		}
	}
	return base, nil
}

// keep makes base hold what another map holds; what one of them cuts stays cut.
func keep[K addrKey | vridKey](base, from *ebpf.Map, k K) error {
	var v uint32
	if err := from.Lookup(k, &v); err != nil || v != heldCut {
		v = heldOpen
	}
	var has uint32
	if v == heldOpen && base.Lookup(k, &has) == nil {
		return nil
	}
	return base.Put(k, v)
}

// SetDeadline makes the lease live until an absolute CLOCK_BOOTTIME, or not
// live when that has passed: 0 closes at once. It is one store to memory and
// may be called for every renewal. The caller reads BootNow first, then how
// much of the lease remains, and adds: stopped in between or before the store,
// it sets a deadline that is early or has passed.
func (g *Guard) SetDeadline(bootNS time.Duration) error {
	if now := BootNow(); bootNS > now+MaxAhead {
		return fmt.Errorf("guard: a deadline at boottime %v, which is now %v, is more than %v ahead: by which clock is it?", bootNS, now, MaxAhead)
	}
	g.word.Lock()
	defer g.word.Unlock()
	if g.closed {
		return fmt.Errorf("guard: %w", ErrClosed)
	}
	g.maps.deadlineWord().Store(uint64(max(bootNS, 0)))
	return nil
}

// Deadline returns the deadline in force, an absolute CLOCK_BOOTTIME; 0 after Close.
func (g *Guard) Deadline() time.Duration {
	g.word.Lock()
	defer g.word.Unlock()
	if g.closed {
		return 0
	}
	return time.Duration(g.maps.deadlineWord().Load())
}

// Hold puts addresses under the guard. When it returns without error they are
// guarded on every interface that is present. After an error some may be held
// already. Addresses are of the node: zones are ignored.
//
// An address that was cut is only held from then on.
func (g *Guard) Hold(addrs ...netip.Addr) error { return g.holdAs(heldOpen, addrs) }

// Cut drops addresses whatever the lease says, until Drop or Hold: for what
// would not stop. They need not be held before.
func (g *Guard) Cut(addrs ...netip.Addr) error { return g.holdAs(heldCut, addrs) }

func (g *Guard) holdAs(value uint32, addrs []netip.Addr) error {
	for _, a := range addrs {
		if err := holdable(a); err != nil {
			return fmt.Errorf("guard: %w", err)
		}
	}
	return g.hold(func() error {
		if value == heldCut {
			g.maps.cutWord().Store(1) // before the first is cut: until then it costs time, no packet
		}
		for _, a := range addrs {
			a = plain(a)
			if err := g.maps.addrs.Put(addrKey(a.As16()), value); err != nil {
				return fmt.Errorf("holding %s: %w", a, full(err, MaxAddresses, "addresses"))
			}
			g.addrs[a] = struct{}{}
		}
		return g.noteCut()
	})
}

// noteCut tells the programs whether an address or a virtual router is cut. While none ever was it costs nothing.
func (g *Guard) noteCut() error {
	if g.maps.cutWord().Load() == 0 {
		return nil
	}
	any, err := g.maps.anyCut()
	if err == nil && !any {
		g.maps.cutWord().Store(0)
	}
	return err
}

// HoldVRID puts virtual routers under the guard, like Hold.
func (g *Guard) HoldVRID(vrids ...VRID) error { return g.holdVRIDs(heldOpen, vrids) }

// CutVRID drops what is sent of virtual routers whatever the lease says, like Cut.
func (g *Guard) CutVRID(vrids ...VRID) error { return g.holdVRIDs(heldCut, vrids) }

func (g *Guard) holdVRIDs(value uint32, vrids []VRID) error {
	for _, v := range vrids {
		if v.ID == 0 {
			return fmt.Errorf("guard: %s: a VRID is 1 to 255", v)
		}
	}
	return g.hold(func() error {
		if value == heldCut {
			g.maps.cutWord().Store(1)
		}
		for _, v := range vrids {
			if err := g.maps.vrids.Put(v.key(), value); err != nil {
				return fmt.Errorf("holding %s: %w", v, full(err, maxVRIDs, "virtual routers"))
			}
			g.vrids[v] = struct{}{}
		}
		return g.noteCut()
	})
}

func (g *Guard) hold(put func() error) error {
	alarms, err := func() ([]string, error) {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.closed {
			return nil, ErrClosed
		}
		if err := put(); err != nil {
			return nil, err
		}
		return g.ensureAll()
	}()
	g.say(alarms)
	if err != nil {
		return fmt.Errorf("guard: %w", explain(err))
	}
	return nil
}

// Drop lets addresses go. What is not held is no error.
func (g *Guard) Drop(addrs ...netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return fmt.Errorf("guard: %w", ErrClosed)
	}
	for _, a := range addrs {
		if !a.IsValid() {
			continue // cannot be held
		}
		a = plain(a)
		if err := g.maps.addrs.Delete(addrKey(a.As16())); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("guard: dropping %s: %w", a, err)
		}
		delete(g.addrs, a)
	}
	return g.noteCut()
}

// DropVRID lets virtual routers go. What is not held is no error.
func (g *Guard) DropVRID(vrids ...VRID) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return fmt.Errorf("guard: %w", ErrClosed)
	}
	for _, v := range vrids {
		if err := g.maps.vrids.Delete(v.key()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("guard: dropping %s: %w", v, err)
		}
		delete(g.vrids, v)
	}
	return g.noteCut()
}

// Held returns the held addresses in order.
func (g *Guard) Held() []netip.Addr {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]netip.Addr, 0, len(g.addrs))
	for a := range g.addrs {
		out = append(out, a)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// HeldVRIDs returns the held virtual routers in order.
func (g *Guard) HeldVRIDs() []VRID {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]VRID, 0, len(g.vrids))
	for v := range g.vrids {
		out = append(out, v)
	}
	slices.SortFunc(out, compareVRID)
	return out
}

// Close ends this process's part. The kernel's stands: filters, what they hold
// and the deadline. Call it after Run has returned.
func (g *Guard) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.word.Lock()
	defer g.word.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	g.progs.close()
	if g.maps != nil {
		g.maps.close()
	}
	g.tc.close()
	return nil
}

func (g *Guard) say(alarms []string) {
	for _, a := range alarms {
		g.cfg.Logger.Error("guard: alarm", "what", a)
		g.cfg.Alarm(a)
	}
}

// plain is the form in which addresses are compared.
func plain(a netip.Addr) netip.Addr { return a.WithZone("").Unmap() }

// holdable refuses what is not an address of one node: under such a "VIP" the
// guard would cut off address configuration or a group.
func holdable(a netip.Addr) error {
	switch p := plain(a); {
	case !a.IsValid():
		return errors.New("holding an invalid address")
	case p.IsUnspecified(), p.IsMulticast(), p == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("holding %s: it is not the address of one node", a)
	case p.IsLoopback():
		return fmt.Errorf("holding %s: lo is not guarded", a)
	}
	return nil
}

// full explains the error of a map that has no room.
func full(err error, room int, of string) error {
	if errors.Is(err, unix.E2BIG) {
		return fmt.Errorf("there is room for %d %s, and it is used: %w", room, of, err)
	}
	return err
}
