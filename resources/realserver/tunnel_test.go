//go:build labkernel

package realserver

import (
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

// The lab kernel has its tunnels built in: nothing is loaded, and tunl0 is there.
func TestTunnelsAreAfterwardsAsTheyWere(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		command(t, "sysctl", "-q", "-w", "net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.tunl0.rp_filter=1")
		before := everything(t)
		h := New(t.TempDir())
		both := []conf.RealServer{side("192.0.2.1", conf.IPIP), side("2001:db8::1", conf.IPIP)}
		if err := h.Start("command", both); err != nil {
			t.Error(err)
			return
		}
		for device, want := range map[string]string{tunnel4: "inet 192.0.2.1/32 scope host tunl0", tunnel6: "inet6 2001:db8::1/128 scope global"} {
			out := command(t, "ip", "-o", "address", "show", "dev", device)
			if !strings.Contains(out, want) || !strings.Contains(command(t, "ip", "-o", "link", "show", device), "UP") {
				t.Errorf("%s is not up with %q:\n%s", device, want, out)
			}
		}
		if got := command(t, "sysctl", "-n", filter4); strings.TrimSpace(got) != "2" {
			t.Errorf("the reverse path filter of tunl0 is %s", got)
		}
		if notes, err := h.Stop("command", nil); err != nil || len(notes) > 0 {
			t.Errorf("stop: %q, %v", notes, err)
		}
		if after := everything(t); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	})
}
