package ipvs

import (
	"fmt"
	"time"
)

// Action is what an operator wants of a real server.
type Action uint8

// Actions. The zero value is invalid: a server that is enabled has no order.
const (
	_         Action = iota
	Drain            // weight 0: no new connections, those that exist stay
	Disable          // counts as down, whatever its checks say
	SetWeight        // Weight in place of the configured and the checked one
)

func (a Action) String() string {
	if names := [...]string{"invalid", "drain", "disable", "weight"}; int(a) < len(names) {
		return names[a]
	}
	return "invalid"
}

// Order is what an operator has ordered for a real server. It is comparable.
type Order struct {
	Action Action    `json:"action"`
	Weight int       `json:"weight,omitempty"` // with SetWeight: 0 to 65535
	Until  time.Time `json:"until,omitzero"`   // when it ends by itself; zero: it does not
	By     string    `json:"by,omitempty"`     // who ordered it
	Reason string    `json:"reason,omitempty"`
}

// over tells whether the order has ended by itself.
func (o Order) over(now time.Time) bool { return !o.Until.IsZero() && !now.Before(o.Until) }

// String is how status shows the order: "drained by alice: new kernel".
func (o Order) String() string {
	var s string
	switch o.Action {
	case Drain:
		s = "drained"
	case Disable:
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
