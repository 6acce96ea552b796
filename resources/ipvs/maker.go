package ipvs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/keepbeat/keepbeat/checks"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/notify"
)

var errUndone = errors.New("ipvs: somebody else changes this service as fast as it is put right; is another program (ldirectord, keepalived, kube-proxy) managing it?")

// Checks runs the checks of real servers: a *checks.Scheduler.
type Checks interface {
	// Subscribe runs c until cancel. notify is called with the present status
	// at once if it is known, and on every change of Known and Up. Equal checks
	// are run once.
	Subscribe(c conf.Check, notify func(checks.Status)) (cancel func())
	// Status returns what is known of c now; false: nobody has subscribed to it.
	Status(c conf.Check) (checks.Status, bool)
}

var _ Checks = (*checks.Scheduler)(nil)

// Config is what the pools need.
type Config struct {
	Checks Checks
	Table  Table // usually a *Kernel; the owner closes it after the resources
	// Mail delivers mails; nil: as notify.MailConfig does. For tests.
	Mail func(context.Context, conf.Email, notify.Mail) error
}

// Maker makes the resources of kind ldirectord.
type Maker struct {
	cfg    Config
	shared *shared

	mu     sync.Mutex    // guards what follows
	active map[Key]*pool // who programs which service on this node
	pools  map[*pool]bool
	orders map[netip.AddrPort]Order
}

var _ resources.Maker = (*Maker)(nil)

// NewMaker returns a Maker. It changes nothing.
func NewMaker(cfg Config) *Maker {
	return &Maker{cfg: cfg, shared: newShared(cfg.Table), active: map[Key]*pool{}, pools: map[*pool]bool{}}
}

// SetOrders tells all pools, and those that are made later, what operators have
// ordered for real servers; see pool.SetOrders.
func (m *Maker) SetOrders(orders map[netip.AddrPort]Order) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.orders = maps.Clone(orders)
	for p := range m.pools {
		p.SetOrders(orders)
	}
}

// admit makes a pool hear of orders; leave is the end of that.
func (m *Maker) admit(p *pool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pools[p] = true
	p.SetOrders(m.orders)
}

func (m *Maker) leave(p *pool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pools, p)
}

// New implements resources.Maker.
func (m *Maker) New(env resources.Env, spec conf.Spec, r conf.Resource) (resources.Resource, error) {
	content, err := find(spec, r)
	if err != nil {
		return nil, err
	}
	p := newPool(m, env, r.Pool, content)
	p.wide = spec.IPVS
	m.admit(p)
	return p, nil
}

func find(spec conf.Spec, r conf.Resource) (conf.Pool, error) {
	content, found := spec.Pools[r.Pool]
	if !found {
		names := slices.Sorted(maps.Keys(spec.Pools))
		have := "none"
		if len(names) > 0 {
			have = strings.Join(names, ", ")
		}
		return conf.Pool{}, fmt.Errorf("%s: no pool %q in the specification; it has %s", r.Name, r.Pool, have)
	}
	return content, nil
}

// Recover implements resources.Maker.
func (m *Maker) Recover(env resources.Env, raw json.RawMessage) (resources.Resource, error) {
	r, err := parseRecord(raw)
	if err != nil {
		return nil, err
	}
	return &recovered{maker: m, log: logger(env), record: r, raw: slices.Clone(raw)}, nil
}

func logger(env resources.Env) *slog.Logger {
	if env.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return env.Logger
}

// claim gives the services to p, all or none.
func (m *Maker) claim(p *pool, keys []Key) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range keys {
		if by := m.active[k]; by != nil && by != p {
			return fmt.Errorf("pool %s: the virtual service %s is already served on this node by pool %s of group %s; take it out of one of them", p.name, k, by.name, by.env.Group)
		}
	}
	for _, k := range keys {
		m.active[k] = p
	}
	return nil
}

// release gives up all claims of p but those on keep.
func (m *Maker) release(p *pool, keep map[Key]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.active, func(k Key, by *pool) bool { return by == p && !keep[k] })
}

// notOfOthers leaves out what another pool serves.
func (m *Maker) notOfOthers(p *pool, keys []Key) []Key {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(keys, func(k Key) bool { by := m.active[k]; return by != nil && by != p })
}

// record is what the journal keeps of a pool: its services.
type record struct {
	Pool     string          `json:"pool"`
	Services []recordService `json:"services"`
	Kernel   *sharedRecord   `json:"kernel,omitempty"`
}

type recordService struct {
	Protocol  string         `json:"protocol"` // tcp, udp, sctp, fwm
	Address   netip.AddrPort `json:"address,omitzero"`
	FWMark    uint32         `json:"fwmark,omitempty"`
	IPv6      bool           `json:"ipv6,omitempty"`
	CleanStop bool           `json:"cleanstop"`
}

func recordOf(k Key, cleanStop bool) recordService {
	return recordService{k.Protocol.String(), k.Address, k.FWMark, k.IPv6, cleanStop}
}

func parseRecord(raw []byte) (record, error) {
	var r record
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, fmt.Errorf("journal: record of an ldirectord pool: %w", err)
	}
	for _, s := range r.Services {
		if _, err := s.key(); err != nil {
			return r, fmt.Errorf("journal: record of pool %q: %w", r.Pool, err)
		}
	}
	if err := r.Kernel.check(); err != nil {
		return r, fmt.Errorf("journal: record of pool %q: %w", r.Pool, err)
	}
	return r, nil
}

func (s recordService) key() (Key, error) {
	switch {
	case s.Protocol == conf.FWM.String() && s.FWMark != 0:
		return Key{Protocol: conf.FWM, FWMark: s.FWMark, IPv6: s.IPv6}, nil
	case !s.Address.IsValid():
	case s.Protocol == conf.TCP.String():
		return KeyOf(conf.Virtual{Protocol: conf.TCP, Address: s.Address}), nil
	case s.Protocol == conf.UDP.String():
		return KeyOf(conf.Virtual{Protocol: conf.UDP, Address: s.Address}), nil
	case s.Protocol == conf.SCTP.String():
		return KeyOf(conf.Virtual{Protocol: conf.SCTP, Address: s.Address}), nil
	}
	return Key{}, fmt.Errorf("not a virtual service: protocol %q, address %s, fwmark %d", s.Protocol, s.Address, s.FWMark)
}

// remove takes services out of the table.
func remove(ctx context.Context, t Table, keys []Key, log *slog.Logger) error {
	if len(keys) == 0 {
		return nil
	}
	s, err := settle(ctx, t, nil, keys, true)
	switch {
	case errors.Is(err, ErrNoIPVS):
		return nil // then there is nothing to remove
	case err != nil:
		return err
	}
	logOps(log, "virtual services removed", s.Before)
	return s.serious(nil)
}

// recovered is a pool of which only the journal is left.
type recovered struct {
	maker  *Maker
	log    *slog.Logger
	record record
	raw    json.RawMessage
}

func (r *recovered) Record() (json.RawMessage, error) { return r.raw, nil }

func (r *recovered) Start(context.Context) error {
	return fmt.Errorf("pool %s: known from the journal only, it can be stopped and not started", r.record.Pool)
}

func (r *recovered) Monitor(ctx context.Context) error { return r.Start(ctx) }

func (r *recovered) Close() error { return nil }

func (r *recovered) Stop(ctx context.Context) error {
	var keys []Key
	for _, s := range r.record.Services {
		if k, err := s.key(); err == nil && s.CleanStop { // parseRecord has seen it
			keys = append(keys, k)
		}
	}
	if err := remove(ctx, r.maker.cfg.Table, r.maker.notOfOthers(nil, keys), r.log); err != nil {
		return fmt.Errorf("pool %s: %w", r.record.Pool, err)
	}
	r.maker.shared.adopt(r.record.Kernel)
	r.maker.shared.tend(ctx, r.log)
	return nil
}

// logOps tells what was done; of many only how many.
func logOps(log *slog.Logger, msg string, ops []Op) {
	const most = 20
	if len(ops) == 0 {
		return
	}
	lines := make([]string, 0, min(len(ops), most))
	for _, op := range ops[:min(len(ops), most)] {
		lines = append(lines, op.String())
	}
	log.Info(msg, "changes", len(ops), "ops", strings.Join(lines, "; "))
}
