package cluster

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
)

const serialDevice = "/etc/keepbeat/ttyS0"

func TestAPairWhoseSerialLineIsAllThatIsLeftKeepsEverything(t *testing.T) {
	t.Parallel()
	for _, rule := range rules {
		t.Run(string(rule), func(t *testing.T) {
			t.Parallel()
			o := options(rule)
			o.Links = []string{"- bcast: eth1", "- bcast: eth2", "- serial: {device: " + serialDevice + ", baud: 115200}"}
			d := newDuo(t, rule, o)
			cable := d.Lab.NullModem()
			for i, h := range d.Both() {
				if err := os.Symlink(cable.Devices[i], h.Path(serialDevice)); err != nil {
					t.Fatal(err)
				}
			}
			d.StartAll(limit)
			d.client.WaitAnswer("", d.client.From, limit)
			d.settle()
			owner, epoch, was := d.owner(), d.epoch(), d.generation(d.Director1)
			standby, began := d.Other(owner), probe.Now()
			undecided := func(since probe.Instant, what string) {
				t.Helper()
				d.neverSilent(since, what)
				for _, h := range d.Both() {
					if g := d.generation(h); g != was {
						t.Errorf("%s: %s went from generation %d to %d", what, h.Name, was, g)
					}
				}
				if n := len(d.Power.Uses()); n > 0 {
					t.Errorf("%s: %d uses of the device", what, n)
				}
				d.stayed(began, place{owner, epoch}, place{d.owner(), d.epoch()}, what)
			}

			d.part("every network link is cut, also between them on the service network", func() {
				since := probe.Now()
				d.Lab.Partition([]*lab.Host{owner}, []*lab.Host{standby})
				for _, h := range d.Both() {
					if p := d.phase(h, "whole", "only the serial line is left"); !p.OnlySerial {
						t.Errorf("%s: %+v", h.Name, p)
					}
					if out := d.must(h, "status"); !strings.Contains(strings.Join(strings.Fields(out), " "), "only the serial line is left") {
						t.Errorf("status on %s does not say why:\n%s", h.Name, out)
					}
				}
				time.Sleep(3 * aWhile)
				for _, h := range d.Both() {
					d.phase(h, "whole", "only the serial line is left")
				}
				undecided(since, "the serial line alone")
				d.Lab.Heal()
				d.settle()
				undecided(since, "the networks' return")
			})

			d.part("the line alone is cut", func() {
				since := probe.Now()
				cable.Cut()
				d.see(owner, "the line to be down", func(st cluster.Status) bool { return linksIn(st, "down") == 1 })
				time.Sleep(aWhile)
				undecided(since, "the loss of the line")
				cable.Mend()
				d.settle()
			})

			d.part("the owner dies when the line is all that is left", func() {
				for _, s := range d.Heartbeat {
					owner.PortOn(s).Block()
				}
				d.phase(standby, "whole", "only the serial line is left")
				since := owner.Die()
				d.takenOver(standby, since, epoch)
				d.Lab.Heal()
				d.comesBack(owner)
			})
		})
	}
}
