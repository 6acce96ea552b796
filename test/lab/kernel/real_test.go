//go:build labkernel

package kernel

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
)

// shop is a pool of two services that share two of three servers.
const shop = `checkinterval: 1s
checktimeout: 20s
service: http
request: .test.html
receive: ok
virtual:
  - address: ` + vip + `:80
    real: [` + real1 + `:80 gate, ` + real2 + `:80 gate 2, ` + real3 + `:80 gate]
    scheduler: wrr
  - address: ` + vip + `:8080
    real: [` + real1 + `:8080 gate, ` + real2 + `:8080 gate]
    scheduler: wrr
`

// shopTable is what the kernel has of it, by the weights of the three servers
// of port 80 and of the two of port 8080.
func shopTable(weights ...any) string {
	return fmt.Sprintf(`-A -t 192.168.56.200:80 -s wrr
-A -t 192.168.56.200:8080 -s wrr
-a -t 192.168.56.200:80 -r 192.168.56.103:80 -g -w %d
-a -t 192.168.56.200:80 -r 192.168.56.104:80 -g -w %d
-a -t 192.168.56.200:80 -r 192.168.56.105:80 -g -w %d
-a -t 192.168.56.200:8080 -r 192.168.56.103:8080 -g -w %d
-a -t 192.168.56.200:8080 -r 192.168.56.104:8080 -g -w %d
`, weights...)
}

// table is what a host's kernel has, as ipvsadm saves it, sorted.
func table(h *lab.Host) string {
	out, err := h.Try("ipvsadm", "-Sn")
	if err != nil {
		return ""
	}
	var lines []string
	for line := range strings.Lines(out) {
		lines = append(lines, strings.TrimSpace(line)+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func (p *pair) waitTable(h *lab.Host, want, what string) {
	p.t.Helper()
	var got string
	if !eventually(func() bool { got = table(h); return got == want }) {
		p.t.Fatalf("%s: the table on %s is\n%swant\n%s", what, h.Name, got, want)
	}
}

// typed runs a command that has to print what is wanted, in which UNTIL stands for a time.
func (p *pair) typed(h *lab.Host, command, want string) {
	p.t.Helper()
	if got := p.says(h, command); got != want {
		p.t.Errorf("keepbeat %s on %s says\n%swant\n%s", command, h.Name, got, want)
	}
}

// eventuallyTyped is typed for what a node knows a moment later than the others.
func (p *pair) eventuallyTyped(h *lab.Host, command, want string) {
	p.t.Helper()
	if !eventually(func() bool { return p.says(h, command) == want }) {
		p.typed(h, command, want)
	}
}

func (p *pair) says(h *lab.Host, command string) string {
	p.t.Helper()
	return anyTime.ReplaceAllString(p.must(h, words(command)...), "UNTIL")
}

// eventually says whether something becomes true within the limit.
func eventually(ok func() bool) bool {
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

var anyTime = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC`)

// words splits a command as a shell does that knows single quotes alone.
func words(command string) []string {
	var all []string
	for i, part := range strings.Split(command, "'") {
		if i%2 == 1 {
			all = append(all, part)
		} else {
			all = append(all, strings.Fields(part)...)
		}
	}
	return all
}

// refused runs a command that has to fail with an exit code and a message.
func (p *pair) refused(h *lab.Host, code int, command, want string) {
	p.t.Helper()
	out, err := p.try(h, words(command)...)
	if lab.ExitCode(err) != code || out != want {
		p.t.Errorf("keepbeat %s: exit status %d, want %d; it says\n%swant\n%s", command, lab.ExitCode(err), code, out, want)
	}
}

func TestOrdersForRealServersAsAnAdministratorTypesThem(t *testing.T) {
	p := newPair(t)
	for i, name := range []string{"rs1", "rs2", "rs3"} {
		h := p.host(name, 103+i)
		h.AddressOnLo(vip)
		p.reals = append(p.reals, h)
		p.httpd = append(p.httpd, h.StartHTTP(h.Name, ":80", ":8080"))
	}
	p.write(map[string]string{
		"authkeys": exampleFiles(t)["authkeys"], "ha.yaml": haCalm,
		"haresources.yaml": resourcesOf + "      - vip: " + vip + "/24/eth1\n      - ldirectord: ldirectord.yaml\n",
		"ldirectord.yaml":  shop,
	})
	p.start()
	p.waitOwner(p.director1)
	p.waitTable(p.director1, shopTable(1, 2, 1, 1, 1), "at first")
	browser := p.browseCalmly()
	begun := probe.Now()
	ordered := shopTable(0, 7, 1, 1, 7)

	p.scene("they are in the table, whichever node they are typed on", func(t *testing.T) {
		p.typed(p.director1, "real list", "no real server has an order\n")
		p.typed(p.director2, "real drain 192.168.56.103:80 --reason 'new kernel'", "real server 192.168.56.103:80: drained by root: new kernel\n"+
			"  192.168.56.200:80 tcp of ldirectord.yaml\n"+
			"`keepbeat status` shows the connections that are left; `keepbeat real enable 192.168.56.103:80` ends this\n")
		p.waitTable(p.director1, shopTable(0, 2, 1, 1, 1), "one server drained")
		p.typed(p.arbiter, "real weight 192.168.56.104 7 --for 1h", "real server 192.168.56.104:80: weight 7 ordered by root until UNTIL\n"+
			"  192.168.56.200:80 tcp of ldirectord.yaml\n"+
			"real server 192.168.56.104:8080: weight 7 ordered by root until UNTIL\n"+
			"  192.168.56.200:8080 tcp of ldirectord.yaml\n"+
			"its checks go on to take it out and in; `keepbeat real enable 192.168.56.104` ends this before its time\n")
		p.waitTable(p.director1, ordered, "another weight for every port of a server")
	})

	shown := func(owner *lab.Host, what string) {
		t.Helper()
		p.waitOwner(owner)
		p.waitTable(owner, ordered, what)
		p.lab.Eventually(limit, what+": status to show both orders", func() bool {
			out := p.must(owner, "status")
			return drainedRow.MatchString(out) && weightRow.MatchString(out)
		})
		for _, h := range p.nodes() {
			if !h.Dead() {
				p.eventuallyTyped(h, "real list", `
192.168.56.103:80    drained by root: new kernel                             192.168.56.200:80 tcp of ldirectord.yaml
192.168.56.104:80    weight 7 ordered by root until UNTIL  192.168.56.200:80 tcp of ldirectord.yaml
192.168.56.104:8080  weight 7 ordered by root until UNTIL  192.168.56.200:8080 tcp of ldirectord.yaml
`[1:])
			}
		}
	}

	p.scene("they are shown, and stand for the next owner as for this one", func(t *testing.T) {
		shown(p.director1, "on the first owner")
		p.must(p.director1, "standby", "--wait=30s")
		shown(p.director2, "after a standby")
		p.faultless(browser, begun, "orders and a standby")
	})

	p.scene("what nobody has is refused with what there is", func(t *testing.T) {
		const all = "192.168.56.103:80, 192.168.56.103:8080, 192.168.56.104:80, 192.168.56.104:8080, 192.168.56.105:80"
		for _, word := range []string{"rs1", "192.168.56.109", "192.168.56.103:81"} {
			p.refused(p.director1, 1, "real drain "+word, "keepbeat: no pool has a real server \""+word+"\"; there are "+all+"\n")
		}
		p.refused(p.director1, 1, "real disable "+vip+":8080",
			"keepbeat: 192.168.56.200:8080 is no real server but a virtual service; its real servers are 192.168.56.103:8080, 192.168.56.104:8080\n")
		p.typed(p.director1, "real enable 192.168.56.105", "real server 192.168.56.105:80: there was no order for it\n  192.168.56.200:80 tcp of ldirectord.yaml\n")
		p.waitTable(p.director2, ordered, "after what was refused")
	})

	p.scene("what would empty a service is refused with the command that does it all the same, and ends by itself", func(t *testing.T) {
		p.must(p.director1, "real", "drain", real1+":8080")
		p.waitTable(p.director2, shopTable(0, 7, 1, 0, 7), "one of two drained")
		const again = "keepbeat real disable 192.168.56.104:8080 --for 3s --reason 'disk' --force"
		p.refused(p.director1, 3, "real disable 192.168.56.104:8080 --for 3s --reason disk",
			"keepbeat: virtual service 192.168.56.200:8080 tcp of ldirectord.yaml would have no real server that takes new connections; `"+again+"` does it all the same\n")
		p.typed(p.director1, strings.TrimPrefix(again, "keepbeat "), "real server 192.168.56.104:8080: disabled by root until UNTIL: disk; before: weight 7 ordered by root until UNTIL\n"+
			"  192.168.56.200:8080 tcp of ldirectord.yaml\n"+
			"its checks go on, and do not count; `keepbeat real enable 192.168.56.104:8080` ends this before its time\n")
		p.lab.Eventually(limit, "the server to be up again", func() bool { return table(p.director2) == shopTable(0, 7, 1, 0, 1) })
		if log := p.daemons[p.director2].Log(); !strings.Contains(log, "-e -t 192.168.56.200:8080 -r 192.168.56.104:8080 -g -w 0") {
			t.Error("the kernel was never told of the disabled server")
		}
		if out := p.must(p.director1, "history"); !strings.Contains(strings.Join(strings.Fields(out), " "), "real server 192.168.56.104:8080: enabled again, the time of the order is over") {
			t.Errorf("history says\n%s", out)
		}
		p.must(p.director1, "real", "enable", real1+":8080")
		p.must(p.director1, "real", "weight", real2+":8080", "7", "--for", "1h")
		p.waitTable(p.director2, ordered, "the last server enabled again")
	})

	p.scene("the owner's death takes none of them away", func(t *testing.T) {
		died := p.director2.Die()
		shown(p.director1, "after the owner's death")
		for _, s := range browser.Samples() {
			if s.Who == "rs1" && s.Sent > died {
				t.Errorf("a page from rs1, which is drained, %v after the death of the owner", s.Received.Sub(died))
				break
			}
		}
	})

	p.scene("they outlast an apply, and what is enabled has the weight of the file", func(t *testing.T) {
		since := browser.WaitAnswer("", probe.Now(), limit).Sent
		p.director1.WriteFile(pool, strings.Replace(shop, real2+":80 gate 2", real2+":80 gate 3", 1), 0o644)
		p.must(p.director1, "apply")
		p.typed(p.director1, "real enable "+real1, "real server 192.168.56.103:80: enabled; it was drained by root: new kernel\n"+
			"  192.168.56.200:80 tcp of ldirectord.yaml\n"+
			"real server 192.168.56.103:8080: there was no order for it\n"+
			"  192.168.56.200:8080 tcp of ldirectord.yaml\n")
		p.waitTable(p.director1, shopTable(1, 7, 1, 1, 7), "one enabled after an apply")
		p.must(p.arbiter, "real", "enable", real2)
		p.waitTable(p.director1, shopTable(1, 3, 1, 1, 1), "all enabled")
		p.typed(p.director1, "real list", "no real server has an order\n")
		browser.WaitAnswer("rs1", probe.Now(), limit)
		p.faultless(browser, since, "an apply and servers enabled")
	})
}

var (
	drainedRow = regexp.MustCompile(`192\.168\.56\.103:80 +gate +0/1 +drained +\d+\+\d+\s+drained by root: new kernel`)
	weightRow  = regexp.MustCompile(`192\.168\.56\.104:8080 +gate +7/1 +up +\d+\+\d+\s+weight 7 ordered by root until`)
)
