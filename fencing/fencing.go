// Package fencing makes certain from outside that a node does nothing any
// more (STONITH): devices, the levels in which they are tried, and what became of it.
package fencing

import (
	"context"
	"errors"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// Attempt is one use of one device on one node, for the history.
type Attempt struct {
	Device string           `json:"device"`
	Level  int              `json:"level"` // from 1
	Node   string           `json:"node"`  // the target
	By     string           `json:"by"`    // the node that operated the device
	Action conf.FenceAction `json:"action"`
	At     time.Time        `json:"at"`
	Took   time.Duration    `json:"took"`
	Error  string           `json:"error,omitempty"` // empty: done, and certain; at most a few KiB, without secrets
	// Certain: from this attempt on the node is down, every device of its level having
	// cut it off. What follows only switches it on again, and nobody has to wait for that.
	Certain bool `json:"certain,omitempty"`
}

// Outcome is what became of fencing a node.
type Outcome struct {
	Node   string           `json:"node"`
	Action conf.FenceAction `json:"action"`
	Done   bool             `json:"done"` // certain: every device of a level has succeeded (a reboot: with off; on may have failed)
	// Ended: Target.Ends was asked for, so the node itself has ended and is not merely cut off.
	Ended    bool      `json:"ended"`
	Attempts []Attempt `json:"attempts"`
}

// ErrNoDevice is wrapped by the errors of Can and Fence when no level of
// devices for a node can be operated from here.
var ErrNoDevice = errors.New("no fencing device")

// Target is the node to be fenced, and what is known of it.
type Target struct {
	Node string
	// Silent is for how long nothing at all has been heard of the node, by the
	// operating node's clock. A watchdog device waits until its timeout is over,
	// counted from that.
	Silent time.Duration
	// Silence tells the same again while a device is at work; nil: it is counted
	// on from Silent. A watchdog device does not believe that a node which is heard has reset itself.
	Silence func() time.Duration
	// Ends asks for devices that end the node. One that only cuts it off (a switch port, a
	// SCSI reservation) leaves it running, and what runs goes on until its lease has ended.
	Ends bool
	// Trusted says that others may hear the node and let it act: that nothing is heard of
	// it here proves nothing, and a watchdog device refuses. Ends goes with it.
	Trusted bool
	// May is asked right before each attempt, after all that is waited for; nil: nobody
	// has to be. An error ends Fence, which wraps it: no device is asked any more, be it
	// in the midst of a level. It is not asked about switching on again what is down
	// already, nor when a person confirms: that says what has been done.
	May func(context.Context) error
	// Over is asked every second by a device that waits for a person; nil: it waits until
	// it is confirmed. An error says why nobody needs that any more, such as that the node is heard again, and ends
	// Fence as one of May's does: who switched the node off now would end a healthy one. A
	// device at work is not asked about it: what it may have done already is not taken back.
	Over func() error
}

// DeviceStatus is a device as `keepbeat status` and `keepbeat fence test` show it.
type DeviceStatus struct {
	Name    string    `json:"name"`
	Kind    string    `json:"kind"`             // "agent fence_ipmilan", "external ipmi", "script /etc/keepbeat/fence.sh", "manual", "watchdog"
	Targets []string  `json:"targets"`          // sorted
	Here    bool      `json:"here"`             // this node may operate it
	Checked time.Time `json:"checked,omitzero"` // when it was looked at last, or has done what it was told
	Error   string    `json:"error,omitempty"`  // of that look; empty: it answered
}

// Waiting is a manual confirmation that is waited for on this node.
type Waiting struct {
	Node   string    `json:"node"`
	Device string    `json:"device"`
	Since  time.Time `json:"since"`
}

// Service is what the cluster needs of fencing; Fencer is the real one, the
// simulation has another.
type Service interface {
	// Configure takes over a specification (nil: no fencing). What is under way goes on as it began.
	Configure(spec *conf.Fencing)
	// Can returns nil when this node can operate every device of some level for
	// the node; the error wraps ErrNoDevice and says what is missing.
	Can(node string) error
	// Ends returns nil unless every level for the node has a device that does not end a
	// Trusted one; the error names them. It asks agents for their metadata and works none.
	Ends(ctx context.Context, node string) error
	// Fence works through the node's levels until one has succeeded, leaving out
	// those that the specification does not let this node operate. It returns
	// early when ctx ends; then it is not certain that the node was not fenced,
	// and Done is false (unless only switching on was left to do). note is called
	// after each attempt, from Fence's goroutine. The error is nil exactly when Done is true.
	Fence(ctx context.Context, t Target, action conf.FenceAction, note func(Attempt)) (Outcome, error)
	// Plan says in words, a line each, what Fence would do. It runs nothing.
	Plan(node string, action conf.FenceAction) []string
	// Confirm tells a manual device that a person has seen to it that the node
	// is off. The error says when nobody waits for that.
	Confirm(node string) error
	// Waiting lists the confirmations that are waited for.
	Waiting() []Waiting
	// Test looks whether a device answers (monitor or status; nothing is fenced); empty: all that this node may operate.
	Test(ctx context.Context, device string) ([]DeviceStatus, error)
	// Status returns the devices as they were found last, in the order of the specification.
	Status() []DeviceStatus
	// Unfence gives this node back what fencing may have taken from it, with
	// those of its devices that have an `on` of this kind (fabric, SCSI
	// reservations); it returns at once when there is none. An error means that
	// the node may still be cut off from what its resources need.
	Unfence(ctx context.Context, self string) error
	// Run looks at the devices now and then until ctx ends.
	Run(ctx context.Context) error
}
