package resources

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// ManagerConfig is what a Manager is given.
type ManagerConfig struct {
	Node     string
	Registry Registry
	Guard    Guard // nil: `guard: off`
	Journal  Journal
	// Report is called when a group has started, stopped or cannot be stopped.
	// It is called from the group's goroutine, must not block, and may lose
	// nothing: the group goes on only when told to.
	Report func(Report)
	// Permit is called before each resource of a group is started, again in a
	// recovery too, and waits until it may be. Without an error done is called, once, when
	// the start is over: the resource answers, or it has stopped or been cut off
	// and will not answer, however its start ended. nil: it always may.
	Permit func(ctx context.Context, group string, r conf.Resource) (done func(), err error)
	// Live says whether this node's lease runs; nil: always.
	Live   func() bool
	Logger *slog.Logger
}

// Outcome is what a report says.
type Outcome uint8

// Outcomes. The zero value is invalid.
const (
	_       Outcome = iota
	Started         // every resource runs
	Stopped         // nothing runs; with Err: because that resource failed
	Stuck           // a stop failed; what is left is under the guard, or not
)

// Report is what became of a group under an epoch.
type Report struct {
	Group    string
	Epoch    uint64
	Outcome  Outcome
	Resource string // that failed
	Err      error
}

// Manager runs the groups of this node: each in a goroutine of its own, so
// that none waits for another.
type Manager struct {
	cfg ManagerConfig
	ctx context.Context
	end context.CancelFunc
	wg  sync.WaitGroup

	holds   holds[netip.Addr]
	routers holds[VirtualRouter]

	mu     sync.Mutex // guards what follows
	groups map[string]*group
	owned  map[string]uint64 // what Own was told last; nil: nothing yet
}

// NewManager returns a manager without groups. Close ends it.
func NewManager(cfg ManagerConfig) *Manager {
	ctx, end := context.WithCancel(context.Background())
	m := &Manager{cfg: cfg, ctx: ctx, end: end, groups: map[string]*group{}}
	if g := cfg.Guard; g != nil {
		m.holds.guard = &kept[netip.Addr]{g.Hold, g.Cut, g.Drop}
		m.routers.guard = &kept[VirtualRouter]{g.HoldRouters, g.CutRouters, g.DropRouters}
	}
	return m
}

// Configure gives the manager the groups of a specification that this node may
// own. A group that is not in it any more stops, reports, and is forgotten.
func (m *Manager) Configure(spec conf.Spec) {
	m.mu.Lock()
	defer m.mu.Unlock()
	named := map[string]bool{}
	for i := range spec.Groups {
		c := spec.Groups[i]
		named[c.Name] = true
		m.groupLocked(c.Name).configure(&configuration{group: c, spec: spec})
	}
	for name, g := range m.groups {
		if !named[name] {
			g.configure(nil)
		}
	}
}

// Recover takes over what the journal says that an earlier daemon started here.
func (m *Manager) Recover() error {
	entries, err := m.cfg.Journal.Read()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range entries {
		m.holds.adopt(e.Group, e.Addresses)
		m.routers.adopt(e.Group, e.Routers)
		m.groupLocked(e.Group).adopt(e)
	}
	return err
}

func (m *Manager) groupLocked(name string) *group {
	g := m.groups[name]
	if g == nil {
		g = newGroup(m, name)
		m.groups[name] = g
		if m.owned != nil {
			g.own(m.owned[name])
		}
		m.wg.Go(func() { g.run(m.ctx) })
	}
	return g
}

// Own says which groups this node owns, and under which epochs. The others
// stop. An epoch that was reported stopped never starts again.
func (m *Manager) Own(epochs map[string]uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.owned = maps.Clone(epochs)
	if m.owned == nil {
		m.owned = map[string]uint64{}
	}
	for name, g := range m.groups {
		g.own(epochs[name])
	}
}

// Adopted returns the epochs under which an earlier daemon started groups that
// have been neither started again nor taken back yet.
func (m *Manager) Adopted() map[string]uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	epochs := map[string]uint64{}
	for name, g := range m.groups {
		if e := g.adoptedEpoch(); e != 0 {
			epochs[name] = e
		}
	}
	return epochs
}

// Leftovers says whether something runs here under an epoch other than these,
// which are those that the log which admits this node assigns to it, and may
// answer once the guard opens: an earlier daemon left it, or this one ran it
// under an incarnation that was revoked. Until it is taken back or cut off the lease must not begin.
func (m *Manager) Leftovers(owned map[string]uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, g := range m.groups {
		if g.leftover(owned[name]) {
			return true
		}
	}
	return false
}

// Renounce gives up an epoch under which nothing runs here, so that it can be
// reported stopped: it never starts again. It returns false when something
// runs; then a Report comes when that has stopped.
func (m *Manager) Renounce(group string, epoch uint64) bool {
	m.mu.Lock()
	g := m.groupLocked(group)
	m.mu.Unlock()
	return g.renounce(epoch)
}

// Over says whether an epoch has ended here: nothing runs under it, and nothing
// ever will, since it was given up or reported stopped.
func (m *Manager) Over(group string, epoch uint64) bool {
	m.mu.Lock()
	g := m.groups[group]
	m.mu.Unlock()
	return g != nil && g.ended(epoch)
}

// Settled says whether a group runs here under an epoch as it was configured
// last: what earlier configurations had beyond that has stopped.
func (m *Manager) Settled(group string, epoch uint64) bool {
	m.mu.Lock()
	g := m.groups[group]
	m.mu.Unlock()
	return g != nil && g.settled(epoch)
}

// Announce has everything that runs here tell the network once more where it is:
// another machine had the same addresses and has dropped them.
func (m *Manager) Announce() {
	m.mu.Lock()
	groups := slices.Collect(maps.Values(m.groups))
	m.mu.Unlock()
	for _, g := range groups {
		g.announce()
	}
}

// Idle says whether nothing runs here.
func (m *Manager) Idle() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, g := range m.groups {
		if !g.idle() {
			return false
		}
	}
	return true
}

// Ready returns, for the groups that could not start here now, why.
func (m *Manager) Ready() map[string]string {
	m.mu.Lock()
	groups := make([]*group, 0, len(m.groups))
	for _, g := range m.groups {
		groups = append(groups, g)
	}
	m.mu.Unlock()
	problems := map[string]string{}
	for _, g := range groups {
		if err := g.ready(); err != nil {
			problems[g.name] = err.Error()
		}
	}
	return problems
}

// Unsettled returns, for the groups that would better start here a little later, why.
func (m *Manager) Unsettled() map[string]string {
	m.mu.Lock()
	groups := slices.Collect(maps.Values(m.groups))
	m.mu.Unlock()
	why := map[string]string{}
	for _, g := range groups {
		if err := g.settling(); err != nil {
			why[g.name] = err.Error()
		}
	}
	return why
}

// Status returns the state of every group here, sorted by name.
func (m *Manager) Status() []GroupStatus {
	m.mu.Lock()
	groups := make([]*group, 0, len(m.groups))
	for _, g := range m.groups {
		groups = append(groups, g)
	}
	m.mu.Unlock()
	var all []GroupStatus
	for _, g := range groups {
		all = append(all, g.status())
	}
	slices.SortFunc(all, func(a, b GroupStatus) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Close ends the goroutines. It stops nothing: what runs is in the journal.
func (m *Manager) Close() {
	m.end()
	m.wg.Wait()
}

// GroupStatus is what runs of a group on this node.
type GroupStatus struct {
	Name      string           `json:"name"`
	Phase     string           `json:"phase"` // idle, starting, active, stopping, stuck
	Epoch     uint64           `json:"epoch,omitempty"`
	Resources []ResourceStatus `json:"resources"`
}

// ResourceStatus is the state of one resource on this node.
type ResourceStatus struct {
	Name  string    `json:"name"`
	Kind  conf.Kind `json:"kind"`
	State string    `json:"state"` // stopped, starting, started, stopping, failed
	Error string    `json:"error,omitempty"`
	Since time.Time `json:"since,omitzero"`
	// Detail is what the resource tells of itself, by its kind.
	Detail json.RawMessage `json:"detail,omitempty"`
}

// Release stops, newest first, whatever the journal says was started here, and
// removes it from the journal. It is for `keepbeat release`, after the daemon
// has died. Everything that can be taken back is; the error names the rest.
func Release(ctx context.Context, j Journal, reg Registry, node string, logger *slog.Logger) error {
	entries, err := j.Read()
	errs := []error{err}
	for _, e := range entries {
		if err := release(ctx, e, reg, node, logger); err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, j.Remove(e.Group))
	}
	return errors.Join(errs...)
}

func release(ctx context.Context, e Entry, reg Registry, node string, logger *slog.Logger) error {
	env := Env{Node: node, Group: e.Group, Logger: logger, Epoch: func() uint64 { return 0 }}
	var errs []error
	for _, a := range slices.Backward(e.Resources) {
		if err := stopApplied(ctx, reg, env, a); err != nil {
			errs = append(errs, fmt.Errorf("group %s: %s: %w", e.Group, a.Name, err))
		}
	}
	return errors.Join(errs...)
}

func stopApplied(ctx context.Context, reg Registry, env Env, a Applied) error {
	maker, ok := reg[a.Kind]
	if !ok {
		return fmt.Errorf("this keepbeat knows no resource of kind %q", a.Kind)
	}
	r, err := maker.Recover(env, a.Record)
	if err != nil {
		return fmt.Errorf("its record in the journal: %w", err)
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(ctx, DefaultTimeout)
	defer cancel()
	return r.Stop(ctx)
}

// DefaultTimeout is for stops whose configuration is gone.
const DefaultTimeout = 20 * time.Second

// configuration is what a group is made from.
type configuration struct {
	group conf.Group
	spec  conf.Spec
}

// sameResource says whether nothing that matters to a resource differs.
func sameResource(a, b conf.Resource, was, is conf.Spec) bool {
	return reflect.DeepEqual(a, b) && reflect.DeepEqual(was.Pools[a.Pool], is.Pools[b.Pool]) &&
		(a.Kind != conf.KindLdirectord || reflect.DeepEqual(was.IPVS, is.IPVS))
}

func addressesOf(rs []*member) []netip.Addr {
	var all []netip.Addr
	for _, m := range rs {
		if g, ok := m.res.(Guarded); ok {
			for _, a := range g.Addresses() {
				if !slices.Contains(all, a) {
					all = append(all, a)
				}
			}
		}
	}
	return all
}

func routersOf(rs []*member) []VirtualRouter {
	var all []VirtualRouter
	for _, m := range rs {
		if a, ok := m.res.(Announcing); ok {
			for _, r := range a.Routers() {
				if !slices.Contains(all, r) {
					all = append(all, r)
				}
			}
		}
	}
	return all
}
