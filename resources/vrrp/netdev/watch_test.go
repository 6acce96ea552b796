package netdev

import (
	"slices"
	"sync"
	"testing"

	"github.com/keepbeat/keepbeat/resources/rtnl/nstest"
)

func TestStatesOfInterfacesAreTold(t *testing.T) {
	a, b := pair(t)
	h := a.host("")
	var mu sync.Mutex
	var told []string
	say := func(name string, up bool) {
		mu.Lock()
		defer mu.Unlock()
		if !slices.Contains([]string{"eth0", "lan0", "uplink"}, name) {
			return // kernels with tunnels built in have more than lo
		}
		if up {
			name += " up"
		} else {
			name += " down"
		}
		told = append(told, name)
	}
	last := func(want ...string) {
		t.Helper()
		nstest.Eventually(t, want[len(want)-1], func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(told) >= len(want) && slices.Equal(told[len(told)-len(want):], want)
		})
	}
	stop, err := h.Links(say)
	ok(t, err)
	mu.Lock()
	if !slices.Equal(told, []string{"eth0 up"}) {
		t.Errorf("told %v before it returned", told)
	}
	mu.Unlock()
	b.IP("link set eth0 down") // no carrier here
	last("eth0 up", "eth0 down")
	b.IP("link set eth0 up")
	last("eth0 up", "eth0 down", "eth0 up")
	a.IP("link set eth0 down")
	last("eth0 down")
	a.IP("link set eth0 name lan0")
	last("lan0 down")
	a.IP("link property add dev lan0 altname uplink\nlink set lan0 up")
	nstest.Eventually(t, "the other name", func() bool { mu.Lock(); defer mu.Unlock(); return slices.Contains(told, "uplink up") })
	stop()
	mu.Lock()
	n := len(told)
	mu.Unlock()
	a.IP("link del lan0")
	other, err := h.Links(func(string, bool) {}) // it has seen what the first would have been told
	ok(t, err)
	other()
	mu.Lock()
	defer mu.Unlock()
	if len(told) != n {
		t.Errorf("told %v after the end", told[n:])
	}
}

func TestSocketThatCannotBeOpenedIsTriedAgain(t *testing.T) {
	a, b := pair(t)
	h := a.host("")
	x, y := open(t, h, router4("10.0.0.5/24")), open(t, b.host(""), router4("10.0.0.5/24"))
	right := h.k.Namespace
	namespace := func(path string) { h.mu.Lock(); h.k.Namespace = path; h.mu.Unlock() }
	namespace("/run/netns/none")
	a.IP("link del eth0")
	nstest.Connect(a.NS, b.NS)
	refused := func() bool { h.mu.Lock(); defer h.mu.Unlock(); return len(h.said) == 2 }
	nstest.Eventually(t, "both sockets are refused", refused)
	namespace(right)
	nstest.Eventually(t, "an address", func() bool { return x.Local().IsValid() && y.Local().IsValid() })
	nstest.Eventually(t, "it is heard", func() bool {
		if x.Send(message, group4) != nil {
			return false
		}
		select {
		case <-y.heard:
			return true
		default:
			return false
		}
	})
}
