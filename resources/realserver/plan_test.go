package realserver

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

func side(address string, f conf.Forward) conf.RealServer {
	return conf.RealServer{Address: netip.MustParseAddr(address), Forward: f}
}

func TestWhatAVirtualAddressNeeds(t *testing.T) {
	for name, c := range map[string]struct {
		addresses []conf.RealServer
		want      string
	}{
		"gate IPv4": {[]conf.RealServer{side("192.0.2.1", conf.Gate)}, `
sysctl -w net.ipv4.conf.all.arp_ignore=1
sysctl -w net.ipv4.conf.all.arp_announce=2
ip address add 192.0.2.1/32 dev lo`},
		"gate IPv6: nobody is answered for what another interface has": {[]conf.RealServer{side("2001:db8::1", conf.Gate)}, `
ip address add 2001:db8::1/128 dev lo`},
		"ipip IPv4": {[]conf.RealServer{side("192.0.2.1", conf.IPIP)}, `
modprobe ipip
ip link set tunl0 up
sysctl -w net.ipv4.conf.tunl0.rp_filter=2
sysctl -w net.ipv4.conf.all.arp_ignore=1
sysctl -w net.ipv4.conf.all.arp_announce=2
ip address add 192.0.2.1/32 dev tunl0`},
		"ipip IPv6": {[]conf.RealServer{side("2001:db8::1", conf.IPIP)}, `
modprobe ip6_tunnel
ip link set ip6tnl0 up
ip address add 2001:db8::1/128 dev ip6tnl0`},
		"of two addresses the addresses come last, and nothing comes twice": {[]conf.RealServer{side("192.0.2.1", conf.Gate), side("192.0.2.2", conf.Gate)}, `
sysctl -w net.ipv4.conf.all.arp_ignore=1
sysctl -w net.ipv4.conf.all.arp_announce=2
ip address add 192.0.2.1/32 dev lo
ip address add 192.0.2.2/32 dev lo`},
	} {
		t.Run(name, func(t *testing.T) {
			var got strings.Builder
			for _, s := range All(c.addresses) {
				got.WriteString("\n" + s.String())
			}
			if got.String() != c.want {
				t.Errorf("steps:%s\nwant:%s", got.String(), c.want)
			}
		})
	}
}

func TestWhatIsAlreadyEnough(t *testing.T) {
	ignore, announce, filter := Step{Sysctl, arpIgnore, "1"}, Step{Sysctl, arpAnnounce, "2"}, Step{Sysctl, filter4, "2"}
	for _, c := range []struct {
		name       string
		step       Step
		now, other string
		want       bool
	}{
		{"arp_ignore 0 answers for every address", ignore, "0", "", false},
		{"arp_ignore 2 is stricter", ignore, "2", "", true},
		{"arp_ignore 4 is reserved and does nothing", ignore, "4", "", false},
		{"arp_ignore 8 answers for nothing", ignore, "8", "", true},
		{"arp_announce 1 may still use the address", announce, "1", "", false},
		{"arp_announce 2", announce, "2", "", true},
		{"a strict filter for all", filter, "0", "1", false},
		{"a strict filter of the tunnel", filter, "1", "0", false},
		{"no filter", filter, "0", "0", true},
		{"a loose filter for all beats the tunnel's", filter, "1", "2", true},
		{"no number", ignore, "", "", false},
	} {
		if got := enough(c.step, c.now, c.other); got != c.want {
			t.Errorf("%s: enough %v, want %v", c.name, got, c.want)
		}
	}
}

func TestAddressesThatCannotBe(t *testing.T) {
	for _, c := range []struct {
		a    conf.RealServer
		want string
	}{
		{side("127.0.0.1", conf.Gate), "cannot be the virtual address"},
		{side("224.0.0.1", conf.Gate), "cannot be the virtual address"},
		{side("fe80::1", conf.Gate), "cannot be the virtual address"},
		{conf.RealServer{Forward: conf.Gate}, "cannot be the virtual address"},
		{side("192.0.2.1", conf.Masq), "needs nothing of this kind"},
		{side("192.0.2.1", 0), "is not gate or ipip"},
	} {
		if err := Check(c.a); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v %v: %v, want %q", c.a.Address, c.a.Forward, err, c.want)
		}
	}
}
