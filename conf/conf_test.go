package conf

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func sameAddresses() cmp.Options {
	return cmp.Options{
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	}
}

func example(t *testing.T, dir, node string) (*Local, *Spec) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("examples", dir, "ha.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	local, _, err := ParseLocal("/etc/keepbeat/ha.yaml", data, node)
	if err != nil {
		t.Fatal(err)
	}
	spec, _, err := LoadSpec(filepath.Join("examples", dir), local)
	if err != nil {
		t.Fatal(err)
	}
	return local, spec
}

func pool(t *testing.T, text string) Pool {
	t.Helper()
	p := newPoolReader("p.yaml")
	pool := p.read([]byte(text))
	if err := asError(p.errs, oneFile); err != nil {
		t.Fatal(err)
	}
	return pool
}

func TestTheClassicPairMeansWhatItsOldFilesSay(t *testing.T) {
	local, spec := example(t, "heartbeat-2", "Director2")
	wantLocal := &Local{
		Cluster: "web-directors", Name: "director2",
		Nodes:    []Node{{"director1", Director}, {"director2", Director}, {"arbiter", Witness}},
		Links:    []Link{{Type: Bcast, Interface: "eth1", Port: 694}, {Type: Bcast, Interface: "eth2", Port: 694}},
		AuthKeys: "/etc/keepbeat/authkeys", DataDir: "/var/lib/keepbeat", RunDir: "/run/keepbeat", ConfDir: "/etc/keepbeat",
		Guard: GuardOn, Quorum: QuorumMajority, Profile: ProfileDefault, RestartLease: 30 * time.Second,
	}
	if d := cmp.Diff(wantLocal, local, sameAddresses()); d != "" {
		t.Errorf("ha.yaml (-want +got):\n%s", d)
	}
	real := func(s string) Real {
		return Real{Address: netip.MustParseAddrPort(s), Forward: Gate, Weight: 1, Check: Check{
			Type: Negotiate, Service: "http", Target: netip.MustParseAddrPort(s), Request: "/.test.html", Receive: "ok", HTTPMethod: "GET",
			Interval: time.Second, Timeout: 3 * time.Second, Fall: 1, Rise: 1,
		}}
	}
	vip := DefaultResource(KindVIP)
	vip.Name = "vip 192.168.56.200"
	vip.VIP = &VIP{Address: netip.MustParseAddr("192.168.56.200"), Prefix: 32, Interface: "eth1",
		Broadcast: netip.MustParseAddr("192.168.56.200"), ARPCount: 5, ARPInterval: time.Second}
	ipvs := DefaultResource(KindLdirectord)
	ipvs.Name, ipvs.Pool = "ldirectord ldirectord.yaml", "ldirectord.yaml"
	want := &Spec{
		Settings: Settings{Profile: ProfileDefault, RestartLease: 30 * time.Second},
		Groups:   []Group{{Name: "192.168.56.200", Prefer: []string{"director1"}, AutoFailback: true, Priority: 1, Resources: []Resource{vip, ipvs}}},
		Pools: map[string]Pool{"ldirectord.yaml": {Autoreload: true, Virtuals: []Virtual{{
			Address: netip.MustParseAddrPort("192.168.56.200:80"), Protocol: TCP, Scheduler: "wlc", Netmask: 32, Quiescent: true, CleanStop: true,
			Reals:     []Real{real("192.168.56.103:80"), real("192.168.56.104:80")},
			Fallbacks: []Real{{Address: netip.MustParseAddrPort("127.0.0.1:80"), Forward: Gate, Weight: 1, Check: Check{Type: On}}},
		}}}},
	}
	if d := cmp.Diff(want, spec, sameAddresses()); d != "" {
		t.Errorf("specification (-want +got):\n%s", d)
	}
}

func TestLinksReadTheSameInEveryForm(t *testing.T) {
	const nodes = "nodes: [a, b, c]\nlinks:\n"
	for name, c := range map[string]struct {
		link string
		want Link
	}{
		"bcast short":      {"- bcast: eth1", Link{Type: Bcast, Interface: "eth1", Port: 694}},
		"bcast long":       {"- bcast: {interface: eth1, port: 695}", Link{Type: Bcast, Interface: "eth1", Port: 695}},
		"mcast name":       {"- mcast: eth1", Link{Type: Mcast, Interface: "eth1", Port: 694, Group: DefaultGroup(), TTL: 1}},
		"mcast words":      {"- mcast: eth1 239.0.0.5 700 4 0", Link{Type: Mcast, Interface: "eth1", Port: 700, Group: netip.MustParseAddr("239.0.0.5"), TTL: 4}},
		"mcast long":       {"- mcast: {interface: eth1, group: 239.0.0.5, port: 700, ttl: 4}", Link{Type: Mcast, Interface: "eth1", Port: 700, Group: netip.MustParseAddr("239.0.0.5"), TTL: 4}},
		"ucast words":      {"- ucast: eth1 10.0.0.2", Link{Type: Ucast, Interface: "eth1", Port: 694, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.2")}}},
		"ucast long":       {"- ucast: {interface: eth1, addresses: [10.0.0.2, 10.0.0.3]}", Link{Type: Ucast, Interface: "eth1", Port: 694, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")}}},
		"udpport":          {"- bcast: eth1\nudpport: 1694", Link{Type: Bcast, Interface: "eth1", Port: 1694}},
		"udpport and port": {"- bcast: {interface: eth1, port: 695}\nudpport: 1694", Link{Type: Bcast, Interface: "eth1", Port: 695}},
	} {
		t.Run(name, func(t *testing.T) {
			l, _, err := ParseLocal("ha.yaml", []byte(nodes+c.link+"\n"), "a")
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff([]Link{c.want}, l.Links, sameAddresses()); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestTimingsOverTheProfile(t *testing.T) {
	l, _, err := ParseLocal("ha.yaml", []byte("nodes: [a, b, c]\nlinks: [{bcast: e0}, {bcast: e1}]\nprofile: calm\ndeadtime: 1s\n"), "a")
	if err != nil {
		t.Fatal(err)
	}
	want := Profile{"custom", 250 * time.Millisecond, time.Second, 400 * time.Millisecond, 200 * time.Millisecond}
	if l.Profile != want {
		t.Errorf("%+v", l.Profile)
	}
}

func TestVIPForms(t *testing.T) {
	addr := netip.MustParseAddr
	for text, want := range map[string]VIP{
		"10.0.0.5":                              {Address: addr("10.0.0.5"), Prefix: -1},
		"10.0.0.5/24":                           {Address: addr("10.0.0.5"), Prefix: 24},
		"10.0.0.5/255.255.255.0":                {Address: addr("10.0.0.5"), Prefix: 24},
		"10.0.0.5/24/eth0":                      {Address: addr("10.0.0.5"), Prefix: 24, Interface: "eth0"},
		"10.0.0.5/24/eth0:web":                  {Address: addr("10.0.0.5"), Prefix: 24, Interface: "eth0", Label: "web"},
		"10.0.0.5/24/eth0:web/10.0.0.255":       {Address: addr("10.0.0.5"), Prefix: 24, Interface: "eth0", Label: "web", Broadcast: addr("10.0.0.255")},
		"10.0.0.5/24/10.0.0.255":                {Address: addr("10.0.0.5"), Prefix: 24, Broadcast: addr("10.0.0.255")},
		"192.168.56.200/32/eth1/192.168.56.200": {Address: addr("192.168.56.200"), Prefix: 32, Interface: "eth1", Broadcast: addr("192.168.56.200")},
		"2001:db8::1/64/eth0":                   {Address: addr("2001:db8::1"), Prefix: 64, Interface: "eth0"},
		"::ffff:10.0.0.5/24":                    {Address: addr("10.0.0.5"), Prefix: 24},
		"fe80::1/64/bond0.100":                  {Address: addr("fe80::1"), Prefix: 64, Interface: "bond0.100"},
		"10.0.0.5/32/a-fifteen-chars":           {Address: addr("10.0.0.5"), Prefix: 32, Interface: "a-fifteen-chars"},
		"10.0.0.5/32/eth0:ten4567890":           {Address: addr("10.0.0.5"), Prefix: 32, Interface: "eth0", Label: "ten4567890"},
	} {
		v := VIP{Prefix: -1}
		if err := v.parse(text); err != nil {
			t.Errorf("%s: %v", text, err)
		} else if err := v.check(); err != nil {
			t.Errorf("%s: %v", text, err)
		} else if v != want {
			t.Errorf("%s: %+v, want %+v", text, v, want)
		}
	}
}

func TestOldResourceWords(t *testing.T) {
	files := Files{
		Haresources: []byte("haresources:\n" +
			"- Director1 IPaddr2::10.0.0.1/24/eth0  IPv6addr::2001:db8::1/64 ldirectord\n" +
			"- director2 2001:db8::2/64/eth0 IPaddr::10.0.0.2 ldirectord::b.yaml\n"),
		Pools: map[string][]byte{
			"ldirectord.yaml": []byte("virtual: [{address: 10.0.0.1:80, real: [10.0.0.9 gate]}]"),
			"b.yaml":          []byte("virtual: [{address: 10.0.0.2:80, real: [10.0.0.9 gate]}]"),
		},
	}
	spec, warns, err := ParseSpec(files, nil)
	if err != nil || len(warns) > 0 {
		t.Fatal(warns, err)
	}
	var got []string
	for _, g := range spec.Groups {
		for _, r := range g.Resources {
			got = append(got, fmt.Sprintf("%s %v: %s", g.Name, g.Prefer, r.Name))
		}
	}
	want := []string{
		"10.0.0.1 [director1]: vip 10.0.0.1", "10.0.0.1 [director1]: vip 2001:db8::1", "10.0.0.1 [director1]: ldirectord ldirectord.yaml",
		"2001:db8::2 [director2]: vip 2001:db8::2", "2001:db8::2 [director2]: vip 10.0.0.2", "2001:db8::2 [director2]: ldirectord b.yaml",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// The value of a virtual service goes before the global one; and of the two
// time-outs each stands in for the other.
func TestChecksInherit(t *testing.T) {
	for name, c := range map[string]struct {
		global, own string
		want        Check
	}{
		"nothing given":          {"", "", Check{Type: Negotiate, Timeout: 30 * time.Second}},
		"connect":                {"", "checktype: connect", Check{Type: Connect, Timeout: 5 * time.Second}},
		"global checktimeout":    {"checktimeout: 3s", "", Check{Type: Negotiate, Timeout: 3 * time.Second}},
		"both global":            {"checktimeout: 3s\nnegotiatetimeout: 7s", "", Check{Type: Negotiate, Timeout: 7 * time.Second}},
		"own before global":      {"negotiatetimeout: 7s", "checktimeout: 2s", Check{Type: Negotiate, Timeout: 2 * time.Second}},
		"connect by negotiate":   {"negotiatetimeout: 7s", "checktype: connect", Check{Type: Connect, Timeout: 7 * time.Second}},
		"counts":                 {"failurecount: 2\nrise: 3", "rise: 4", Check{Type: Negotiate, Timeout: 30 * time.Second, Fall: 2, Rise: 4}},
		"connect to UDP is ping": {"", "checktype: connect\nprotocol: udp", Check{Type: Ping, Timeout: 5 * time.Second}},
		"always up":              {"", "checktype: on\nrequest: /x", Check{Type: On, Timeout: 5 * time.Second}},
		"never up":               {"", "checktype: off", Check{Type: Off, Timeout: 5 * time.Second}},
		"external":               {"", "checktype: external\ncheckcommand: /bin/true", Check{Type: External, Command: "/bin/true", Args: "10.0.0.1 80 10.0.0.11 80", Timeout: 5 * time.Second}},
		"https":                  {"", "service: https\nvirtualhost: www.example.org:8443", Check{Type: Negotiate, Service: "https", VirtualHost: "www.example.org:8443", TLSName: "www.example.org", Timeout: 30 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			text := c.global + "\nvirtual:\n  - address: 10.0.0.1:80\n    real: [10.0.0.11 gate]\n"
			for _, line := range strings.Split(c.own, "\n") {
				text += "    " + line + "\n"
			}
			want := c.want
			want.Interval = 10 * time.Second
			want.Fall, want.Rise = max(want.Fall, 1), max(want.Rise, 1)
			port := uint16(80)
			switch want.Type {
			case Ping, On, Off:
				port = 0
			case Negotiate:
				want.Request, want.HTTPMethod = "/", "GET"
				if want.Service == "" {
					want.Service = "http"
				}
			}
			want.Target = netip.AddrPortFrom(netip.MustParseAddr("10.0.0.11"), port)
			if got := pool(t, text).Virtuals[0].Reals[0].Check; got != want {
				t.Errorf("%+v\nwant %+v", got, want)
			}
		})
	}
}

func TestRealServersInEveryForm(t *testing.T) {
	p := pool(t, `
virtual:
  - address: 10.0.0.1:80
    request: index.html
    receive: fine
    checkport: 81
    real:
      - 10.0.0.11 gate
      - 10.0.0.12:80 ipip 7
      - 10.0.0.13->10.0.0.14:8080 masq 3
      - 10.0.0.15:http gate 2 "own.html", "o\.k"
      - 10.0.0.16 gate "own.html" u:10 l:5
      - {address: 10.0.0.17, forward: gate, weight: 0, request: /o, receive: x, checkport: 82, virtualhost: h}
      - {address: 10.0.0.18->10.0.0.19, forward: gate}
`)
	var got []string
	for _, r := range p.Virtuals[0].Reals {
		got = append(got, fmt.Sprintf("%s %s %d l:%d u:%d check %s %s %q %s", r.Address, r.Forward, r.Weight, r.Lower, r.Upper, r.Check.Target, r.Check.Request, r.Check.Receive, r.Check.VirtualHost))
	}
	want := `10.0.0.11:80 gate 1 l:0 u:0 check 10.0.0.11:81 /index.html "fine" 
10.0.0.12:80 ipip 7 l:0 u:0 check 10.0.0.12:81 /index.html "fine" 
10.0.0.13:8080 masq 3 l:0 u:0 check 10.0.0.13:81 /index.html "fine" 
10.0.0.14:8080 masq 3 l:0 u:0 check 10.0.0.14:81 /index.html "fine" 
10.0.0.15:80 gate 2 l:0 u:0 check 10.0.0.15:81 /own.html "o\\.k" 
10.0.0.16:80 gate 1 l:5 u:10 check 10.0.0.16:81 /own.html "fine" 
10.0.0.17:80 gate 0 l:0 u:0 check 10.0.0.17:82 /o "x" h
10.0.0.18:80 gate 1 l:0 u:0 check 10.0.0.18:81 /index.html "fine" 
10.0.0.19:80 gate 1 l:0 u:0 check 10.0.0.19:81 /index.html "fine" `
	if d := cmp.Diff(strings.Split(want, "\n"), got); d != "" {
		t.Error(d)
	}
}

func TestMarksHaveTheFamilyOfTheirServers(t *testing.T) {
	p := pool(t, `
virtual:
  - {fwmark: 0x10, checktype: ping, real: [10.0.0.11 gate]}
  - {address: 16, checktype: ping, real: ["[2001:db8::1] gate"]}
  - {fwmark: 17, ipv6: yes, checktype: ping, real: [{address: 10.0.0.9, forward: ipip}]}
  - {fwmark: 18, service: http, real: [10.0.0.9:8080 masq, 10.0.0.10 gate]}
`)
	var got []string
	for _, v := range p.Virtuals {
		got = append(got, fmt.Sprintf("%s /%d %s", v, v.Netmask, v.Reals[0].Check.Target))
	}
	want := []string{"fwmark 16 /32 10.0.0.11:0", "fwmark 16 inet6 /128 [2001:db8::1]:0", "fwmark 17 inet6 /128 10.0.0.9:0", "fwmark 18 /32 10.0.0.9:8080"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got := p.Virtuals[3].Reals[1].Check.Target.String(); got != "10.0.0.10:80" {
		t.Errorf("a server without a port is checked at %s", got)
	}
}

func TestTheSameVirtualServiceInTwoPoolsIsRefused(t *testing.T) {
	p := []byte("virtual: [{address: 10.0.0.1:80, real: [10.0.0.9 gate]}]")
	_, _, err := ParseSpec(Files{
		Name:        "/etc/keepbeat/haresources.yaml",
		Haresources: []byte("groups: {a: {resources: [{vip: 10.0.0.1}, {ldirectord: a.yaml}]}, b: {resources: [{ldirectord: b.yaml}]}}"),
		Pools:       map[string][]byte{"a.yaml": p, "b.yaml": p},
	}, nil)
	const want = "/etc/keepbeat/b.yaml:1:11: duplicate virtual 10.0.0.1:80 tcp; it is already in /etc/keepbeat/a.yaml:1"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestErrorsComeSortedAndTogether(t *testing.T) {
	_, _, err := ParseSpec(Files{
		Haresources: []byte("groups:\n  web: {resources: [{ldirectord: b.yaml}, {ldirectord: a.yaml}], prefer: [], x: 1}\n"),
		Pools:       map[string][]byte{"a.yaml": []byte("virtual: 1"), "b.yaml": []byte("virtual: 2")},
	}, nil)
	var list Errors
	if !errors.As(err, &list) || len(list) != 3 {
		t.Fatal(err)
	}
	var first *Error
	if !errors.As(err, &first) || first.File != HaresourcesName || first.Line != 2 {
		t.Errorf("first is %v", first)
	}
	if list[1].File != "a.yaml" || list[2].File != "b.yaml" {
		t.Error(err)
	}
}

func TestMissingFilesAreNamed(t *testing.T) {
	dir := t.TempDir()
	for name, load := range map[string]func() error{
		"ha.yaml":       func() error { _, _, err := LoadLocal(filepath.Join(dir, "ha.yaml")); return err },
		HaresourcesName: func() error { _, _, err := LoadSpec(dir, nil); return err },
		"authkeys":      func() error { _, _, err := LoadAuthKeys(filepath.Join(dir, "authkeys")); return err },
	} {
		err := load()
		if !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), filepath.Join(dir, name)+": no such file; ") {
			t.Errorf("%s: %v", name, err)
		}
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %T is no Error", name, err)
		}
	}
}

func TestAuthKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "authkeys")
	const text = "# comment\nauth 2 # the new one\n\n1 md5 0123456789abcdef\n2 sha1 fedcba9876543210#x  # comment\n15 sha1 aaaaaaaaaaaaaaaa\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, active, err := LoadAuthKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range keys {
		got = append(got, fmt.Sprint(k.Index, " ", k.Method, " ", string(k.Secret.Bytes())))
	}
	want := []string{"2 sha1 fedcba9876543210#x", "1 md5 0123456789abcdef", "15 sha1 aaaaaaaaaaaaaaaa"}
	if d := cmp.Diff(want, got); d != "" || active != 2 {
		t.Error(active, d)
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o660, 0o610} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, _, err := LoadAuthKeys(path)
		want := fmt.Sprintf("%s: mode %04o lets others at the keys; run: chmod 600 %s", path, mode, path)
		if err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if err := errors.Join(os.Chmod(path, 0o400), os.Chown(path, 12345, 0)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := LoadAuthKeys(path); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
		t.Error(err)
	}
}

func TestAKeyIsNeverPrinted(t *testing.T) {
	const key = "0123456789abcdef"
	k := Key{Index: 1, Method: "sha1", Secret: NewSecret(key)}
	hidden := struct{ k Key }{k}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", k, "secret", k.Secret, "hidden", hidden)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", k, "secret", k.Secret, "hidden", hidden)
	hex := fmt.Sprintf("%x", key)
	printed := []string{log.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		for _, x := range []any{k, &k, hidden, &hidden, k.Secret, &k.Secret, []Key{k}} {
			printed = append(printed, fmt.Sprintf(verb, x))
		}
	}
	for _, s := range printed {
		if strings.Contains(s, key) || strings.Contains(s, hex) {
			t.Errorf("the key is in %s", s)
		}
	}
	// A key in the place of another word does not come back in the message.
	for _, text := range []string{"auth " + key, key, "1 " + key, "auth 1\n1 sha1 " + key + " " + key, "1 crc " + key, key + " sha1 1"} {
		_, _, err := ParseAuthKeys([]byte(text))
		if err == nil || strings.Contains(err.Error(), key) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestEveryKeyIsDescribed(t *testing.T) {
	keys := Keys()
	if len(keys) < 80 {
		t.Errorf("%d keys", len(keys))
	}
	for _, k := range keys {
		if k.Key == "" || len(k.Doc) < 10 || !strings.HasSuffix(k.Doc, ".") {
			t.Errorf("%+v", k)
		}
	}
}
