package link_test

import (
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/cluster/link/linktest"
)

// Hellos are broadcast and do not show that unicast works: on a wire that has
// just come back the kernel may wait a second before it asks again for an address.
func TestDataGoesByBroadcastOnALinkThatHasJustComeUp(t *testing.T) {
	story(t, "a b c", func(t *testing.T, m *linktest.Medium, n map[string]*node) {
		// reaches says whom a datagram of a for b arrives at, between two hellos.
		reaches := func() map[string]bool {
			to := map[string]bool{}
			m.Tap(func(f linktest.Frame) {
				if f.From == "a" {
					to[f.To] = true
				}
			})
			defer m.Tap(nil)
			if err := n["a"].Send("b", link.ChannelLease, []byte("x")); err != nil {
				t.Fatal(err)
			}
			return to
		}
		if to := reaches(); !to["b"] || !to["c"] {
			t.Errorf("just after it came up a datagram went to %v, want everybody", to)
		}
		pass(4 * time.Second)
		if to := reaches(); !to["b"] || to["c"] {
			t.Errorf("later a datagram went to %v, want b alone", to)
		}
	})
}
