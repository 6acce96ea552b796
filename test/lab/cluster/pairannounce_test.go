package cluster

import (
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

// announcing is longer than a start's announcements go on: 5 after the first, 1 s apart.
const announcing = 7 * time.Second

// TestWhoKeepsTheAddressAnnouncesItWhenTheOtherHasGivenWay: both had it, and the
// clients' tables may name the one that has just dropped it.
func TestWhoKeepsTheAddressAnnouncesItWhenTheOtherHasGivenWay(t *testing.T) {
	t.Parallel()
	d := beginDuo(t, scenario.Unsafe, scenario.Options{})
	d.cut()
	id := map[*lab.Host]string{}
	for _, h := range d.Both() {
		_, id[h], _ = strings.Cut(d.phase(h, "sole", "").Generation, ".")
		d.Lab.Eventually(limit, h.Name+" to have the address", func() bool { return h.HasAddress(scenario.VIP) })
	}
	keeps, gives := d.Director1, d.Director2
	if id[gives] > id[keeps] {
		keeps, gives = gives, keeps
	}
	time.Sleep(announcing)
	d.Client.Run("ip", "neigh", "replace", scenario.VIP, "lladdr", gives.PortOn(d.Service).MAC.String(), "dev", "eth0", "nud", "reachable")
	d.client.WaitAnswer(gives.Name, probe.Now(), limit)

	healed := probe.Now()
	d.Lab.Heal()
	d.client.WaitAnswer(keeps.Name, healed, limit)
	d.settle()
	d.noMoreThan(time.Second, healed, gives.Name+" gave way when the links were whole again")
}
