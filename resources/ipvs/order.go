package ipvs

import "github.com/keepbeat/keepbeat/conf"

// Order is what an operator has ordered for a real server. It ends when the
// replicated log says so: the clocks of the nodes may differ.
type Order = conf.RealOrder

// Actions of an Order.
const (
	Drain     = conf.RealDrain
	Disable   = conf.RealDisable
	SetWeight = conf.RealWeight
)
