package conf

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// inLines shows the services of a pool, what is not the default in words.
func inLines(p Pool) string {
	var b strings.Builder
	server := func(word string, r Real) {
		fmt.Fprintf(&b, "  %s %s %s %d", word, r.Address, r.Forward, r.Weight)
		if r.Forward == IPIP {
			fmt.Fprintf(&b, " %s:%d %s", r.Tunnel, r.TunnelPort, r.TunnelChecksum)
		}
		fmt.Fprintf(&b, " check %s", r.Check.Type)
		if r.Check.Target.IsValid() {
			fmt.Fprintf(&b, " %s", r.Check.Target)
		}
		if r.NotifyUp+r.NotifyDown != "" {
			fmt.Fprintf(&b, " up %q down %q", r.NotifyUp, r.NotifyDown)
		}
		b.WriteByte('\n')
	}
	for _, v := range p.Virtuals {
		fmt.Fprintf(&b, "%s %s %v\n", v, v.Scheduler, v.Flags)
		for _, r := range v.Reals {
			server("real", r)
		}
		for _, r := range v.Fallbacks {
			server("fallback", r)
		}
	}
	return b.String()
}

func TestPoolsReadAs(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"a group of addresses has a service for each": {`
virtual:
  - address: [10.0.0.1-2:80, "[2001:db8::1]:80", 10.0.1.1->10.0.1.2:8080, 7]
    checktype: ping
    real: [10.0.0.9 ipip]
`, `10.0.0.1:80 tcp wrr []
  real 10.0.0.9:80 ipip 1 ipip:0 nocsum check ping 10.0.0.9:0
10.0.0.2:80 tcp wrr []
  real 10.0.0.9:80 ipip 1 ipip:0 nocsum check ping 10.0.0.9:0
[2001:db8::1]:80 tcp wrr []
  real 10.0.0.9:80 ipip 1 ipip:0 nocsum check ping 10.0.0.9:0
10.0.1.1:8080 tcp wrr []
  real 10.0.0.9:8080 ipip 1 ipip:0 nocsum check ping 10.0.0.9:0
10.0.1.2:8080 tcp wrr []
  real 10.0.0.9:8080 ipip 1 ipip:0 nocsum check ping 10.0.0.9:0
fwmark 7 wrr []
  real 10.0.0.9:0 ipip 1 ipip:0 nocsum check ping 10.0.0.9:0
`},
		"without a port, and persistent, it is all ports": {`
fallback: 127.0.0.1:8080
virtual:
  - address: [10.0.0.1, "2001:db8::1"]
    persistent: 5m
    service: http
    real: [192.0.2.9 ipip]
`, `10.0.0.1:0 tcp wrr []
  real 192.0.2.9:0 ipip 1 ipip:0 nocsum check negotiate 192.0.2.9:80
  fallback 127.0.0.1:0 gate 1 check on
[2001:db8::1]:0 tcp wrr []
  real 192.0.2.9:0 ipip 1 ipip:0 nocsum check negotiate 192.0.2.9:80
`},
		"the ports of a group are each their own": {`
virtual:
  - address: [10.0.0.1:80, 10.0.0.1:443]
    checktype: connect
    real: [10.0.0.9 gate, 10.0.0.10:8080 masq]
`, `10.0.0.1:80 tcp wrr []
  real 10.0.0.9:80 gate 1 check connect 10.0.0.9:80
  real 10.0.0.10:8080 masq 1 check connect 10.0.0.10:8080
10.0.0.1:443 tcp wrr []
  real 10.0.0.9:443 gate 1 check connect 10.0.0.9:443
  real 10.0.0.10:8080 masq 1 check connect 10.0.0.10:8080
`},
		"tunnels in words and in mappings": {`
virtual:
  - address: 10.0.0.1:80
    checktype: ping
    real:
      - 10.0.0.11 ipip ipip 5
      - 10.0.0.12 ipip gue:6080 remcsum 5
      - 10.0.0.13 ipip gre
      - 10.0.0.14 ipip csum gre 0 u:5
      - {address: 10.0.0.15, forward: ipip, tunnel: gue, tunnel_port: 1, tunnel_checksum: csum}
      - 10.0.0.16 ipip "gre"
`, `10.0.0.1:80 tcp wrr []
  real 10.0.0.11:80 ipip 5 ipip:0 nocsum check ping 10.0.0.11:0
  real 10.0.0.12:80 ipip 5 gue:6080 remcsum check ping 10.0.0.12:0
  real 10.0.0.13:80 ipip 1 gre:0 nocsum check ping 10.0.0.13:0
  real 10.0.0.14:80 ipip 0 gre:0 csum check ping 10.0.0.14:0
  real 10.0.0.15:80 ipip 1 gue:1 csum check ping 10.0.0.15:0
  real 10.0.0.16:80 ipip 1 ipip:0 nocsum check ping 10.0.0.16:0
`},
		"fallbacks in order, one of them checked": {`
fallback: 127.0.0.1:8080
fallback6: ["[::1]:81 masq 3", "[::1]"]
virtual:
  - {address: 10.0.0.1:80, checktype: ping, real: [10.0.0.9 gate]}
  - {address: 10.0.0.1:81, checktype: ping, real: [10.0.0.9 gate], fallback: []}
  - {address: 10.0.0.1:82, checktype: connect, real: [10.0.0.9 gate], fallback: [10.0.0.10 gate 7, {address: 10.0.0.11:8080, forward: masq, weight: 2, checkport: 8081}, {address: 10.0.0.12}]}
  - {address: "[2001:db8::1]:80", checktype: ping, real: ["2001:db8::9 gate"]}
  - {fwmark: 5, checktype: ping, real: [10.0.0.9 gate]}
`, `10.0.0.1:80 tcp wrr []
  real 10.0.0.9:80 gate 1 check ping 10.0.0.9:0
  fallback 127.0.0.1:80 gate 1 check on
10.0.0.1:81 tcp wrr []
  real 10.0.0.9:81 gate 1 check ping 10.0.0.9:0
10.0.0.1:82 tcp wrr []
  real 10.0.0.9:82 gate 1 check connect 10.0.0.9:82
  fallback 10.0.0.10:82 gate 7 check on
  fallback 10.0.0.11:8080 masq 2 check connect 10.0.0.11:8081
  fallback 10.0.0.12:82 gate 1 check on
[2001:db8::1]:80 tcp wrr []
  real [2001:db8::9]:80 gate 1 check ping [2001:db8::9]:0
  fallback [::1]:81 masq 3 check on
  fallback [::1]:80 gate 1 check on
fwmark 5 wrr []
  real 10.0.0.9:0 gate 1 check ping 10.0.0.9:0
  fallback 127.0.0.1:0 gate 1 check on
`},
		"a server's own hooks go before the service's": {`
virtual:
  - address: 10.0.0.1:80
    checktype: ping
    notify_up: /bin/up
    notify_down: /bin/down
    real: [10.0.0.11 gate, {address: 10.0.0.12, forward: gate, notify_down: /bin/own}]
`, `10.0.0.1:80 tcp wrr []
  real 10.0.0.11:80 gate 1 check ping 10.0.0.11:0 up "/bin/up" down "/bin/down"
  real 10.0.0.12:80 gate 1 check ping 10.0.0.12:0 up "/bin/up" down "/bin/own"
`},
		"protocols and flags": {`
virtual:
  - {address: 10.0.0.1:80, protocol: sctp, checktype: ping, scheduler: sh, schedflags: "flag-2,sh-fallback, flag-3", real: [10.0.0.9 gate]}
  - {address: 10.0.0.1:80, checktype: ping, scheduler: mh, schedflags: [mh-port, flag-2], real: [10.0.0.9 gate]}
  - {address: "10.0.0.1:53", checktype: ping, scheduler: rr, schedflags: flag-1, real: [10.0.0.9 gate]}
`, `10.0.0.1:80 sctp sh [flag-3 sh-fallback sh-port]
  real 10.0.0.9:80 gate 1 check ping 10.0.0.9:0
10.0.0.1:80 tcp mh [mh-port]
  real 10.0.0.9:80 gate 1 check ping 10.0.0.9:0
10.0.0.1:53 udp rr [flag-1]
  real 10.0.0.9:53 gate 1 check ping 10.0.0.9:0
`},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(c.want, inLines(pool(t, c.text))); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestWhatAServiceTakesFromThePool(t *testing.T) {
	p := pool(t, `
quiescent: no
cleanstop: no
readdquiescent: yes
fallbackcommand: /bin/fall
emailalert: a@example.org
emailalertfrom: from@example.org
emailalertfreq: 1m
emailalertstatus: stopping,running
smtp: "[2001:db8::25]:587"
maintenancedir: /srv/m/
callback: /bin/sync
virtual:
  - {address: 10.0.0.1:80, checktype: ping, real: [10.0.0.9 gate]}
  - {address: 10.0.0.1:81, checktype: ping, real: [10.0.0.9 gate], quiescent: yes, cleanstop: yes, readdquiescent: no,
     fallbackcommand: /bin/own, emailalert: [b, c@example.org], emailalertfreq: 0s, emailalertstatus: [none], smtp: mail:2525}
  - {address: 10.0.0.1:53, checktype: ping, real: [10.0.0.9 gate, 10.0.0.10 gate 2], ops: yes, quorum: 2, hysteresis: 1, quorum_up: /bin/u, quorum_down: /bin/d,
     alpha: yes, omega: yes, slow_start: 90s, monitorfile: /var/log/m, servicename: names, comment: for the names}
  - {address: 10.0.0.1:5060, protocol: udp, checktype: ping, real: [10.0.0.9 gate], persistent: 10m, persistence_engine: sip}
`)
	if p.MaintenanceDir != "/srv/m" || p.Callback != "/bin/sync" {
		t.Errorf("%q %q", p.MaintenanceDir, p.Callback)
	}
	all := Email{To: "a@example.org", From: "from@example.org", Server: "[2001:db8::25]:587", Every: 60e9, Status: "stopping,running"}
	if p.Email != all {
		t.Errorf("%+v", p.Email)
	}
	base := Virtual{Protocol: TCP, Scheduler: "wrr", Netmask: 32, ReaddQuiescent: true, FallbackCommand: "/bin/fall", Email: all}
	own := base
	own.Quiescent, own.CleanStop, own.ReaddQuiescent, own.FallbackCommand = true, true, false, "/bin/own"
	own.Email = Email{To: "b,c@example.org", From: "from@example.org", Server: "mail:2525", Status: "none"}
	names := base
	names.Protocol, names.OPS, names.Quorum, names.Hysteresis, names.QuorumUp, names.QuorumDown = UDP, true, 2, 1, "/bin/u", "/bin/d"
	names.Alpha, names.Omega, names.SlowStart, names.MonitorFile, names.Name, names.Comment = true, true, 90e9, "/var/log/m", "names", "for the names"
	sip := base
	sip.Protocol, sip.Persistent, sip.Engine = UDP, 600e9, "sip"
	for i, want := range []Virtual{base, own, names, sip} {
		got := p.Virtuals[i]
		got.Address, got.Reals = want.Address, nil
		if d := cmp.Diff(want, got, sameAddresses()); d != "" {
			t.Errorf("%s (-want +got):\n%s", p.Virtuals[i], d)
		}
	}
}
