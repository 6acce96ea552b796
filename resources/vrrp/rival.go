package vrrp

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// Foreign is a router outside of the cluster that is master of a virtual router
// whose addresses a group has, and outbids the owner.
type Foreign struct {
	From     netip.Addr `json:"from"`
	Priority uint8      `json:"priority"`
	Since    time.Time  `json:"since"`
	// Others: it announces other addresses than the group's, under the group's VRID.
	Others bool `json:"other_addresses,omitempty"`
}

func (f Foreign) String() string { return fmt.Sprintf("%s, priority %d", f.From, f.Priority) }

// rival is a foreign router as far as it is heard.
type rival struct {
	Foreign
	heard time.Time     // last; zero: never
	wait  time.Duration // as long as a backup would wait for the next: then it is gone
	again bool          // heard a second time
}

// hear takes an advertisement to which a master of the RFCs yields. The second
// begins a conflict; the first may be the last of this group's previous owner,
// still under way.
func (r *rival) hear(adv Advert, i *conf.VRRPInstance, now time.Time) (begins bool) {
	wait := time.Duration(i.DownAdverts+1) * max(i.Interval, adv.Interval)
	switch {
	case r.gone(now), !r.again && r.From != adv.From:
		*r = rival{Foreign: Foreign{adv.From, adv.Priority, now, adv.Others}, heard: now, wait: wait}
		return false
	case r.From == adv.From:
		r.Priority, r.Others = adv.Priority, adv.Others
	}
	begins = !r.again
	r.heard, r.wait, r.again = now, wait, true
	return begins
}

// gone says whether nobody outbids the announcer any more.
func (r *rival) gone(now time.Time) bool { return r.heard.IsZero() || now.Sub(r.heard) > r.wait }
