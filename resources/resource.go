// Package resources starts, stops and watches the members of groups on this
// node. The cluster decides; resources do.
package resources

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// Resource is one thing that is started and stopped on a node.
//
// The runner makes it when the specification has it and this node may own its
// group, calls Start and Stop as ownership comes and goes, any number of
// times, and Close at the end. Calls never overlap, except Detail and
// Opened with any other and Run with all. Every method obeys its context's deadline.
type Resource interface {
	// Record returns what Stop and Recover need to undo Start on this machine,
	// with everything resolved (interface, prefix). The runner writes it to the
	// journal before Start. It changes nothing.
	Record() (json.RawMessage, error)
	// Start makes the resource active. It is idempotent: started again, or
	// after a crash, it completes what is missing and disturbs nothing.
	Start(ctx context.Context) error
	// Stop takes back what Start did. Stopping what is stopped succeeds.
	Stop(ctx context.Context) error
	// Monitor tells whether the started resource still is as Start left it. An
	// error means it has failed; what can be mended at once is mended instead.
	Monitor(ctx context.Context) error
	// Close ends what New began. It does not stop the resource.
	Close() error
}

// Runner is implemented by resources that work while they exist, started or
// not: warm standby. Run returns when ctx ends.
type Runner interface{ Run(ctx context.Context) }

// Alarmer is implemented by resources that hear from the kernel that they have
// failed. A value on the channel makes the runner call Monitor at once.
type Alarmer interface{ Alarm() <-chan struct{} }

// Updater is implemented by resources that can take a changed specification
// while they are active. It returns ErrNeedsRestart when this change needs stop and start.
type Updater interface {
	Update(ctx context.Context, spec conf.Spec, r conf.Resource) error
}

// ErrNeedsRestart is returned by Updater.
var ErrNeedsRestart = errors.New("the change needs a restart of the resource")

// Guarded is implemented by resources whose addresses the kernel's guard must
// cut off when the lease is not live.
type Guarded interface{ Addresses() []netip.Addr }

// VirtualRouter is a VRID of VRRP, on every interface of a node.
type VirtualRouter struct {
	ID   uint8 `json:"vrid"` // 1 to 255
	IPv6 bool  `json:"ipv6,omitempty"`
}

func (r VirtualRouter) String() string {
	if r.IPv6 {
		return fmt.Sprintf("VRID %d of IPv6", r.ID)
	}
	return fmt.Sprintf("VRID %d of IPv4", r.ID)
}

// Announcing is implemented by resources that send VRRP advertisements, which
// the kernel's guard must cut off when the lease is not live. A group that is
// merely not all there yet goes on announcing, and says by it that it leaves.
type Announcing interface{ Routers() []VirtualRouter }

// Accuser is implemented by resources that hear a machine outside of the cluster
// claim what their group has, and are to have it fenced. While it does so Accused
// returns its name among the targets of fencing devices, and what it does. It is
// cheap and may be called at any time.
type Accuser interface {
	Accused() (target, why string, heard time.Time)
}

// Replacer is implemented by resources that tell the network when this daemon is
// about to be replaced by the next in a planned restart, which takes absence at
// most. It does not wait.
type Replacer interface{ Replacing(absence time.Duration) }

// Opener is implemented by resources that have something to tell the network
// once their group answers (a gratuitous ARP): while a group of several guarded
// resources is being started, the guard keeps it closed and nothing they send arrives.
// Opened may be called again, at any time and while other calls are under way; it does not wait.
type Opener interface{ Opened() }

// Readier is implemented by resources that know beforehand that they could not
// start here (no such interface, no carrier, no IPVS in the kernel). Placement avoids the node.
// It is cheap and may be called at any time.
type Readier interface{ Ready() error }

// Settler is implemented by resources that can start here and would do it
// better a little later (the connections of the present owner are still being
// received). An error says what is missing, in words that do not change while it is.
// Only auto_failback heeds it: a group that needs another node gets one at once.
// It is cheap and may be called at any time.
type Settler interface{ Settled() error }

// Adopter is implemented by resources whose Record cannot be found out again
// from a machine on which they are started (a vip that took an address from
// lo). The runner gives a new resource the record that an earlier daemon left
// in the journal, before the first Record, Start or Stop.
type Adopter interface {
	Adopt(record json.RawMessage) error
}

// Detailer is implemented by resources with more to tell in status. The value is marshalled to JSON.
type Detailer interface{ Detail() any }

// Guard is what the runner needs of the kernel's guard.
type Guard interface {
	// Hold puts addresses under the guard before the first resource of a group starts. Idempotent.
	Hold(addrs ...netip.Addr) error
	// Drop takes them out after the last has stopped.
	Drop(addrs ...netip.Addr) error
	// Cut closes held addresses whatever the lease says, until Drop: for a
	// group whose resources would not stop.
	Cut(addrs ...netip.Addr) error
	// HoldRouters, DropRouters and CutRouters are the same for what is sent of virtual routers.
	HoldRouters(routers ...VirtualRouter) error
	DropRouters(routers ...VirtualRouter) error
	CutRouters(routers ...VirtualRouter) error
}

// Env is what every resource is given.
type Env struct {
	Node   string
	Group  string
	Logger *slog.Logger
	// Epoch returns the epoch under which the group is owned by this node, 0 when it is not.
	Epoch func() uint64
	// Live says whether this node's lease runs. Without it a group that runs here
	// is silenced by the guard, and may be another node's by now. nil: always.
	Live func() bool
}

// Maker makes the resources of one kind.
type Maker interface {
	// New makes a resource of the specification. It changes nothing on the machine.
	New(env Env, spec conf.Spec, r conf.Resource) (Resource, error)
	// Recover makes, from a record of the journal, a resource that can be stopped.
	Recover(env Env, record json.RawMessage) (Resource, error)
}

// Registry maps kinds to their makers.
type Registry map[conf.Kind]Maker
