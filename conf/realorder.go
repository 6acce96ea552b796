package conf

import (
	"fmt"
	"time"
)

// RealAction is what an operator wants of a real server.
type RealAction uint8

// Actions. The zero value is invalid: a server that is enabled has no order.
const (
	_           RealAction = iota
	RealDrain              // weight 0: no new connections, those that exist stay
	RealDisable            // counts as down, whatever its checks say
	RealWeight             // RealOrder.Weight in place of the configured and the checked one
)

func (a RealAction) String() string {
	return enumString([]string{"", "drain", "disable", "weight"}, uint8(a))
}

// MarshalText implements encoding.TextMarshaler.
func (a RealAction) MarshalText() ([]byte, error) { return enumMarshal(a.String(), a == 0) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *RealAction) UnmarshalText(b []byte) error {
	return enumUnmarshal(a, b, RealAction.String, "order for a real server")
}

// RealOrder is what an operator has ordered for a real server, in every virtual
// service that has it. It is comparable.
type RealOrder struct {
	Action RealAction `json:"action"`
	Weight int        `json:"weight,omitempty"` // with RealWeight: 0 to 65535
	// For is how long it holds; 0: until it is taken back. The leader counts it
	// by its own clock from when it first sees the order; Until is for people.
	For    time.Duration `json:"for,omitempty"`
	Until  time.Time     `json:"until,omitzero"`
	By     string        `json:"by,omitempty"`     // user who ordered it
	Reason string        `json:"reason,omitempty"` // one line, at most 200 bytes
	N      uint64        `json:"n,omitempty"`      // index of the entry that ordered it: tells two orders apart
}

// String is how status shows the order: "drained by alice: new kernel".
func (o RealOrder) String() string {
	var s string
	switch o.Action {
	case RealDrain:
		s = "drained"
	case RealDisable:
		s = "disabled"
	default:
		s = fmt.Sprintf("weight %d ordered", o.Weight)
	}
	if o.By != "" {
		s += " by " + o.By
	} else {
		s += " by an operator"
	}
	if !o.Until.IsZero() {
		s += " until " + o.Until.UTC().Format("2006-01-02 15:04:05 MST")
	}
	if o.Reason != "" {
		s += ": " + o.Reason
	}
	return s
}
