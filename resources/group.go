package resources

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	epoch   uint64       // under which something runs or is being stopped; 0: nothing
	held    []netip.Addr // under the guard
	holding hold         // how; 0: nothing is held
	current *configuration
	adopted *Entry

	mu      sync.Mutex // guards what follows
	told    bool       // own was called
	want    uint64     // epoch to run under; 0: not to run
	over    uint64     // highest epoch reported stopped: never again
	broken  bool       // an operation was cut short: what it left must stop, even if the order is taken back
	cut     bool       // what does not stop is cut off by the guard, whatever the lease says
	next    *configuration
	renew   bool // next is to be applied (nil: the group is gone)
	cancel  context.CancelFunc
	phase   string
	members []*member
	shown   uint64 // epoch, for status and Env.Epoch
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

func (g *group) adoptedEpoch() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.adopted == nil {
		return 0
	}
	return g.adopted.Epoch
}

// leftover says whether something runs here that is neither owned under this epoch nor cut off.
func (g *group) leftover(owned uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shown != 0 && g.shown != owned && !g.cut
}

// renounce gives an epoch up under which nothing runs here.
func (g *group) renounce(epoch uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.phase != "idle" || g.shown != 0 || g.adopted != nil {
		return false
	}
	g.over = max(g.over, epoch)
	return true
}

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

// dropAdopted stops what an earlier daemon left and this node does not own any more.
func (g *group) dropAdopted(ctx context.Context, e Entry) time.Duration {
	g.logger.Info("taking back what an earlier daemon started", "epoch", e.Epoch)
	if err := release(ctx, e, g.m.cfg.Registry, g.m.cfg.Node, g.logger); err != nil {
		if ctx.Err() != nil {
			return 0
		}
		g.logger.Error("what an earlier daemon started cannot be taken back; trying again", "err", err)
		cut := g.cutOff(e.Addresses)
		g.mu.Lock()
		first := g.phase != "stuck"
		g.phase, g.cut = "stuck", cut
		g.mu.Unlock()
		if first {
			g.m.cfg.Report(Report{Group: g.name, Epoch: e.Epoch, Outcome: Stuck, Resource: "what an earlier daemon started", Err: err})
		}
		return stuckPause
	}
	g.mu.Lock()
	stuck := g.phase == "stuck"
	if stuck {
		g.over = max(g.over, e.Epoch)
	}
	g.mu.Unlock()
	g.forgetAdopted(e)
	g.unhold(e.Addresses)
	if err := g.m.cfg.Journal.Remove(g.name); err != nil {
		g.logger.Error("journal", "err", err)
	}
	if stuck { // what was reported so, and may have blocked the group, is over
		g.m.cfg.Report(Report{Group: g.name, Epoch: e.Epoch, Outcome: Stopped})
	}
	return 0
}

// cutOff says whether the guard has cut the addresses off whatever the lease says.
func (g *group) cutOff(addrs []netip.Addr) bool {
	if g.m.cfg.Guard == nil {
		return false
	}
	if err := g.m.holds.set(g.name, cut, addrs); err != nil {
		g.logger.Error("the guard cannot cut the group off", "err", err)
		return false
	}
	return true
}

func (g *group) forgetAdopted(e Entry) {
	g.mu.Lock()
	g.adopted, g.shown, g.phase, g.cut = nil, 0, "idle", false
	g.mu.Unlock()
}

// startAll starts the members in order under an epoch. What an earlier daemon
// started under the same epoch is completed: Start is idempotent.
func (g *group) startAll(ctx context.Context, epoch uint64) time.Duration {
	g.epoch = epoch
	g.setPhase("starting")
	g.mu.Lock()
	fresh := g.adopted == nil
	g.mu.Unlock()
	g.holding = open
	if fresh && manyGuarded(g.members) {
		// The address before its services are there would answer with refusals.
		g.holding = shut
	}
	octx, done := g.operation(ctx, epoch)
	failed, err := g.startMembers(octx, g.members)
	done()
	if ctx.Err() != nil {
		return 0
	}
	if err == nil {
		if err := g.settleAdopted(ctx); err != nil {
			g.logger.Error("what an earlier daemon started and the specification no longer has would not stop", "err", err)
			return g.stopAll(ctx, "", nil)
		}
		g.setPhase("active")
		g.m.cfg.Report(Report{Group: g.name, Epoch: epoch, Outcome: Started})
		return 0
	}
	g.mu.Lock()
	changed := g.want != epoch || g.broken
	g.mu.Unlock()
	if changed {
		return g.stopAll(ctx, "", nil) // not a failure: the group was taken away meanwhile
	}
	g.logger.Error("start failed", "resource", failed, "err", err)
	return g.stopAll(ctx, failed, err)
}

// applied returns what an earlier daemon's record says of a member, nil for none.
func (g *group) applied(mb *member) *Applied {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.adopted == nil {
		return nil
	}
	i := slices.IndexFunc(g.adopted.Resources, func(a Applied) bool { return a.Kind == mb.conf.Kind && a.Name == mb.conf.Name })
	if i < 0 {
		return nil
	}
	return &g.adopted.Resources[i]
}

// adoptInto hands an earlier daemon's record to a member that wants it.
func (g *group) adoptInto(mb *member) error {
	a := g.applied(mb)
	ad, wants := mb.res.(Adopter)
	if a == nil || !wants {
		return nil
	}
	return ad.Adopt(a.Record)
}

// settleAdopted stops what an earlier daemon started under this epoch and the
// specification no longer has, and forgets the rest of its record.
func (g *group) settleAdopted(ctx context.Context) error {
	g.mu.Lock()
	adopted := g.adopted
	g.mu.Unlock()
	if adopted == nil {
		return nil
	}
	for _, a := range slices.Backward(adopted.Resources) {
		if slices.ContainsFunc(g.members, func(mb *member) bool { return mb.conf.Kind == a.Kind && mb.conf.Name == a.Name }) {
			continue
		}
		if err := stopApplied(ctx, g.m.cfg.Registry, g.env(), a); err != nil {
			return fmt.Errorf("%s: %w", a.Name, err)
		}
	}
	g.mu.Lock()
	g.adopted = nil
	g.mu.Unlock()
	return g.journal()
}

// startMembers starts those of ms that are not applied yet, in order. It
// returns the name of the one that failed.
func (g *group) startMembers(ctx context.Context, ms []*member) (string, error) {
	for _, mb := range ms {
		if mb.res == nil {
			return mb.conf.Name, mb.err
		}
	}
	if g.holding == 0 {
		g.holding = open
	}
	if err := g.hold(g.holding); err != nil {
		return "guard", err
	}
	last := lastGuarded(ms)
	for i, mb := range ms {
		if mb.record != nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return mb.conf.Name, err
		}
		if err := g.start(ctx, mb); err != nil {
			g.setState(mb, "failed", err)
			return mb.conf.Name, err
		}
		if g.holding == shut && i == last {
			if err := g.openUp(); err != nil {
				return "guard", err
			}
		}
	}
	return "", nil
}

func (g *group) start(ctx context.Context, mb *member) error {
	ctx, cancel := context.WithTimeout(ctx, timeout(mb.conf.StartTimeout))
	defer cancel()
	g.setState(mb, "starting", nil)
	if err := g.adoptInto(mb); err != nil {
		return fmt.Errorf("what an earlier daemon left of it: %w", err)
	}
	record, err := mb.res.Record()
	if err != nil {
		return err
	}
	mb.record = record
	if record == nil {
		mb.record = json.RawMessage("null")
	}
	if err := g.journal(); err != nil {
		return err
	}
	if err := mb.res.Start(ctx); err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("not started within %v: %w", timeout(mb.conf.StartTimeout), err)
		}
		return err
	}
	mb.nextMon = time.Now().Add(interval(mb.conf.MonitorInterval))
	g.setState(mb, "started", nil)
	return nil
}

// hold puts every address of the group under the guard, before anything starts.
func (g *group) hold(want hold) error {
	addrs := addressesOf(g.members)
	if slices.Equal(addrs, g.held) && g.holding == want {
		return nil
	}
	if err := g.m.holds.set(g.name, want, addrs); err != nil {
		return err
	}
	old := g.held
	g.held, g.holding = addrs, want
	g.unhold(slices.DeleteFunc(slices.Clone(old), func(a netip.Addr) bool { return slices.Contains(addrs, a) }))
	return nil
}

// openUp lets the group answer, now that everything that answers is there.
func (g *group) openUp() error {
	if err := g.hold(open); err != nil {
		return err
	}
	for _, mb := range g.members {
		if o, ok := mb.res.(Opener); ok && mb.record != nil {
			o.Opened()
		}
	}
	return nil
}

func (g *group) unhold(addrs []netip.Addr) {
	if err := g.m.holds.drop(g.name, addrs); err != nil {
		g.logger.Error("the guard does not let addresses go", "err", err)
	}
}

// journal writes what is applied, and what is about to be.
func (g *group) journal(also ...Applied) error {
	e := Entry{Group: g.name, Epoch: g.epoch, Addresses: g.held, Resources: also}
	g.mu.Lock()
	if g.adopted != nil { // until it is started again, or stopped, only the journal knows of it
		for _, a := range g.adopted.Resources {
			if !slices.ContainsFunc(g.members, func(mb *member) bool {
				return mb.record != nil && mb.conf.Kind == a.Kind && mb.conf.Name == a.Name
			}) {
				e.Resources = append(e.Resources, a)
			}
		}
	}
	g.mu.Unlock()
	for _, mb := range g.members {
		if mb.record != nil {
			e.Resources = append(e.Resources, Applied{mb.conf.Kind, mb.conf.Name, mb.record})
		}
	}
	return g.m.cfg.Journal.Write(e)
}

// stopAll stops what runs, in reverse, and reports; failed and cause say why when it is not an order.
func (g *group) stopAll(ctx context.Context, failed string, cause error) time.Duration {
	g.setPhase("stopping")
	g.mu.Lock()
	adopted := g.adopted
	g.mu.Unlock()
	if adopted != nil { // the order to stop came before all of it was started again
		for _, mb := range g.members {
			if a := g.applied(mb); a != nil && mb.record == nil {
				if err := g.adoptInto(mb); err != nil {
					g.logger.Error("what an earlier daemon left", "resource", mb.conf.Name, "err", err)
				}
				mb.record = a.Record
			}
		}
	}
	if len(g.held) > 0 && manyGuarded(g.members) {
		if err := g.m.holds.set(g.name, shut, g.held); err != nil {
			g.logger.Warn("the group may refuse connections while it stops", "err", err)
		}
	}
	for try := 1; ; try++ {
		name, err := g.stopMembers(ctx, g.members)
		if err == nil {
			if err = g.settleAdopted(ctx); err == nil {
				break
			}
			name = "what an earlier daemon started"
		}
		if ctx.Err() != nil {
			return 0
		}
		if try == stopTries {
			g.stuck(name, err)
		}
		pause := stopPause
		if try >= stopTries {
			pause = stuckPause
		}
		select {
		case <-ctx.Done():
			return 0
		case <-time.After(pause):
		}
	}
	epoch := g.epoch
	g.epoch = 0
	g.mu.Lock()
	g.over = max(g.over, epoch)
	g.broken, g.cut = false, false
	members := slices.DeleteFunc(slices.Clone(g.members), func(mb *member) bool { return mb.left })
	left := g.members
	g.members = members
	g.mu.Unlock()
	for _, mb := range left {
		if mb.left {
			g.close(mb)
		}
	}
	held := g.held
	g.held, g.holding = nil, 0
	g.m.cfg.Report(Report{Group: g.name, Epoch: epoch, Outcome: Stopped, Resource: failed, Err: cause})
	g.unhold(held)
	if err := g.m.cfg.Journal.Remove(g.name); err != nil {
		g.logger.Error("journal", "err", err)
	}
	g.setPhase("idle")
	return 0
}

// stuck reports a stop that failed. If the guard can cut the whole group off,
// whatever the lease says, the group may move all the same.
func (g *group) stuck(name string, err error) {
	g.setPhase("stuck")
	g.logger.Error("stop failed", "resource", name, "err", err)
	r := Report{Group: g.name, Epoch: g.epoch, Outcome: Stuck, Resource: name, Err: err}
	harmless := true
	for _, mb := range g.members {
		harmless = harmless && (mb.conf.Class == conf.Guarded || mb.conf.Class == conf.Shared)
	}
	if harmless && g.cutOff(g.held) {
		g.mu.Lock()
		g.over, g.cut = max(g.over, g.epoch), true
		g.mu.Unlock()
		r.Outcome = Stopped
	}
	g.m.cfg.Report(r)
}

func (g *group) stopMembers(ctx context.Context, ms []*member) (string, error) {
	for _, mb := range slices.Backward(ms) {
		if mb.record == nil {
			continue
		}
		if err := g.stop(ctx, mb); err != nil {
			g.setState(mb, "failed", err)
			return mb.conf.Name, err
		}
	}
	return "", nil
}

func (g *group) stop(ctx context.Context, mb *member) error {
	ctx, cancel := context.WithTimeout(ctx, timeout(mb.conf.StopTimeout))
	defer cancel()
	g.setState(mb, "stopping", nil)
	if mb.res == nil {
		env := g.env()
		if err := stopApplied(ctx, g.m.cfg.Registry, env, Applied{mb.conf.Kind, mb.conf.Name, mb.record}); err != nil {
			return err
		}
	} else if err := mb.res.Stop(ctx); err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("not stopped within %v: %w", timeout(mb.conf.StopTimeout), err)
		}
		return err
	}
	mb.record = nil
	g.setState(mb, "stopped", nil)
	return nil
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
		err := mb.res.Monitor(mctx)
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
