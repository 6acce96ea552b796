// Package site runs what vrrp.yaml has on this machine: virtual routers, what
// they depend on, the programs and mails that tell of them, and pools.
package site

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/notify"
	"github.com/keepbeat/keepbeat/resources/solo"
	"github.com/keepbeat/keepbeat/resources/vrrp"
	"github.com/keepbeat/keepbeat/resources/vrrp/netdev"
	"github.com/keepbeat/keepbeat/resources/vrrp/tell"
	"github.com/keepbeat/keepbeat/resources/vrrp/track"
)

// stopPools is how long pools have to stop; what has not stopped then is in the
// journal, for the next start.
const stopPools = 30 * time.Second

// Config is what a Site is given.
type Config struct {
	Node     string             // name of this machine, in mails
	RunDir   string             // journals are below it
	Registry resources.Registry // that pools are made by
	Logger   *slog.Logger
}

// Site is what runs. Run it once.
type Site struct {
	cfg     Config
	host    *netdev.Host
	alarm   *netdev.Alarm
	router  *vrrp.Router
	tracker *track.Tracker
	teller  *tell.Teller
	mailer  *notify.Mailer
	pools   *solo.Runner

	updating sync.Mutex // held by Update, before mu: what runs is of one file; guards ended
	ended    bool

	mu      sync.Mutex // guards the rest
	v       *conf.VRRP
	notify  map[subject]*conf.VRRPNotify
	leaving map[subject]*conf.VRRPNotify // of what an Update has taken out, until it is told of its end
	master  map[string]bool              // by instance
}

// subject is what changes are told of.
type subject struct {
	group bool
	name  string
}

// PoolJournal is where it stands which pools run.
func PoolJournal(runDir string) resources.Journal {
	return resources.Journal{Dir: filepath.Join(runDir, "vrrp-pools")}
}

// Release takes back what virtual routers of a daemon that died have left in the kernel.
func Release(runDir string, logger *slog.Logger) error {
	host, err := netdev.New(netdev.Config{Logger: logger, RunDir: runDir})
	if err != nil {
		return err
	}
	return host.Close()
}

// New takes back what an earlier run has left in the kernel, and starts nothing.
func New(cfg Config, v *conf.VRRP) (*Site, error) {
	host, err := netdev.New(netdev.Config{Logger: cfg.Logger, RunDir: cfg.RunDir})
	if err != nil {
		return nil, err
	}
	alarm, err := netdev.NewAlarm()
	if err != nil {
		return nil, errors.Join(err, host.Close())
	}
	pools, err := solo.New(solo.Config{
		Node: cfg.Node, Registry: cfg.Registry, Journal: PoolJournal(cfg.RunDir), Logger: cfg.Logger,
	})
	if err != nil {
		return nil, errors.Join(err, alarm.Close(), host.Close())
	}
	s := &Site{cfg: cfg, host: host, alarm: alarm, pools: pools, v: v, leaving: map[subject]*conf.VRRPNotify{}, master: map[string]bool{}}
	name := cfg.Node
	if v.RouterID != "" {
		name = v.RouterID
	}
	s.mailer = notify.NewMailer(notify.MailConfig{Node: name, Logger: cfg.Logger})
	s.router = vrrp.NewRouter(vrrp.Config{Host: host, Logger: cfg.Logger, Event: s.event, Alarm: s.alarm})
	s.tracker = track.New(track.Config{Report: s.router.SetTracked, Run: run, Logger: cfg.Logger})
	s.teller = tell.New(tell.Config{Run: run, Mail: s.mail, Logger: cfg.Logger})
	return s, nil
}

// Run runs until ctx ends. Then masters say that they leave, addresses and
// pools are taken back, and notify_stop has been run when it returns.
func (s *Site) Run(ctx context.Context) error {
	last, end := context.WithCancel(context.WithoutCancel(ctx))
	var mails sync.WaitGroup
	mails.Go(func() { s.mailer.Run(last) })
	s.updating.Lock()
	s.mu.Lock()
	v := s.v // an Update may have been before
	s.mu.Unlock()
	s.updateLocked(v)
	s.updating.Unlock()
	err := s.router.Run(ctx)
	s.updating.Lock()
	s.ended = true // a reload that comes now begins nothing
	s.updating.Unlock()
	s.tracker.Close()
	stop, cancel := context.WithTimeout(last, stopPools)
	err = errors.Join(err, s.pools.Stop(stop))
	cancel()
	s.teller.Close()
	end()
	mails.Wait()
	return errors.Join(err, s.alarm.Close(), s.host.Close())
}

// Update makes v what runs; what is as it was goes on undisturbed. When Run has
// ended it does nothing.
func (s *Site) Update(v *conf.VRRP) {
	s.updating.Lock()
	defer s.updating.Unlock()
	if !s.ended {
		s.updateLocked(v)
	}
}

func (s *Site) updateLocked(v *conf.VRRP) {
	s.learn(v)
	s.router.Update(*v)
	s.tracker.Watch(v)
	s.pools.Configure(specOf(v))
	s.wantPools()
}

// learn takes over who is told of what.
func (s *Site) learn(v *conf.VRRP) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.notify
	s.v = v
	s.notify = map[subject]*conf.VRRPNotify{}
	for i := range v.Instances {
		s.notify[subject{false, v.Instances[i].Name}] = &v.Instances[i].Notify
	}
	for i := range v.SyncGroups {
		s.notify[subject{true, v.SyncGroups[i].Name}] = &v.SyncGroups[i].Notify
	}
	for name := range s.master {
		if s.notify[subject{false, name}] == nil {
			delete(s.master, name)
		}
	}
	for sub, n := range before {
		if s.notify[sub] == nil {
			s.leaving[sub] = n
		}
	}
	for sub := range s.notify {
		delete(s.leaving, sub)
	}
}

// Ended says that Run has ended, or is about to.
func (s *Site) Ended() bool {
	s.updating.Lock()
	defer s.updating.Unlock()
	return s.ended
}

// Leave stops all virtual routers: masters say so, and others take over at once.
// It returns when what they had is gone from the kernel and their notify programs
// have ended, or when ctx ends, with what was missing then.
func (s *Site) Leave(ctx context.Context) error {
	s.Update(&conf.VRRP{})
	select {
	case <-s.router.Cleared():
	case <-ctx.Done():
		return errors.New("virtual routers have not given back their addresses")
	}
	if !s.teller.Idle(ctx) {
		return errors.New("notify programs of virtual routers have not ended")
	}
	return nil
}

// specOf puts each pool into a group of its own.
func specOf(v *conf.VRRP) conf.Spec {
	spec := conf.Spec{Pools: map[string]conf.Pool{}}
	for _, p := range v.Pools {
		r := conf.DefaultResource(conf.KindLdirectord)
		r.Name, r.Pool = "ldirectord "+p.File, p.File
		spec.Pools[p.File] = p.Pool
		spec.Groups = append(spec.Groups, conf.Group{Name: p.File, Resources: []conf.Resource{r}})
	}
	return spec
}

func (s *Site) wantPools() {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := map[string]bool{}
	for _, p := range s.v.Pools {
		if p.Instance == "" || s.master[p.Instance] {
			wanted[p.File] = true
		}
	}
	s.pools.Want(wanted)
}

// event hears from the router what an instance or a group has become.
func (s *Site) event(e vrrp.Event) {
	c := tell.Change{Group: e.Group, Name: e.Name, State: e.State.String(), Priority: e.Priority}
	if e.State == vrrp.Initialize {
		c.State = "STOP"
	}
	s.mu.Lock()
	sub := subject{e.Group, e.Name}
	n := s.notify[sub]
	if n == nil {
		n = s.leaving[sub]
	}
	if e.State == vrrp.Initialize {
		delete(s.leaving, sub)
	}
	tied := !e.Group && s.master[e.Name] != (e.State == vrrp.Master)
	if tied {
		s.master[e.Name] = e.State == vrrp.Master
	}
	s.mu.Unlock()
	if n != nil {
		s.teller.Tell(n, c)
	}
	if tied {
		s.wantPools()
	}
}

func (s *Site) mail(line string) {
	s.mu.Lock()
	to := s.v.Email
	s.mu.Unlock()
	if to.To == "" {
		s.cfg.Logger.Debug("no mail is sent: notification_email names nobody", "line", line)
		return
	}
	s.mailer.Add(to, line)
}

// Status is what runs.
type Status struct {
	vrrp.Status
	Pools   []resources.GroupStatus `json:"pools,omitempty"`
	Trouble []string                `json:"trouble,omitempty"`
}

// Status returns what is known now.
func (s *Site) Status() Status {
	st := Status{Status: s.router.Status(), Pools: s.pools.Status()}
	st.Trouble = poolTroubles(st.Pools, s.pools.Failed())
	for name, why := range s.tracker.Trouble() {
		st.Trouble = append(st.Trouble, fmt.Sprintf("vrrp_script %s was not run to its end, which counts as a failure: %s", name, why))
	}
	slices.Sort(st.Trouble)
	interval := map[string]time.Duration{}
	s.mu.Lock()
	for i := range s.v.Instances {
		interval[s.v.Instances[i].Name] = s.v.Instances[i].Interval
	}
	s.mu.Unlock()
	st.Trouble = append(st.Trouble, troubles(st.Instances, interval, time.Now())...)
	return st
}
