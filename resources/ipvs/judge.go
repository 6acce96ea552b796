package ipvs

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/keepbeat/keepbeat/checks"
	"github.com/keepbeat/keepbeat/conf"
)

// input is all that the state of a virtual service depends on, beside its
// configuration and what it was before.
type input struct {
	now  time.Time
	base time.Time // when the pool was started: weights grow in steps counted from here
	// health is what was heard of a check last. Of on and off it is not asked.
	health func(conf.Check) checks.Status
	// checked is when a check ended last.
	checked func(conf.Check) time.Time
	// assumed: the server was found serving in the table when the pool was
	// started for the first time in this process.
	assumed func(netip.AddrPort) bool
	// kept: the server was found with weight 0 then: it may have connections.
	kept func(netip.AddrPort) bool
	// stood: the fallback was found standing in for the servers then.
	stood func(netip.AddrPort) bool
	// earlier is what an earlier daemon left of the service; nil: there was none.
	earlier *earlier
	order   func(netip.AddrPort) (Order, bool)
	// file is the name of the file in maintenancedir that takes a server out; empty: none does.
	file func(conf.Real) string
}

// verdict is what is thought of a server now.
type verdict struct {
	state  string // StateUp, StateDown or StateUnknown
	serves bool   // requests may go to it: up, or not checked yet and it serves already
	weight int    // that it ought to have while it serves, 0 to 65535
	why    string // it is down, or has another weight than the configured one; empty: nothing to say
}

// judge says what is thought of a server that was in a state before; empty: in
// none yet. A server is up while all its checks are. One that is not known goes
// on as it was before its check was changed; with alpha it is not assumed to be
// up because it was found in the table.
func judge(r conf.Real, before string, alpha bool, in input) verdict {
	a := plain(r.Address)
	v := verdict{state: StateUp, weight: max(0, r.Weight)}
	v.heed(r, in)
	switch v.state {
	case StateUp:
		v.serves = true
	case StateUnknown:
		v.serves = before == StateUp || before == "" && !alpha && in.assumed(a)
	}
	o, ordered := in.order(a)
	switch name := in.file(r); {
	case name != "":
		v.state, v.serves, v.why = StateDown, false, "maintenance: the file "+name+" is there"
	case ordered && o.Action == Disable:
		v.state, v.serves, v.why = StateDown, false, o.String()
	case ordered && o.Action == Drain:
		v.weight, v.why = 0, join(v.why, o.String())
	case ordered && o.Action == SetWeight:
		v.weight, v.why = o.Weight, join(v.why, o.String())
	}
	return v
}

// heed takes what the checks of a server say: the worst state, and the least
// of the weights that they give, in place of the configured one.
func (v *verdict) heed(r conf.Real, in input) {
	down, unknown, weighed := 0, 0, false
	for c := range checksOf(r) {
		st := statusOf(c, in.health)
		switch {
		case !st.Known:
			unknown++
		case !st.Up:
			if down++; down == 1 {
				v.why = st.Detail
				if len(r.Also) > 0 {
					v.why = checkTitle(c) + ": " + st.Detail
				}
			}
		case st.Weighed && (!weighed || st.Weight < v.weight):
			v.weight, weighed = min(max(0, st.Weight), maxWeight), true
		}
	}
	switch {
	case down > 0:
		v.state = StateDown
		if down > 1 {
			v.why += fmt.Sprintf(" (%d of %d checks fail)", down, 1+len(r.Also))
		}
	case unknown > 0:
		v.state = StateUnknown
	case weighed && v.weight != r.Weight:
		v.why = fmt.Sprintf("weight %d is what its check says", v.weight)
	}
}

const maxWeight = 65535

// checksOf are the checks of a server, the first one first.
func checksOf(r conf.Real) func(func(conf.Check) bool) {
	return func(yield func(conf.Check) bool) {
		if !yield(r.Check) {
			return
		}
		for _, c := range r.Also {
			if !yield(c) {
				return
			}
		}
	}
}

// asked tells whether a check asks anybody. The zero value is a fallback's: it
// is always up.
func asked(c conf.Check) bool { return c.Type != 0 && c.Type != conf.On && c.Type != conf.Off }

func statusOf(c conf.Check, health func(conf.Check) checks.Status) checks.Status {
	switch {
	case asked(c):
		return health(c)
	case c.Type == conf.Off:
		return checks.Status{Known: true, Detail: "not checked: checktype off"}
	}
	return checks.Status{Known: true, Up: true, OK: true, Detail: "not checked: checktype on"}
}

func checkTitle(c conf.Check) string {
	name := checkName(c)
	if c.Target.IsValid() {
		name += " " + conf.ServerName(c.Target)
	}
	return name
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}
