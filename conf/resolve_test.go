package conf

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// hosts answers for the names that it has; "slow" answers when the time is over.
type hosts map[string]string

func testHosts() hosts {
	return hosts{
		"www.example.org":  "10.0.0.22 10.0.0.21 10.0.0.22 2001:db8::21",
		"one.example.org":  "10.0.0.31",
		"five.example.org": "10.0.0.35",
		"six.example.org":  "2001:db8::31",
		"vip.example.org":  "10.0.0.1",
		"zero.example.org": "0.0.0.0",
	}
}

func (h hosts) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if host == "slow" {
		<-ctx.Done()
		return nil, &net.DNSError{Err: ctx.Err().Error(), Name: host, IsTimeout: true}
	}
	var addrs []netip.Addr
	for _, f := range strings.Fields(h[host]) {
		if a := netip.MustParseAddr(f); network == "ip" || a.Is6() == (network == "ip6") {
			addrs = append(addrs, a)
		}
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

// named reads a pool whose names testHosts knows.
func named(t *testing.T, text string) (Pool, []Warning, error) {
	t.Helper()
	spec, warns, err := ParseSpec(Files{
		Haresources: []byte("groups: {web: {resources: [{vip: 10.0.0.1}, {vip: 2001:db8::1}, {ldirectord: p.yaml}]}}"),
		Pools:       map[string][]byte{"p.yaml": []byte(text)}, Resolver: testHosts(),
	}, nil)
	if err != nil {
		return Pool{}, warns, err
	}
	return spec.Pools["p.yaml"], warns, nil
}

func TestNamesBecomeTheirAddressesOnce(t *testing.T) {
	p, warns, err := named(t, `
fallback: one.example.org:81 masq
virtual:
  - address: vip.example.org:http
    real:
      - WWW.example.org gate 3
      - 10.0.0.30->five.example.org:webcache masq
      - {address: "one.example.org:domain", forward: masq}
      - 10.0.0.40 gate
  - address: "[2001:db8::1]:https"
    checktype: connect
    real: [www.example.org gate]
    fallback: [six.example.org]
`)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range p.Virtuals {
		for _, r := range append(v.Reals, v.Fallbacks...) {
			got = append(got, fmt.Sprintf("%s: %s %q", v, r.Address, r.Host))
		}
	}
	for _, w := range warns {
		got = append(got, w.Msg)
	}
	want := []string{
		`10.0.0.1:80 tcp: 10.0.0.21:80 "WWW.example.org"`, `10.0.0.1:80 tcp: 10.0.0.22:80 "WWW.example.org"`,
		`10.0.0.1:80 tcp: 10.0.0.30:8080 ""`, `10.0.0.1:80 tcp: 10.0.0.31:8080 ""`, `10.0.0.1:80 tcp: 10.0.0.32:8080 ""`, `10.0.0.1:80 tcp: 10.0.0.33:8080 ""`, `10.0.0.1:80 tcp: 10.0.0.34:8080 ""`, `10.0.0.1:80 tcp: 10.0.0.35:8080 ""`,
		`10.0.0.1:80 tcp: 10.0.0.31:53 "one.example.org"`, `10.0.0.1:80 tcp: 10.0.0.40:80 ""`, `10.0.0.1:80 tcp: 10.0.0.31:81 "one.example.org"`,
		`[2001:db8::1]:443 tcp: [2001:db8::21]:443 "www.example.org"`, `[2001:db8::1]:443 tcp: [2001:db8::31]:443 "six.example.org"`,
		"fallback one.example.org: resolved once, when this version is made, to 10.0.0.31",
		"virtual service vip.example.org: resolved once, when this version is made, to 10.0.0.1",
		"real server WWW.example.org: resolved once, when this version is made, to 10.0.0.21, 10.0.0.22",
		"range five.example.org: resolved once, when this version is made, to 10.0.0.35",
		"real server one.example.org: resolved once, when this version is made, to 10.0.0.31",
		"real server www.example.org: resolved once, when this version is made, to 2001:db8::21",
		"fallback six.example.org: resolved once, when this version is made, to 2001:db8::31",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestAllNamesTogetherHaveFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, _, err := named(t, "virtual: [{address: 10.0.0.1:80, real: [slow gate, one.example.org gate, slow:80 gate, slow masq]}]")
		const want = `p.yaml:1:41: real server "slow": the name does not resolve to an IPv4 address (no answer in time); write the address, or repair the name: it is looked up once, when a version is made`
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		if took := time.Since(start); took != resolveTimeout {
			t.Errorf("took %v", took)
		}
	})
}

// noNames fails the test when something is looked up.
type noNames struct{ *testing.T }

func (n noNames) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	n.Error("a name was looked up")
	return nil, nil
}

func TestFilesWithoutNamesAskNobody(t *testing.T) {
	_, _, err := ParseSpec(Files{
		Haresources: []byte("groups: {web: {resources: [{vip: 10.0.0.1}, {ldirectord: p.yaml}]}}"),
		Pools:       map[string][]byte{"p.yaml": []byte("smtp: mail.example.org\nemailalert: a@example.org\nvirtual: [{address: 10.0.0.1:http, virtualhost: www.example.org, real: [10.0.0.2-10.0.0.3:80 gate]}]")},
		Resolver:    noNames{t},
	}, nil)
	if err != nil {
		t.Error(err)
	}
}
