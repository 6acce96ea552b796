// Package netdev is the machine under a virtual router: raw sockets of IP
// protocol 112, addresses, routes and rules by rtnetlink, macvlan interfaces,
// gratuitous ARP and neighbour advertisements. It implements [vrrp.Host] for Linux.
//
// One Host serves a network namespace, and there is one: New removes what a Host
// before it has left, which it knows by the journal in the run directory and by
// the mark on addresses.
package netdev

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/rtnl"
	"github.com/keepbeat/keepbeat/resources/vrrp"
)

// Mark is written into every address (IFA_PROTO, Linux 5.18), route and rule that
// has no protocol of its own, and so tells ours from others'. resources/vip has another.
const Mark = 108

// Config is what a Host needs. The zero value is usable.
type Config struct {
	Logger    *slog.Logger // nil: nowhere
	Namespace string       // path of a network namespace, /run/netns/a; empty: the process's own
	// RunDir is the daemon's run directory: the journal is below it. Empty: none
	// is kept, and a crash leaves routes, rules and settings of interfaces behind.
	RunDir string
	// Beside is for a second Host, which is asked for endpoints only: it takes
	// nothing for left behind, for that may be what the first has.
	Beside bool
}

// Host is this machine. Its methods may be called by several goroutines.
type Host struct {
	log     *slog.Logger
	k       *rtnl.Kernel
	journal journal
	drops   *drops
	paces   paces
	// announced counts packets, of which so many leave in a burst.
	announced atomic.Uint64

	wake chan struct{} // what the kernel has told waits for the worker
	tear chan struct{} // something is missing, for the mender
	done chan struct{} // closed by Close
	wg   sync.WaitGroup
	// readers end with the sockets that they read.
	readers sync.WaitGroup

	// use is held for reading while the kernel's sockets are used, so that Close waits.
	use sync.RWMutex

	// subs is locked while subscribers are told; taken before mu.
	subs subscribers

	mu       sync.Mutex // guards the rest; never held while a handler runs
	closed   bool
	watch    rtnl.Watch // keeps seen
	seen     picture
	ports    map[place]*port
	outlets  map[place]*outlet
	vmacs    map[string]*vmac
	bases    map[string]*base
	open     map[*Endpoint]struct{}
	virtual  map[netip.Addr]int    // addresses of open instances: not to be taken for the machine's own
	holdings map[string]*holding   // by name of the instance
	minds    map[standing]*holding // what is put back when somebody takes it away
	torn     map[*holding]struct{} // who may miss something of that
	said     map[string]string     // what could not follow its interface, and why
}

// place is where sockets are: an interface, by name, and a family.
type place struct {
	dev  string
	ipv6 bool
}

var (
	_ vrrp.Host     = (*Host)(nil)
	_ vrrp.Endpoint = (*Endpoint)(nil)
)

// New opens what is needed to ask the kernel, removes what an earlier run has
// left, and follows interfaces and addresses until Close.
func New(cfg Config) (*Host, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	k, err := rtnl.Open(cfg.Namespace)
	if err != nil {
		return nil, fmt.Errorf("vrrp: %w", err)
	}
	h := &Host{
		log: cfg.Logger, k: k, wake: make(chan struct{}, 1), tear: make(chan struct{}, 1), done: make(chan struct{}),
		ports: map[place]*port{}, outlets: map[place]*outlet{}, vmacs: map[string]*vmac{}, bases: map[string]*base{},
		open: map[*Endpoint]struct{}{}, virtual: map[netip.Addr]int{}, holdings: map[string]*holding{},
		minds: map[standing]*holding{}, torn: map[*holding]struct{}{},
	}
	h.subscribe()
	h.drops = newDrops(k, h.log, h.tear)
	if h.journal, err = openJournal(cfg.RunDir); err == nil && !cfg.Beside {
		err = h.clean()
	}
	if err == nil {
		err = h.view()
	}
	if err != nil {
		_ = h.Close()
		return nil, fmt.Errorf("vrrp: %w", err)
	}
	h.mu.Unlock()
	h.wg.Go(h.worker)
	h.wg.Go(h.mender)
	return h, nil
}

// Close ends everything that the Host runs, and waits for calls that run.
// Endpoints that are open send and receive no more; what stands in the kernel
// stays there, for Release is what takes it back.
func (h *Host) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	close(h.done)
	open := make([]*Endpoint, 0, len(h.open))
	for e := range h.open {
		open = append(open, e)
	}
	h.mu.Unlock()
	h.watch.Close()
	h.wg.Wait() // nobody attaches sockets from here on
	h.use.Lock()
	defer h.use.Unlock()
	for _, e := range open {
		e.silence()
	}
	h.readers.Wait()
	h.drops.close()
	h.k.Close()
	return nil
}

// Now is the time by which intervals are counted.
func (h *Host) Now() time.Time { return time.Now() }

var errClosed = errors.New("vrrp: the host is closed")

// title is how errors call an instance.
func title(i *conf.VRRPInstance) string { return "vrrp " + i.Name }
