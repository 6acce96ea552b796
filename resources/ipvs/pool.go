package ipvs

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/checks"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/notify"
)

// pool is one ldirectord.yaml as a resource. It runs its checks as long as it
// exists and programs the table between Start and Stop: a standby that is
// itself a real server would otherwise loop the packets that it gets.
type pool struct {
	maker *Maker
	env   resources.Env
	log   *slog.Logger
	name  string // of the pool

	// work holds a token: who changes the table has it. A channel, since
	// waiting for it ends with the context.
	work chan struct{}

	wake  chan struct{} // to Run: health or the pool has changed
	alarm chan struct{} // to the runner: the table cannot be put right
	moved chan struct{} // to maintain: maintenancedir, or the servers that it is about, may be others

	subsMu sync.Mutex            // guards subs and warm; held while subscribing
	subs   map[conf.Check]func() // how to cancel each
	warm   bool                  // Run is going on

	hooks *notify.Hooks
	mail  *notify.Mailer
	lines *notify.Lines

	mu       sync.Mutex // guards all below; never held while waiting
	content  conf.Pool
	wide     *conf.IPVS // what the specification says of the kernel as a whole
	watched  map[conf.Check]*watch
	assumed  map[server]bool  // unknown, but found serving in the table at our first start
	kept     map[server]bool  // found in the table with weight 0 then: drained, or there was no quorum
	stood    map[server]bool  // fallbacks that were found standing in for the servers then
	left     map[Key]bool     // services of an earlier daemon's record
	earlier  map[Key]*earlier // those of them that were found in the table then
	orders   map[netip.AddrPort]Order
	files    map[string]bool // names in maintenancedir that are about our servers, and are there
	names    map[string]bool // all that are about them; replaced and never changed
	blind    string          // why maintenancedir is not seen; empty: it is, or there is none
	services map[Key]*service
	written  map[Key]Entry     // what services decided last
	due      map[Key]time.Time // when time alone changes a service
	base     time.Time         // of the start; weights grow in steps counted from it
	pending  []event           // not told yet
	started  bool
	begun    bool         // Start was called before
	owned    map[Key]bool // services that may be in the table because of us; the value: cleanstop
	dirty    map[Key]bool // services whose servers' health has changed since they were programmed
	refused  map[string]error
	repairs  uint64
	repaired time.Time
	failure  error // why the table is not what it ought to be
	intact   bool  // the table was as it ought to be when last looked at, and the pool is still the same
	damaged  bool  // the last look found damage: it was logged
	actual   map[Key]Entry
	read     time.Time // of actual; zero: something has changed since
}

// watch is a check, what was last heard of it, and the services that it is about.
type watch struct {
	health checks.Status
	uses   []Key
}

// watches are the checks of a pool, with what old ones have heard. On and off
// need no checking.
func watches(c conf.Pool, old map[conf.Check]*watch) map[conf.Check]*watch {
	all := map[conf.Check]*watch{}
	for _, v := range c.Virtuals {
		k := KeyOf(v)
		for _, r := range slices.Concat(v.Reals, v.Fallbacks) {
			for c := range checksOf(r) {
				if !asked(c) {
					continue
				}
				w := all[c]
				if w == nil {
					w = &watch{}
					if o := old[c]; o != nil {
						w.health = o.health
					}
					all[c] = w
				}
				if n := len(w.uses); n == 0 || w.uses[n-1] != k {
					w.uses = append(w.uses, k)
				}
			}
		}
	}
	return all
}

// server is a real server of a virtual service.
type server struct {
	service Key
	address netip.AddrPort
}

var (
	_ resources.Resource = (*pool)(nil)
	_ resources.Runner   = (*pool)(nil)
	_ resources.Alarmer  = (*pool)(nil)
	_ resources.Updater  = (*pool)(nil)
	_ resources.Guarded  = (*pool)(nil)
	_ resources.Readier  = (*pool)(nil)
	_ resources.Detailer = (*pool)(nil)
)

func newPool(m *Maker, env resources.Env, name string, content conf.Pool) *pool {
	log := logger(env).With("pool", name)
	return &pool{
		maker: m, env: env, log: log, name: name,
		hooks:   notify.NewHooks(log),
		mail:    notify.NewMailer(notify.MailConfig{Node: env.Node, Logger: log, Send: m.cfg.Mail}),
		lines:   notify.NewLines(log),
		work:    make(chan struct{}, 1),
		wake:    make(chan struct{}, 1),
		alarm:   make(chan struct{}, 1),
		moved:   make(chan struct{}, 1),
		subs:    map[conf.Check]func(){},
		content: content,
		watched: watches(content, nil),
		names:   namesOf(content),
		owned:   map[Key]bool{},
		dirty:   map[Key]bool{},
		refused: map[string]error{},
	}
}

func (p *pool) lock(ctx context.Context) error {
	select {
	case p.work <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("pool %s: waiting for an earlier change of the IPVS table: %w", p.name, ctx.Err())
	}
}

func (p *pool) unlock() { <-p.work }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (p *pool) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("pool %s: %w", p.name, err)
}

func keysOf(c conf.Pool) map[Key]bool {
	keys := make(map[Key]bool, len(c.Virtuals))
	for _, v := range c.Virtuals {
		if k := KeyOf(v); !keys[k] {
			keys[k] = v.CleanStop
		}
	}
	return keys
}

// Record implements resources.Resource.
func (p *pool) Record() (json.RawMessage, error) {
	wide := p.maker.shared.record(p.wishes())
	p.mu.Lock()
	defer p.mu.Unlock()
	keys := maps.Clone(p.owned)
	maps.Copy(keys, keysOf(p.content))
	r := record{Pool: p.name, Services: make([]recordService, 0, len(keys)), Kernel: wide}
	for _, k := range slices.SortedFunc(maps.Keys(keys), Key.compare) {
		r.Services = append(r.Services, recordOf(k, keys[k]))
	}
	return json.Marshal(r)
}

// Ready implements resources.Readier.
func (p *pool) Ready() error { return p.wrap(p.maker.cfg.Table.Ready()) }

// Alarm implements resources.Alarmer.
func (p *pool) Alarm() <-chan struct{} { return p.alarm }

// Addresses implements resources.Guarded. Services by firewall mark have none.
func (p *pool) Addresses() []netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := map[netip.Addr]bool{}
	for k := range keysOf(p.content) {
		if k.Protocol != conf.FWM {
			seen[k.Address.Addr()] = true
		}
	}
	return slices.SortedFunc(maps.Keys(seen), netip.Addr.Compare)
}

// Start implements resources.Resource.
func (p *pool) Start(ctx context.Context) error {
	t := p.maker.cfg.Table
	if err := t.Load(ctx); err != nil {
		return p.wrap(err)
	}
	if err := p.lock(ctx); err != nil {
		return err
	}
	defer p.unlock()

	p.mu.Lock()
	keys := slices.Collect(maps.Keys(keysOf(p.content)))
	p.mu.Unlock()
	if err := p.maker.claim(p, keys); err != nil {
		return err
	}
	p.yield()
	if err := p.assume(ctx, keys); err != nil {
		return p.wrap(err)
	}
	p.shareStart(ctx)

	p.mu.Lock()
	fresh := !p.started
	if fresh {
		p.begin(time.Now())
	}
	p.started, p.intact = true, false
	goesOn := len(p.earlier) > 0
	p.mu.Unlock()
	err := p.program(ctx, everything, "virtual services programmed")
	if err != nil {
		p.shareStop(ctx)
		p.mu.Lock()
		p.started = false
		p.forget()
		p.mu.Unlock()
		return p.wrap(err)
	}
	switch {
	case fresh && goesOn:
		p.log.Info("the pool goes on where an earlier daemon left it")
	case fresh:
		p.announce(starting)
	}
	p.deliver()
	poke(p.wake)
	return nil
}

// begin makes every service new: nothing was decided and nothing told. p.mu is held.
func (p *pool) begin(now time.Time) {
	p.services, p.written, p.due = map[Key]*service{}, map[Key]Entry{}, map[Key]time.Time{}
	p.base, p.pending = now, nil
}

// forget is the end of what begin began. p.mu is held.
func (p *pool) forget() {
	p.services, p.written, p.due, p.pending = nil, nil, nil, nil
}

// assume looks what the table holds when this process starts the pool for the
// first time: a server that serves there, after a restart of the daemon, goes
// on serving until its first check has ended. Later, and on a node that takes
// over, health is known because the checks were running.
func (p *pool) assume(ctx context.Context, keys []Key) error {
	p.mu.Lock()
	begun := p.begun
	fallbacks := map[server]bool{}
	for _, v := range p.content.Virtuals {
		for _, f := range v.Fallbacks {
			fallbacks[server{KeyOf(v), plain(f.Address)}] = true
		}
	}
	p.mu.Unlock()
	if begun {
		return nil
	}
	entries, err := p.maker.cfg.Table.List(ctx, keys)
	if err != nil {
		return err
	}
	assumed, kept, stood := map[server]bool{}, map[server]bool{}, map[server]bool{}
	left := map[Key]*earlier{}
	for _, e := range entries {
		var serving []server
		for _, d := range e.Dests {
			if d.Weight > 0 {
				serving = append(serving, server{e.Service.Key, d.Address})
			} else {
				kept[server{e.Service.Key, d.Address}] = true
			}
		}
		standsIn := len(serving) == 1 && fallbacks[serving[0]]
		left[e.Service.Key] = &earlier{serves: len(serving) > 0, stood: standsIn}
		if standsIn {
			stood[serving[0]] = true // for the servers: no sign of its own health as one of them
			continue
		}
		for _, s := range serving {
			assumed[s] = true
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun, p.assumed, p.kept, p.stood = true, assumed, kept, stood
	maps.DeleteFunc(left, func(k Key, _ *earlier) bool { return !p.left[k] })
	p.earlier, p.left = left, nil
	return nil
}

// Stop implements resources.Resource.
func (p *pool) Stop(ctx context.Context) error {
	if err := p.lock(ctx); err != nil {
		return err
	}
	defer p.unlock()

	p.mu.Lock()
	told := p.started
	p.started = false
	keys := maps.Clone(p.owned)
	maps.Copy(keys, keysOf(p.content))
	ends := p.ends(func(Key) bool { return true })
	p.forget()
	// What was found in the table once says nothing of the next start.
	p.assumed, p.kept, p.stood, p.earlier = nil, nil, nil, nil
	p.pending = ends
	p.mu.Unlock()
	if told {
		p.announce(stopping)
	}
	defer p.deliver()
	var gone []Key
	for k, clean := range keys {
		if clean { // ldirectord(8), cleanstop: otherwise it stays
			gone = append(gone, k)
		}
	}
	if err := remove(ctx, p.maker.cfg.Table, p.maker.notOfOthers(p, gone), p.log); err != nil {
		return p.wrap(err)
	}
	p.mu.Lock()
	clear(p.owned)
	clear(p.dirty)
	clear(p.refused)
	p.failure, p.damaged, p.intact, p.actual = nil, false, false, nil
	p.mu.Unlock()
	p.maker.release(p, nil)
	p.shareStop(ctx)
	return nil
}

// Monitor implements resources.Resource. What somebody has changed in the
// table is put right.
func (p *pool) Monitor(ctx context.Context) error {
	if err := p.lock(ctx); err != nil {
		return err
	}
	defer p.unlock()
	p.mu.Lock()
	started := p.started
	p.mu.Unlock()
	if !started {
		return fmt.Errorf("pool %s: not started", p.name)
	}
	defer p.deliver()
	return p.wrap(p.program(ctx, everything, "virtual services put right"))
}

// Close implements resources.Resource.
func (p *pool) Close() error {
	p.subscribe(off)
	p.maker.leave(p)
	p.maker.release(p, nil)
	return nil
}

// Update implements resources.Updater. Checks that stay are not restarted and
// what stays in the table is not touched.
func (p *pool) Update(ctx context.Context, spec conf.Spec, r conf.Resource) error {
	content, err := find(spec, r)
	if err != nil {
		return err
	}
	if err := p.lock(ctx); err != nil {
		return err
	}
	defer p.unlock()

	p.mu.Lock()
	started := p.started
	p.mu.Unlock()
	if started {
		if err := p.maker.claim(p, slices.Collect(maps.Keys(keysOf(content)))); err != nil {
			return err
		}
	}
	p.mu.Lock()
	stay := keysOf(content)
	p.pending = append(p.pending, p.ends(func(k Key) bool { _, stays := stay[k]; return !stays })...)
	p.content, p.intact = content, false
	p.watched, p.names = watches(content, p.watched), namesOf(content)
	p.mu.Unlock()
	p.shareUpdate(ctx, spec.IPVS)
	p.subscribe(asBefore)
	poke(p.wake) // the interval may be another
	poke(p.moved)
	if !started {
		return nil
	}
	p.announce(reloading)
	defer p.deliver()
	if err := p.program(ctx, everything, "virtual services changed"); err != nil {
		return p.wrap(err)
	}
	p.maker.release(p, keysOf(content))
	return nil
}
