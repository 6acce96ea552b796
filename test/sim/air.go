package sim

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/vrrp"
	"github.com/keepbeat/keepbeat/resources/vrrp/announce"
)

// air is where VRRP advertisements of the machines go, and of a foreign router.
// The announcers are the real ones; they are on it whatever the heartbeat links do.
type air struct {
	w *world

	mu        sync.Mutex // guards the rest; taken after world.tables
	ends      []*endpoint
	last      map[uint8]spoken // by VRID
	routers   []*foreignRouter // that are masters now
	audible   time.Time        // when somebody was sent something by a foreign router
	requested bool             // the log has accepted a request to fence it
	done      time.Time        // when the log first had that it was fenced
	fenced    int              // how often the device was asked to
}

// spoken is an advertisement of a machine that got out.
type spoken struct {
	by string
	at time.Time
}

// foreignRouter is master of a group's VRID, or somebody says so in its name.
type foreignRouter struct {
	vrid   uint8
	heard  []string // by whom; empty: by everybody
	forged bool     // fencing does not end it
	off    bool     // it was fenced
}

// router9 is the foreign router's name, as the files have it, and its address.
const router9 = "router9"

var router9Address = netip.MustParseAddr("10.1.0.99")

// foreignPriority is more than that of any announcer here.
const foreignPriority = 255

// advertEvery is advert_int.
const advertEvery = time.Second

// staleAfter is how old what was heard of a router may be when a device is asked
// to fence it: as long as a backup would wait, and the owner may take to say so.
const staleAfter = 4*advertEvery + 3*time.Second

func newAir(w *world) *air { return &air{w: w, last: map[uint8]spoken{}} }

// routerOf is what the guard's stand-in calls a VRID.
func routerOf(vrid uint8) netip.Addr { return netip.AddrFrom4([4]byte{12, 0, 0, vrid}) }

func routersOf(rs []resources.VirtualRouter) []netip.Addr {
	var all []netip.Addr
	for _, r := range rs {
		all = append(all, routerOf(r.ID))
	}
	return all
}

// announcer is the resource that announces group i.
func (w *world) announcer(i int) conf.Resource {
	a := &conf.Announcer{OnConflict: w.cfg.OnConflict, Instance: conf.VRRPInstance{
		Name: "vrrp", Version: 2, VRID: uint8(i + 1), Priority: 254, Interface: "eth0", Interval: advertEvery, DownAdverts: 3,
		Group: netip.MustParseAddr("224.0.0.18"), LowerAdvert: true, Accept: true,
		Addresses: []conf.VRRPAddress{{Address: netip.PrefixFrom(w.address(i), 24)}},
	}}
	if a.OnConflict == conf.ConflictFence {
		a.Foreign = router9
	}
	return conf.Resource{Kind: conf.KindVRRP, Name: "vrrp " + w.address(i).String(), Class: conf.Guarded, VRRP: a, MonitorInterval: time.Second}
}

// airHost is the air as one daemon reaches it.
type airHost struct {
	m *machine
	g *gate
}

var _ announce.Host = airHost{}

func (h airHost) Now() time.Time { return time.Now() }
func (h airHost) Close() error   { return nil }

// Open implements vrrp.AnnouncerHost.
func (h airHost) Open(i *conf.VRRPInstance, receive func(vrrp.Packet)) (vrrp.Endpoint, error) {
	a := h.m.w.air
	e := &endpoint{air: a, m: h.m, g: h.g, vrid: i.VRID, in: make(chan vrrp.Packet, 64), closed: make(chan struct{})}
	e.ended.Go(func() { e.run(receive) })
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ends = append(a.ends, e)
	return e, nil
}

type endpoint struct {
	air    *air
	m      *machine
	g      *gate
	vrid   uint8
	in     chan vrrp.Packet
	closed chan struct{}
	ended  sync.WaitGroup
}

// run hands over what arrives; a daemon that is stopped gets it when it goes on.
func (e *endpoint) run(receive func(vrrp.Packet)) {
	for {
		var p vrrp.Packet
		select {
		case p = <-e.in:
		case <-e.closed:
			return
		}
		for !e.g.open() {
			select {
			case <-e.g.turn():
			case <-e.closed:
				return
			}
		}
		receive(p)
	}
}

// Local implements vrrp.Endpoint.
func (e *endpoint) Local() netip.Addr {
	return netip.AddrFrom4([4]byte{10, 1, 0, byte(1 + slices.Index(e.m.w.machines, e.m))})
}

// Close implements vrrp.Endpoint.
func (e *endpoint) Close() error {
	e.air.mu.Lock()
	e.air.ends = slices.DeleteFunc(e.air.ends, func(o *endpoint) bool { return o == e })
	e.air.mu.Unlock()
	close(e.closed)
	e.ended.Wait()
	return nil
}

// Send implements vrrp.Endpoint.
func (e *endpoint) Send(message []byte, to netip.Addr) error {
	message = slices.Clone(message)
	return e.g.send(func() error {
		e.air.announced(e, message, to)
		return nil
	})
}

// announced lets an advertisement out, if the guard does, and judges it.
func (a *air) announced(e *endpoint, message []byte, to netip.Addr) {
	w := a.w
	w.tables.Lock()
	defer w.tables.Unlock()
	k := e.m.kernel
	if !k.passes(routerOf(e.vrid)) {
		return
	}
	if k.clock.Now() >= k.deadline {
		w.violate("%s announces VRID %d without a lease", e.m.name, e.vrid)
	}
	for _, o := range w.machines {
		// Where the rule allows two owners, that was judged when the second began to answer.
		if o != e.m && w.rule() != conf.QuorumPing && w.rule() != conf.QuorumUnsafe && o.kernel.answers(w.address(int(e.vrid)-1)) {
			w.violate("%s announces VRID %d while %s answers for its address", e.m.name, e.vrid, o.name)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last[e.vrid] = spoken{e.m.name, time.Now()}
	a.deliver(vrrp.Packet{Payload: message, From: e.Local(), To: to, TTL: 255}, e.vrid, func(m *machine) bool { return m != e.m })
}

// deliver needs a.mu. It returns whether anybody was sent the packet.
func (a *air) deliver(p vrrp.Packet, vrid uint8, whom func(*machine) bool) (sent bool) {
	for _, e := range a.ends {
		if e.vrid != vrid || !whom(e.m) {
			continue
		}
		select {
		case e.in <- p:
			sent = true
		default: // as a socket whose buffer is full
		}
	}
	return sent
}

// speak sends one advertisement of a foreign router.
func (a *air) speak(f *foreignRouter) {
	i := &a.w.announcer(int(f.vrid) - 1).VRRP.Instance
	message := vrrp.Encode(i, foreignPriority)
	vrrp.Seal(message, i, router9Address, i.Group)
	a.mu.Lock()
	defer a.mu.Unlock()
	if f.off {
		return
	}
	if a.deliver(vrrp.Packet{Payload: message, From: router9Address, To: i.Group, TTL: 255}, f.vrid, func(m *machine) bool {
		return len(f.heard) == 0 || slices.Contains(f.heard, m.name)
	}) {
		a.audible = time.Now()
	}
}

// ordered judges that a daemon asks the device to fence the foreign router.
func (a *air) ordered(by *machine) {
	w := a.w
	w.tables.Lock()
	lives := by.kernel.clock.Now() < by.kernel.deadline
	w.tables.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fenced++
	w.note("    %s has %s fenced", by.name, router9)
	switch silent := time.Since(a.audible); {
	case !a.requested:
		w.violate("%s has %s fenced, and nobody has asked for that in the log", by.name, router9)
	case !lives:
		w.violate("%s has %s fenced and has no lease", by.name, router9)
	case silent > staleAfter:
		w.violate("%s has %s fenced %v after it was heard last", by.name, router9, silent)
	case w.rule() == conf.QuorumMajority && !a.done.IsZero() && time.Since(a.done) > 2*time.Second: // of a pair, it may be lost with a log
		w.violate("%s has %s fenced again %v after the log has it that it was", by.name, router9, time.Since(a.done))
	}
}

// end is what the device does to the foreign router; what is forged goes on.
func (a *air) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range a.routers {
		f.off = f.off || !f.forged
	}
}

// applied is told what the log has decided, by everybody who learns of it.
func (a *air) applied(cmd []byte, r state.Result) {
	if r.Refused != "" || a.w.cfg.OnConflict != conf.ConflictFence {
		return
	}
	c, err := state.Decode(cmd)
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case c.Fence != nil && c.Fence.Node == router9:
		a.requested = true
	case c.Fenced != nil && c.Fenced.Node == router9 && c.Fenced.Done && a.done.IsZero():
		a.done = time.Now()
	}
}

// forget is what becomes of it when the log begins anew.
func (a *air) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requested, a.done = false, time.Time{}
}

// silent says which VRID the owner of its group does not announce; empty: none.
func (a *air) silent(vrid uint8, owner string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.last[vrid]
	return s.by != owner || time.Since(s.at) > 2*advertEvery
}

// foreign begins to speak as a foreign master, once an advert_int.
func (r *run) foreign(e event) func() {
	f := &foreignRouter{vrid: uint8(e.Count), heard: e.On, forged: e.Flag}
	a := r.w.air
	a.mu.Lock()
	a.routers = append(a.routers, f)
	a.mu.Unlock()
	over := false
	var say func()
	say = func() {
		if over {
			return
		}
		a.speak(f)
		r.async(func() func() {
			time.Sleep(advertEvery)
			return say
		})
	}
	say()
	return func() {
		over = true
		a.mu.Lock()
		defer a.mu.Unlock()
		a.routers = slices.DeleteFunc(a.routers, func(o *foreignRouter) bool { return o == f })
	}
}
