// Package announce implements the resource kind vrrp: the owner of a group tells
// by VRRP that it has the group's addresses, so that routers, monitors and
// foreign backups see an ordinary master. Raft decides, VRRP tells.
//
// The addresses are those of the vips before it in the group, which put them
// into the kernel; an announcer leaves nothing there. The kernel's guard drops
// what it sends while the lease is not live.
package announce

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/vrrp"
	"github.com/keepbeat/keepbeat/resources/vrrp/netdev"
)

// Host is this machine.
type Host interface {
	vrrp.AnnouncerHost
	Close() error
}

// Config is what a Maker needs. The zero value is usable.
type Config struct {
	Logger *slog.Logger // what concerns no single resource; nil: nowhere
	// Open makes the Host that all resources share; nil: this machine's. It is
	// called when the first resource needs it, and again after an error.
	Open func() (Host, error)
}

// Maker makes announcers. Close ends it.
type Maker struct {
	cfg Config

	mu     sync.Mutex // guards the rest
	host   Host       // nil until opened
	closed bool
}

// NewMaker returns a Maker. It opens nothing.
func NewMaker(cfg Config) *Maker {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Open == nil {
		cfg.Open = func() (Host, error) { return netdev.New(netdev.Config{Logger: cfg.Logger, Beside: true}) }
	}
	return &Maker{cfg: cfg}
}

// Close closes the sockets. Using the Maker's resources afterwards is an error.
func (m *Maker) Close() error {
	m.mu.Lock()
	host := m.host
	m.host, m.closed = nil, true
	m.mu.Unlock()
	if host == nil {
		return nil
	}
	return host.Close()
}

var errClosed = errors.New("vrrp: closed")

// Open implements vrrp.AnnouncerHost by the Host that is shared.
func (m *Maker) Open(i *conf.VRRPInstance, receive func(vrrp.Packet)) (vrrp.Endpoint, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errClosed
	}
	if m.host == nil {
		host, err := m.cfg.Open()
		if err != nil {
			return nil, err
		}
		m.host = host
	}
	return m.host.Open(i, receive)
}

// Now implements vrrp.AnnouncerHost.
func (m *Maker) Now() time.Time { return time.Now() }

// record is what stands in the journal. There is nothing to take back: who does
// not announce any more has stopped.
type record struct {
	Interface string `json:"interface"`
	resources.VirtualRouter
}

// New makes the resource of a specification.
func (m *Maker) New(env resources.Env, _ conf.Spec, r conf.Resource) (resources.Resource, error) {
	if r.VRRP == nil {
		return nil, fmt.Errorf("%s: the specification has no virtual router", r.Name)
	}
	if env.Logger == nil {
		env.Logger = slog.New(slog.DiscardHandler)
	}
	a := &announcer{spec: *r.VRRP, log: env.Logger, alarm: make(chan struct{}, 1)}
	a.talk = vrrp.NewAnnouncer(vrrp.AnnouncerConfig{Host: m, Announcer: &a.spec, Logger: env.Logger, Conflict: a.conflict, Live: env.Live})
	return a, nil
}

// Recover makes of a record a resource that can be stopped. The daemon that
// announced is dead, and says nothing more.
func (m *Maker) Recover(_ resources.Env, b json.RawMessage) (resources.Resource, error) {
	var rec record
	if err := json.Unmarshal(b, &rec); err != nil {
		return nil, fmt.Errorf("vrrp: %w", err)
	}
	if rec.ID == 0 || rec.Interface == "" {
		return nil, errors.New("vrrp: it names no virtual router")
	}
	return dead{}, nil
}
