//go:build labkernel

package kernel

import (
	"strings"
	"testing"
)

// bound is a pool whose clients stay with a server for ten minutes.
const bound = `checkinterval: 1s
checktimeout: 20s
virtual:
  - address: ` + vip + `:80
    real: [` + real1 + `:80 gate, ` + real2 + `:80 gate, ` + real3 + `:80 gate]
    service: http
    request: .test.html
    receive: ok
    scheduler: rr
    persistent: 10m
`

// A server is emptied without anybody noticing it: what is open on it goes on,
// and where its clients go next is as documented.
func TestADrainedServerOfAPersistentService(t *testing.T) {
	p := classicPair(t)
	resources := resourcesOf + "      - vip: " + vip + "/24/eth1\n      - ldirectord: ldirectord.yaml\n"
	p.write(map[string]string{
		"authkeys": exampleFiles(t)["authkeys"], "ha.yaml": haCalm,
		"haresources.yaml": resources, "ldirectord.yaml": bound,
	})
	p.start()
	p.waitOwner(p.director1)
	all := map[string]int{real1: 1, real2: 1, real3: 1}
	p.waitWeights(p.director1, all)
	address := map[string]string{"rs1": real1, "rs2": real2, "rs3": real3}
	http := vip + ":80"

	// Visitors come and are never the same; each is bound to a server by its first page.
	last := 60
	comes := func() (v *visitor, to string) {
		t.Helper()
		v = p.visitor(last)
		last++
		for to = range v.visits(1, http) {
		}
		v.only(to, http, "a client that is bound")
		return v, to
	}
	drain := func(name string) {
		t.Helper()
		p.must(p.director1, "real", "drain", address[name])
		weights := map[string]int{real1: 1, real2: 1, real3: 1}
		weights[address[name]] = 0
		p.waitWeights(p.director1, weights)
	}
	enable := func(name string) {
		t.Helper()
		p.must(p.director2, "real", "enable", address[name])
		p.waitWeights(p.director1, all)
	}
	// What a drained server has open goes on; nobody comes to it who was not there before.
	goesOn := func(on string, open *transfer, download *stream) {
		t.Helper()
		open.goesOn(p, "with its server drained")
		download.goesOn(t, "with its server drained")
		if open.server() != on {
			t.Errorf("the open connection has gone from %s to %s", on, open.server())
		}
		for range 4 {
			if _, to := comes(); to == on {
				t.Errorf("a client that is new has come to %s, which is drained", on)
			}
		}
	}
	// The scheduler is rr: of three that are new one comes to each.
	comeBack := func(to string) {
		t.Helper()
		for range 6 {
			if _, at := comes(); at == to {
				return
			}
		}
		t.Errorf("of six new clients none has come to %s, which is enabled again", to)
	}
	opens := func(v *visitor) (*transfer, *stream) {
		t.Helper()
		c, err := v.dial(http)
		if err != nil {
			t.Fatal(err)
		}
		open, download := p.transferOn("a kept connection", c, http), v.stream("a download", http)
		open.goesOn(p, "at first")
		download.goesOn(t, "at first")
		return open, download
	}
	expires := func(want string) {
		t.Helper()
		p.lab.Eventually(limit, "expire_quiescent_template to be "+want, func() bool {
			return strings.TrimSpace(p.director1.Run("cat", "/proc/sys/net/ipv4/vs/expire_quiescent_template")) == want
		})
	}
	apply := func(file, text string) {
		t.Helper()
		p.director1.WriteFile("/etc/keepbeat/"+file, text, 0o644)
		p.must(p.director1, "apply")
	}

	// elsewhere is the rule: the next connection of a client that is bound goes to another server.
	elsewhere := func(t *testing.T) {
		client, server := comes()
		open, download := opens(client)
		drain(server)
		var now string
		for now = range client.visits(1, http) {
		}
		if now == server {
			t.Errorf("the next connection of a client goes to %s still, which is drained", server)
		}
		client.only(now, http, "a client that was bound to a drained server is bound to another")
		goesOn(server, open, download)
		enable(server)
		client.only(now, http, "a client that had to go stays where it is")
		comeBack(server)
		goOnAfter(p, t, open, download, server)
	}

	p.scene("its clients go elsewhere with their next connection", func(t *testing.T) {
		expires("1")
		elsewhere(t)
	})

	p.scene("they stay with expire_quiescent_template: no", func(t *testing.T) {
		apply("haresources.yaml", "ipvs: {expire_quiescent_template: no}\n"+resources)
		expires("0")
		client, server := comes()
		open, download := opens(client)
		drain(server)
		client.only(server, http, "a client whose template does not expire")
		goesOn(server, open, download)
		enable(server)
		comeBack(server)
		goOnAfter(p, t, open, download, server)
		apply("haresources.yaml", resources)
		expires("1")
	})

	p.scene("they go without quiescent, too", func(t *testing.T) {
		apply("ldirectord.yaml", bound+"    quiescent: no\n")
		p.lab.Eventually(limit, "the new pool", func() bool { return !p.detail().Services[0].Quiescent })
		elsewhere(t)
	})
}

func goOnAfter(p *pair, t *testing.T, open *transfer, download *stream, server string) {
	t.Helper()
	open.goesOn(p, "with its server enabled again")
	download.goesOn(t, "with its server enabled again")
	if open.server() != server {
		t.Errorf("the open connection has gone from %s to %s", server, open.server())
	}
}
