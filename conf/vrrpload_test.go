package conf

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A reload is read while advertisements are due every few milliseconds, and what
// it leaves to the garbage collector makes them late.
func TestTheReadingOfManyRoutersLeavesLittleToCollect(t *testing.T) {
	const routers, addresses = 200, 25
	var b strings.Builder
	b.WriteString("vrrp_instance:\n")
	for i := range routers {
		fmt.Fprintf(&b, "  VI_%d:\n    interface: eth0\n    virtual_router_id: %d\n    virtual_ipaddress:\n", i, i+1)
		for j := range addresses {
			fmt.Fprintf(&b, "      - 10.%d.%d.1/16 dev eth0\n", i, j)
		}
	}
	path := filepath.Join(t.TempDir(), VRRPName)
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	const most = 20 * routers * addresses // 16 of them; 37 before it was looked at
	if n := testing.AllocsPerRun(2, func() {
		if v, _, err := LoadVRRP(path); err != nil || len(v.Instances) != routers {
			t.Fatal(err)
		}
	}); n > most {
		t.Errorf("%.0f allocations, at most %d", n, most)
	}
}
