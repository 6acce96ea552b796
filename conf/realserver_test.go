package conf

import (
	"net/netip"
	"slices"
	"testing"
)

func TestRealServerFile(t *testing.T) {
	four, six := netip.MustParseAddr("192.168.56.200"), netip.MustParseAddr("2001:db8::1")
	for name, c := range map[string]struct {
		text string
		want []RealServer
		err  string
	}{
		"a list":             {"virtual: [192.168.56.200, \"2001:db8::1 ipip\"]\n", []RealServer{{four, Gate}, {six, IPIP}}, ""},
		"one":                {"virtual: 192.168.56.200 gate\n", []RealServer{{four, Gate}}, ""},
		"no key":             {"{}\n", nil, `realserver.yaml:1:1: "virtual" is missing; list the virtual addresses: "virtual: [192.168.56.200 gate]"`},
		"a wrong key":        {"virtuel: 192.168.56.200\n", nil, `realserver.yaml:1:1: unknown key "virtuel"; did you mean "virtual"?`},
		"an empty list":      {"virtual: []\n", nil, `realserver.yaml:1:10: the list of virtual addresses is empty; write "[192.168.56.200 gate]"`},
		"masq":               {"virtual: 192.168.56.200 masq\n", nil, `realserver.yaml:1:10: "192.168.56.200 masq": a real server of forward method masq has no virtual address; its default route leads through the director`},
		"a wrong method":     {"virtual: 192.168.56.200 tun\n", nil, `realserver.yaml:1:10: "192.168.56.200 tun": forward method "tun" is not gate or ipip`},
		"more words":         {"virtual: 192.168.56.200 gate 5\n", nil, `realserver.yaml:1:10: "192.168.56.200 gate 5": "5" is not understood there; write "ADDRESS gate" or "ADDRESS ipip"`},
		"loopback":           {"virtual: 127.0.0.1\n", nil, `realserver.yaml:1:10: 127.0.0.1 cannot be the virtual address of a real server`},
		"the same one twice": {"virtual: [192.168.56.200, 192.168.56.200 ipip]\n", nil, `realserver.yaml:1:27: duplicate virtual address 192.168.56.200`},
		"no address":         {"virtual: www\n", nil, `realserver.yaml:1:10: "www" is not an IP address; names are not looked up (a name server that is slow or lies must not move traffic): write the address`},
		"a port":             {"virtual: 192.168.56.200:80\n", nil, `realserver.yaml:1:10: "192.168.56.200:80" has a port, and a real server takes the whole address; write "192.168.56.200"`},
		"a prefix":           {"virtual: 192.168.56.200/32 gate\n", nil, `realserver.yaml:1:10: "192.168.56.200/32" has a prefix, and a real server takes the address alone; write "192.168.56.200"`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseRealServerFile("realserver.yaml", []byte(c.text))
			msg := ""
			if err != nil {
				msg = err.Error()
			}
			if msg != c.err || !slices.Equal(got, c.want) {
				t.Errorf("got %v, %q\nwant %v, %q", got, msg, c.want, c.err)
			}
		})
	}
}

func TestRealServerIsAResource(t *testing.T) {
	spec, _, err := ParseSpec(Files{Haresources: []byte("groups: {real: {resources: [{realserver: [192.168.56.200 gate, 192.168.56.201 ipip]}]}}\n")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := spec.Groups[0].Resources[0]
	if r.Kind != KindRealServer || r.Name != "realserver 192.168.56.200" || r.Class != Shared || len(r.RealServer) != 2 || r.RealServer[1].Forward != IPIP {
		t.Errorf("resource: %+v", r)
	}
	canonical, err := spec.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := ParseCanonical(canonical); err != nil || again.Groups[0].Resources[0].RealServer[0] != r.RealServer[0] {
		t.Errorf("read back: %v", err)
	}
}
