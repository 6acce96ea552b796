package ipvs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// shared is what the pools of this node have in common: the kernel's settings,
// which are set while a pool is started, and the sync daemons, which run while there are pools.
//
// Nothing of it ever fails a pool: what cannot be had is trouble in status.
type shared struct {
	node Node // nil: the table is not a kernel's

	work chan struct{} // holds a token: who changes settings and daemons has it

	mu      sync.Mutex // guards all below; never held while waiting
	conf    *conf.IPVS // of the newest specification that a pool has
	pools   map[*pool]sharer
	changed map[string]change
	ours    []Daemon
	device  int               // number of the interface of ours; 0: not known
	since   time.Time         // when the backup daemon was first seen running; zero: it is not
	trouble map[string]string // by setting, or "sync"
	looked  time.Time
}

// sharer is what shared knows of a pool.
type sharer struct {
	runs, started bool
	templates     bool // has a service that is persistent
}

func newShared(t Table) *shared {
	node, _ := t.(Node)
	return &shared{
		node: node, work: make(chan struct{}, 1), pools: map[*pool]sharer{},
		changed: map[string]change{}, trouble: map[string]string{},
	}
}

func templates(c conf.Pool) bool {
	return slices.ContainsFunc(c.Virtuals, func(v conf.Virtual) bool { return v.Persistent > 0 })
}

// put notes what a pool is now.
func (s *shared) put(p *pool, f func(*sharer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.pools[p]
	f(&m)
	if s.pools[p] = m; !m.runs && !m.started {
		delete(s.pools, p)
	}
	s.looked = time.Time{}
}

// specify notes the settings of the newest specification.
func (s *shared) specify(c *conf.IPVS) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conf, s.looked = c, time.Time{}
}

// wanted is what settings and daemons ought to be. s.mu is held.
func (s *shared) wanted() (settings map[string]string, daemons []Daemon) {
	var started, idle, quiescent bool
	for _, m := range s.pools {
		started = started || m.started
		idle = idle || !m.started
		quiescent = quiescent || m.started && m.templates
	}
	if started {
		settings = wantedSettings(s.conf, quiescent)
	}
	return settings, wantedDaemons(s.conf, started, idle)
}

// How long a change of settings and daemons may take, and how often they are
// looked at while nothing has changed.
const (
	sharedWait = 5 * time.Second
	sharedAge  = 5 * time.Second
)

// lock waits for the token, a while. false: somebody else has it and does the
// same; what came too late for that is seen at the next look.
func (s *shared) lock(ctx context.Context) bool {
	select {
	case s.work <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// tend makes settings and daemons what they ought to be, if that was not looked at lately.
func (s *shared) tend(ctx context.Context, log *slog.Logger) {
	if s.node == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, sharedWait)
	defer cancel()
	if !s.lock(ctx) {
		return
	}
	defer func() { <-s.work }()
	s.mu.Lock()
	fresh := time.Since(s.looked) < sharedAge
	_, daemons := s.wanted()
	ours := slices.Clone(s.ours)
	if !fresh {
		s.looked = time.Now()
	}
	s.mu.Unlock()
	if fresh {
		return
	}
	s.tuneAll(ctx, log)
	var err error
	if len(daemons) > 0 || len(ours) > 0 {
		err = s.daemons(ctx, log, daemons, ours)
	}
	s.report(log, "sync", err)
}

// tune makes the settings what they ought to be: a start has the time for
// that, and leaves the daemons to tend.
func (s *shared) tune(ctx context.Context, log *slog.Logger) {
	if s.node == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, sharedWait)
	defer cancel()
	if s.lock(ctx) {
		s.tuneAll(ctx, log)
		<-s.work
	}
}

func (s *shared) tuneAll(ctx context.Context, log *slog.Logger) {
	s.mu.Lock()
	settings, _ := s.wanted()
	changed := maps.Clone(s.changed)
	s.mu.Unlock()
	for _, name := range sortedNames(asChanges(settings), changed) {
		value, want := settings[name]
		s.tuneOne(ctx, log, name, value, want)
	}
}

func asChanges(settings map[string]string) map[string]change {
	m := make(map[string]change, len(settings))
	for name, value := range settings {
		m[name] = change{Set: value}
	}
	return m
}

// tuneOne sets one setting, or puts it back.
func (s *shared) tuneOne(ctx context.Context, log *slog.Logger, name, value string, want bool) {
	s.mu.Lock()
	was, had := s.changed[name]
	s.mu.Unlock()
	now, err := s.node.Setting(ctx, name)
	switch {
	case err != nil:
	case want:
		if !had {
			was.Found = now
		}
		was.Set = value
		if now != value {
			if err = s.node.Set(ctx, name, value); err == nil {
				log.Info("a setting of the kernel's IPVS was changed", "name", name, "from", now, "to", value)
			}
		}
	case now != was.Set:
		log.Warn("a setting of the kernel's IPVS was changed by somebody else; it is left as it is", "name", name, "value", now, "before", was.Found)
	case now != was.Found:
		if err = s.node.Set(ctx, name, was.Found); err == nil {
			log.Info("a setting of the kernel's IPVS was put back", "name", name, "to", was.Found)
		}
	}
	s.mu.Lock()
	switch {
	case err == nil && want:
		s.changed[name] = was
	case err == nil:
		delete(s.changed, name)
	}
	s.mu.Unlock()
	s.report(log, name, err)
}

// daemons starts and stops what has to be.
func (s *shared) daemons(ctx context.Context, log *slog.Logger, wanted, ours []Daemon) error {
	actual, err := s.node.Daemons(ctx)
	if errors.Is(err, ErrNoIPVS) {
		return nil // Ready and Start say it
	}
	if err != nil {
		return err
	}
	device, err := s.find(wanted)
	s.mu.Lock()
	deaf := device != 0 && s.device != 0 && device != s.device
	s.mu.Unlock()
	plan := planDaemons(wanted, actual, ours, deaf)
	var errs []error
	if err != nil {
		errs, plan.Start = append(errs, err), nil
	}
	for _, d := range plan.Alien {
		errs = append(errs, fmt.Errorf("somebody else's sync daemon runs here: %s; stop it (ipvsadm --stop-daemon %s), or give `sync:` its values", d, d.State))
	}
	running := slices.DeleteFunc(slices.Clone(wanted), func(d Daemon) bool { return !slices.ContainsFunc(actual, d.same) || slices.Contains(plan.Start, d) })
	left := running
	for _, state := range plan.Stop {
		if err := s.node.StopDaemon(ctx, state); err != nil {
			errs = append(errs, err)
			if i := slices.IndexFunc(ours, func(d Daemon) bool { return d.State == state }); i >= 0 {
				left = append(left, ours[i])
			}
			continue
		}
		log.Info("sync daemon stopped", "state", state.String())
	}
	for _, d := range plan.Start {
		if err := s.node.StartDaemon(ctx, d); err != nil {
			errs = append(errs, err)
			continue
		}
		log.Info("sync daemon started", "daemon", d.String())
		running, left = append(running, d), append(left, d)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ours = left
	if device != 0 || len(left) == 0 {
		s.device = device
	}
	switch receives := slices.ContainsFunc(running, func(d Daemon) bool { return d.State == Backup }); {
	case !receives:
		s.since = time.Time{}
	case s.since.IsZero() || slices.ContainsFunc(plan.Start, func(d Daemon) bool { return d.State == Backup }):
		s.since = time.Now()
	}
	return errors.Join(errs...)
}

// find looks for the interface of the daemons. One that is taken out and put
// back has another number: the daemons of the old one run on, and hear and reach nobody.
func (s *shared) find(wanted []Daemon) (int, error) {
	if len(wanted) == 0 {
		return 0, nil
	}
	n, err := s.node.Interface(wanted[0].Interface)
	if err != nil {
		return 0, fmt.Errorf("connections are not synchronised: %w", err)
	}
	return n, nil
}

// report notes trouble, and says it once.
func (s *shared) report(log *slog.Logger, about string, err error) {
	s.mu.Lock()
	old, text := s.trouble[about], ""
	if err != nil {
		text = err.Error()
		s.trouble[about] = text
	} else {
		delete(s.trouble, about)
	}
	s.mu.Unlock()
	if err != nil && text != old {
		log.Error("what the pools share in the kernel is not as it ought to be", "about", about, "err", err)
	}
}

// record is what the journal has to know before a pool is started: what its
// start will change, and what was changed before. It changes nothing.
func (s *shared) record(c *conf.IPVS, quiescent bool) *sharedRecord {
	if s.node == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), sharedWait)
	defer cancel()
	s.mu.Lock()
	r := sharedRecord{Settings: maps.Clone(s.changed), Daemons: wantedDaemons(c, true, true)}
	s.mu.Unlock()
	for name, value := range wantedSettings(c, quiescent) {
		was, had := r.Settings[name]
		if !had {
			now, err := s.node.Setting(ctx, name)
			if err != nil {
				continue // then it cannot be set either; tend says so
			}
			was.Found = now
		}
		was.Set = value
		r.Settings[name] = was
	}
	if len(r.Settings) == 0 && len(r.Daemons) == 0 {
		return nil
	}
	return &r
}

// adopt takes over what an earlier daemon noted.
func (s *shared) adopt(r *sharedRecord) {
	if r == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	merge(s.changed, r.Settings)
	for _, d := range r.Daemons {
		if !slices.ContainsFunc(s.ours, func(o Daemon) bool { return o.State == d.State }) {
			s.ours = append(s.ours, d)
		}
	}
	s.looked = time.Time{}
}

func (r *sharedRecord) check() error {
	if r == nil {
		return nil
	}
	for name := range r.Settings {
		if !known(name) {
			return fmt.Errorf("%q is no setting of IPVS that keepbeat changes", name)
		}
	}
	for _, d := range r.Daemons {
		if d.State != Master && d.State != Backup {
			return fmt.Errorf("a sync daemon in state %d", d.State)
		}
	}
	return nil
}

// SharedDetail is what status shows of what all pools of a node share.
type SharedDetail struct {
	Settings map[string]string `json:"settings,omitempty"` // of the kernel, that are set while a pool is started
	Sync     []string          `json:"sync,omitempty"`     // the sync daemons that run: "master on eth1, id 7, 224.0.0.81:8848"
	Trouble  []string          `json:"trouble,omitempty"`
}

// detail returns nil when there is nothing to tell.
func (s *shared) detail() *SharedDetail {
	s.mu.Lock()
	defer s.mu.Unlock()
	var d SharedDetail
	for name, c := range s.changed {
		if d.Settings == nil {
			d.Settings = map[string]string{}
		}
		d.Settings[name] = c.Set
	}
	for _, o := range s.ours {
		d.Sync = append(d.Sync, o.String())
	}
	for _, about := range sortedNames(s.trouble) {
		d.Trouble = append(d.Trouble, s.trouble[about])
	}
	if d.Settings == nil && d.Sync == nil && d.Trouble == nil {
		return nil
	}
	return &d
}

// settleTime is how long a backup daemon has to run until it has heard of
// every connection that carries packets: the refresh period, two seconds for
// which the sender collects, and some more.
const settleTime = refreshPeriod + 5*time.Second

var errUnsettled = errors.New("the connections of the present owner are still being received")

// settled tells whether a pool can come here without losing connections, as
// far as this node knows.
func (s *shared) settled(p *pool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.node == nil, s.conf == nil, s.conf.Sync == nil, s.pools[p].started:
		return nil
	case s.trouble["sync"] != "":
		return nil // they will not come however long one waits
	case s.since.IsZero() || time.Since(s.since) < settleTime:
		return errUnsettled
	}
	return nil
}

func (s *shared) anyStarted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.pools {
		if m.started {
			return true
		}
	}
	return false
}
