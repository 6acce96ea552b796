package resources

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

const (
	stopTries  = 3               // before a stop counts as failed
	stopPause  = time.Second     // between them
	stuckPause = 5 * time.Second // between further tries
	// maxRecoveries within recoveryWindow: a resource that its monitor finds
	// dead is started again here, but not for ever.
	maxRecoveries  = 3
	recoveryWindow = 10 * time.Minute
)

// group runs one group. Its goroutine alone starts and stops; the rest is
// guarded by mu.
type group struct {
	m      *Manager
	name   string
	logger *slog.Logger
	wake   chan struct{}
	alarms chan *member

	// Only the goroutine touches these.
	epoch   uint64          // under which something runs or is being stopped; 0: nothing
	held    []netip.Addr    // under the guard
	routers []VirtualRouter // under the guard
	holding hold            // how; 0: nothing is held
	current *configuration
	adopted *Entry
	starts  []func() // those permitted that are not over: to be called when they are

	mu     sync.Mutex // guards what follows
	told   bool       // own was called
	want   uint64     // epoch to run under; 0: not to run
	over   uint64     // highest epoch reported stopped: never again
	broken bool       // an operation was cut short: what it left must stop, even if the order is taken back
	cut    bool       // what does not stop is cut off by the guard, whatever the lease says
	next   *configuration
	renew  bool // next is to be applied (nil: the group is gone)
	// changing: that is being done, and what it does not have may still run.
	changing bool
	cancel   context.CancelFunc
	phase    string
	members  []*member
	shown    uint64 // epoch, for status and Env.Epoch
	doing    doing  // the operation under way
}

// member is a resource of a group on this node.
type member struct {
	conf conf.Resource
	res  Resource // nil when it could not be made
	err  error    // why not
	end  context.CancelFunc
	wg   sync.WaitGroup
	left bool // not in the specification any more; here until it has stopped

	record     json.RawMessage // applied; nil: not
	nextMon    time.Time
	recoveries []time.Time

	state string // guarded by group.mu, with failure and since
	fail  error
	since time.Time
}

func newGroup(m *Manager, name string) *group {
	return &group{
		m: m, name: name, logger: m.cfg.Logger.With("group", name),
		wake: make(chan struct{}, 1), alarms: make(chan *member, 16), phase: "idle",
	}
}

func (g *group) configure(c *configuration) {
	g.mu.Lock()
	g.next, g.renew = c, true
	g.mu.Unlock()
	g.nudge()
}

func (g *group) adopt(e Entry) {
	g.mu.Lock()
	g.adopted, g.shown = &e, e.Epoch
	g.mu.Unlock()
}

func (g *group) own(epoch uint64) {
	g.mu.Lock()
	changed := g.want != epoch || !g.told
	g.want, g.told = epoch, true
	if changed && g.cancel != nil {
		g.cancel() // a start or monitor that is under way is not worth finishing
		g.broken = true
	}
	g.mu.Unlock()
	if changed {
		g.nudge()
	}
}

func (g *group) nudge() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

func (g *group) idle() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.phase == "idle" && g.shown == 0
}

// renounce gives an epoch up under which nothing runs here.
func (g *group) renounce(epoch uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.nothingLocked() {
		return false
	}
	g.over = max(g.over, epoch)
	return true
}

func (g *group) ended(epoch uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.nothingLocked() && epoch <= g.over
}

// nothingLocked says whether nothing runs here, and nothing that an earlier daemon left.
func (g *group) nothingLocked() bool { return g.phase == "idle" && g.shown == 0 && g.adopted == nil }

func (g *group) ready() error {
	g.mu.Lock()
	members := slices.Clone(g.members)
	g.mu.Unlock()
	for _, mb := range members {
		if mb.res == nil {
			return mb.err
		}
		if r, ok := mb.res.(Readier); ok {
			if err := r.Ready(); err != nil {
				return err
			}
		}
	}
	return nil
}

// settling says what the group's resources are still waiting for here.
func (g *group) settling() error {
	g.mu.Lock()
	members := slices.Clone(g.members)
	g.mu.Unlock()
	for _, mb := range members {
		if s, ok := mb.res.(Settler); ok {
			if err := s.Settled(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *group) status() GroupStatus {
	g.mu.Lock()
	s := GroupStatus{Name: g.name, Phase: g.phase, Epoch: g.shown}
	members := slices.Clone(g.members)
	for _, mb := range members {
		r := ResourceStatus{Name: mb.conf.Name, Kind: mb.conf.Kind, State: mb.state, Since: mb.since}
		if mb.fail != nil {
			r.Error = mb.fail.Error()
		}
		s.Resources = append(s.Resources, r)
	}
	g.mu.Unlock()
	for i, mb := range members {
		if d, ok := mb.res.(Detailer); ok {
			if b, err := json.Marshal(d.Detail()); err == nil {
				s.Resources[i].Detail = b
			}
		}
	}
	return s
}

// announce is for an active group: one on its way up announces itself at the end.
func (g *group) announce() {
	for _, mb := range g.active() {
		if o, ok := mb.res.(Opener); ok {
			o.Opened()
		}
	}
}

func (g *group) setPhase(p string) {
	g.mu.Lock()
	g.phase, g.shown = p, g.epoch
	g.mu.Unlock()
}

func (g *group) setState(mb *member, state string, err error) {
	g.mu.Lock()
	if mb.state != state {
		mb.since = time.Now()
	}
	mb.state, mb.fail = state, err
	g.mu.Unlock()
}

// run is the group's goroutine.
func (g *group) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	defer g.closeMembers()
	defer g.startsOver()
	for ctx.Err() == nil {
		timer.Reset(g.step(ctx))
		select {
		case <-ctx.Done():
		case <-g.wake:
		case mb := <-g.alarms:
			mb.nextMon = time.Time{} // at once
		case <-timer.C:
		}
	}
}

// step does the next thing there is to do and returns when to look again.
func (g *group) step(ctx context.Context) time.Duration {
	g.reconfigure(ctx)
	g.mu.Lock()
	told, want, over, adopted, broken := g.told, g.want, g.over, g.adopted, g.broken
	begin := told && g.epoch == 0 && want > over && g.current != nil && (adopted == nil || adopted.Epoch == want)
	if begin {
		g.phase, g.shown = "starting", want // in one step with the decision: renounce must not come between
	}
	g.mu.Unlock()
	switch {
	case !told:
		return time.Hour
	case adopted != nil && (want != adopted.Epoch || g.current == nil):
		return g.dropAdopted(ctx, *adopted)
	case g.epoch != 0 && (g.epoch != want || broken):
		return g.stopAll(ctx, "", nil)
	case begin:
		return g.startAll(ctx, want)
	case g.epoch != 0:
		return g.monitor(ctx)
	}
	return time.Hour
}

// operation returns a context that ends when ownership changes.
func (g *group) operation(ctx context.Context, want uint64) (context.Context, context.CancelFunc) {
	octx, cancel := context.WithCancel(ctx)
	g.mu.Lock()
	g.cancel = cancel
	if g.want != want {
		g.broken = true
	}
	if g.broken {
		cancel()
	}
	g.mu.Unlock()
	return octx, func() {
		g.mu.Lock()
		g.cancel = nil
		g.mu.Unlock()
		cancel()
	}
}

// monitor looks at the members whose time has come, and recovers one that has failed.
func (g *group) monitor(ctx context.Context) time.Duration {
	g.mu.Lock()
	want := g.want
	g.mu.Unlock()
	octx, done := g.operation(ctx, want)
	defer done()
	soonest := time.Hour
	for i, mb := range g.members {
		if mb.record == nil || mb.res == nil {
			continue
		}
		if wait := time.Until(mb.nextMon); wait > 0 {
			soonest = min(soonest, wait)
			continue
		}
		mctx, cancel := context.WithTimeout(octx, timeout(mb.conf.MonitorTimeout))
		end := g.begin("monitor of "+mb.conf.Name, timeout(mb.conf.MonitorTimeout))
		err := mb.res.Monitor(mctx)
		end()
		cancel()
		if octx.Err() != nil {
			return 0
		}
		mb.nextMon = time.Now().Add(interval(mb.conf.MonitorInterval))
		if err != nil {
			return g.recover(ctx, octx, i, err)
		}
		soonest = min(soonest, interval(mb.conf.MonitorInterval))
	}
	return soonest
}

// recover stops the members from the last down to the failed one and starts
// them again; what cannot be recovered here is stopped and reported, and moves on.
func (g *group) recover(ctx, octx context.Context, i int, cause error) time.Duration {
	mb := g.members[i]
	g.setState(mb, "failed", cause)
	now := time.Now()
	mb.recoveries = append(slices.DeleteFunc(mb.recoveries, func(t time.Time) bool { return now.Sub(t) > recoveryWindow }), now)
	g.logger.Error("monitor failed", "resource", mb.conf.Name, "err", cause, "recoveries", len(mb.recoveries))
	if len(mb.recoveries) > maxRecoveries || notReady(mb.res) != nil {
		return g.stopAll(ctx, mb.conf.Name, cause)
	}
	if _, err := g.stopMembers(octx, g.members[i:]); err != nil {
		return g.stopAll(ctx, mb.conf.Name, cause)
	}
	if name, err := g.startMembers(octx, g.members); err != nil {
		if octx.Err() != nil {
			return 0 // ownership changed; step stops the group
		}
		return g.stopAll(ctx, name, err)
	}
	g.logger.Info("recovered", "resource", mb.conf.Name)
	return 0
}

func notReady(r Resource) error {
	if rd, ok := r.(Readier); ok {
		return rd.Ready()
	}
	return nil
}

func timeout(d time.Duration) time.Duration {
	if d <= 0 {
		return DefaultTimeout
	}
	return d
}

func interval(d time.Duration) time.Duration {
	if d <= 0 {
		return 10 * time.Second
	}
	return d
}
