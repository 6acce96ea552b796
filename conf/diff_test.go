package conf

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDiffInWords(t *testing.T) {
	parse := func(groups, pool string) *Spec {
		t.Helper()
		s, _, err := ParseSpec(Files{Haresources: []byte(groups), Pools: map[string][]byte{"p.yaml": []byte(pool), "q.yaml": []byte(pool), "r.yaml": []byte("virtual: [{address: 10.0.0.1:85, checktype: ping, real: [10.0.0.5 gate]}]")}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	const pool = `
virtual:
  - address: 10.0.0.1:80
    real: [10.0.0.5:80 gate, 10.0.0.6:80 gate]
    fallback: 127.0.0.1 gate
  - address: 10.0.0.1:443
    real: [10.0.0.5 gate]
`
	const groups = "groups:\n  web: {prefer: [a, b], resources: [{vip: 10.0.0.1/24}, {ldirectord: p.yaml}]}\n"
	base := parse(groups, pool)
	change := func(old, new string) *Spec { t.Helper(); return parse(groups, strings.Replace(pool, old, new, 1)) }
	regroup := func(old, new string) *Spec { t.Helper(); return parse(strings.Replace(groups, old, new, 1), pool) }
	settings := parse(groups, pool)
	settings.Settings.Profile = ProfileFast
	for name, c := range map[string]struct {
		to   *Spec
		want string
	}{
		"nothing":            {parse(groups, pool), ""},
		"weight":             {change("10.0.0.5:80 gate", "10.0.0.5:80 gate 2"), "pool p.yaml: virtual 10.0.0.1:80 tcp: real 10.0.0.5:80: weight 1 -> 2"},
		"server removed":     {change("10.0.0.5:80 gate, ", ""), "pool p.yaml: virtual 10.0.0.1:80 tcp: real 10.0.0.5:80 removed"},
		"server added":       {change("10.0.0.6:80 gate", "10.0.0.6:80 gate, 10.0.0.7:80 gate"), "pool p.yaml: virtual 10.0.0.1:80 tcp: real 10.0.0.7:80 added"},
		"order of servers":   {change("10.0.0.5:80 gate, 10.0.0.6:80 gate", "10.0.0.6:80 gate, 10.0.0.5:80 gate"), "pool p.yaml: virtual 10.0.0.1:80 tcp: real: order 10.0.0.5:80, 10.0.0.6:80 -> 10.0.0.6:80, 10.0.0.5:80"},
		"scheduler":          {change("fallback", "scheduler: wlc\n    fallback"), "pool p.yaml: virtual 10.0.0.1:80 tcp: scheduler wrr -> wlc"},
		"check":              {change("real: [10.0.0.5 gate]", "real: [10.0.0.5 gate]\n    receive: o k\n    checkinterval: 1m"), "pool p.yaml: virtual 10.0.0.1:443 tcp: real 10.0.0.5:443: check: receive none -> \"o k\"\npool p.yaml: virtual 10.0.0.1:443 tcp: real 10.0.0.5:443: check: interval 10s -> 1m"},
		"fallback":           {change("    fallback: 127.0.0.1 gate\n", ""), "pool p.yaml: virtual 10.0.0.1:80 tcp: fallback 127.0.0.1:80 removed"},
		"fallback changed":   {change("127.0.0.1 gate", "127.0.0.2 masq"), "pool p.yaml: virtual 10.0.0.1:80 tcp: fallback 127.0.0.1:80 removed\npool p.yaml: virtual 10.0.0.1:80 tcp: fallback 127.0.0.2:80 added"},
		"fallbacks in order": {change("fallback: 127.0.0.1 gate", "fallback: [10.0.0.9 masq 3, 127.0.0.1 gate]"), "pool p.yaml: virtual 10.0.0.1:80 tcp: fallback 10.0.0.9:80 added"},
		"fallback's check":   {change("fallback: 127.0.0.1 gate", "fallback: {address: 127.0.0.1, checktype: ping}"), "pool p.yaml: virtual 10.0.0.1:80 tcp: fallback 127.0.0.1:80: check: type on -> ping\npool p.yaml: virtual 10.0.0.1:80 tcp: fallback 127.0.0.1:80: check: target none -> 127.0.0.1:0\npool p.yaml: virtual 10.0.0.1:80 tcp: fallback 127.0.0.1:80: check: interval 0s -> 10s\npool p.yaml: virtual 10.0.0.1:80 tcp: fallback 127.0.0.1:80: check: timeout 0s -> 5s\npool p.yaml: virtual 10.0.0.1:80 tcp: fallback 127.0.0.1:80: check: fall 0 -> 1\npool p.yaml: virtual 10.0.0.1:80 tcp: fallback 127.0.0.1:80: check: rise 0 -> 1"},
		"tunnel":             {change("10.0.0.5:80 gate", "10.0.0.5:80 ipip gue:6080 csum"), "pool p.yaml: virtual 10.0.0.1:80 tcp: real 10.0.0.5:80: forward gate -> ipip\npool p.yaml: virtual 10.0.0.1:80 tcp: real 10.0.0.5:80: tunnel none -> gue\npool p.yaml: virtual 10.0.0.1:80 tcp: real 10.0.0.5:80: tunnel_port 0 -> 6080\npool p.yaml: virtual 10.0.0.1:80 tcp: real 10.0.0.5:80: tunnel_checksum none -> csum"},
		"mail":               {change("fallback", "emailalert: a@example.org, b\n    smtp: mail\n    fallback"), "pool p.yaml: virtual 10.0.0.1:80 tcp: email: to none -> a@example.org,b\npool p.yaml: virtual 10.0.0.1:80 tcp: email: server none -> mail"},
		"quorum and hooks":   {change("fallback", "quorum: 2\n    notify_up: /bin/say\n    slow_start: 1m\n    fallback"), "pool p.yaml: virtual 10.0.0.1:80 tcp: quorum 0 -> 2\npool p.yaml: virtual 10.0.0.1:80 tcp: slow_start 0s -> 1m\npool p.yaml: virtual 10.0.0.1:80 tcp: real 10.0.0.5:80: notify_up none -> /bin/say\npool p.yaml: virtual 10.0.0.1:80 tcp: real 10.0.0.6:80: notify_up none -> /bin/say"},
		"of a pool":          {change("virtual:", "maintenancedir: /srv/m\ncallback: /bin/say\nexecute: r.yaml\nvirtual:"), "pool p.yaml: executes none -> r.yaml\npool p.yaml: maintenancedir none -> /srv/m\npool p.yaml: callback none -> /bin/say\npool p.yaml: virtual 10.0.0.1:85 tcp added"},
		"service added":      {change("virtual:\n", "virtual:\n  - {address: 10.0.0.1:81, service: http, real: [10.0.0.5 gate]}\n"), "pool p.yaml: virtual 10.0.0.1:81 tcp added"},
		"autoreload":         {change("virtual:", "autoreload: yes\nvirtual:"), "pool p.yaml: autoreload no -> yes"},
		"resource added":     {regroup("{vip: 10.0.0.1/24}", "{vip: 10.0.0.1/24}, {vip: 10.0.0.2}"), "group web: resource \"vip 10.0.0.2\" added"},
		"prefix":             {regroup("10.0.0.1/24", "10.0.0.1/32"), "group web: resource \"vip 10.0.0.1\": vip: prefix 24 -> 32"},
		"prefer":             {regroup("[a, b]", "[b]"), "group web: prefer a, b -> b"},
		"time-out":           {regroup("{vip: 10.0.0.1/24}", "{vip: 10.0.0.1/24, stop_timeout: 1m}"), "group web: resource \"vip 10.0.0.1\": stop_timeout 20s -> 1m"},
		"another pool":       {regroup("p.yaml", "q.yaml"), "group web: resource \"ldirectord p.yaml\" removed\ngroup web: resource \"ldirectord q.yaml\" added\npool p.yaml removed (2 virtual services)\npool q.yaml added (2 virtual services)"},
		"group renamed":      {regroup("web:", "www:"), "group web removed\ngroup www added"},
		"profile":            {settings, "settings: profile: name default -> fast\nsettings: profile: keepalive 100ms -> 40ms\nsettings: profile: lease 500ms -> 200ms\nsettings: profile: raft_heartbeat 200ms -> 80ms\nsettings: profile: raft_lease 100ms -> 40ms"},
		"everything is new":  {nil, "group web removed\npool p.yaml removed (2 virtual services)"},
	} {
		t.Run(name, func(t *testing.T) {
			got := strings.Join(Diff(base, c.to), "\n")
			if c.to == nil {
				got = strings.Join(Diff(base, c.to)[len(Diff(base, c.to))-2:], "\n")
			}
			if got != c.want {
				t.Errorf("it says\n%s\nwant\n%s", got, c.want)
			}
		})
	}
	first := Diff(nil, base)
	if len(first) == 0 || first[len(first)-1] != "pool p.yaml added (2 virtual services)" {
		t.Errorf("the first version: %q", first)
	}
}

func TestDiffOfFencingInWords(t *testing.T) {
	base := parseFencing(t, whole, nil)
	change := func(old, new string) *Spec {
		t.Helper()
		if !strings.Contains(whole, old) {
			t.Fatalf("no %q", old)
		}
		return parseFencing(t, strings.Replace(whole, old, new, 1), nil)
	}
	secret := parseFencing(t, whole, nil)
	secret.Fencing.Devices[0].Params["password"] = Param{Value: "hunter2"}
	without := parseFencing(t, whole, nil)
	without.Fencing = nil
	for name, c := range map[string]struct {
		to   *Spec
		want string
	}{
		"nothing":          {change("off", "off"), ""},
		"action":           {change("action: off", "action: reboot"), "fencing: action off -> reboot"},
		"delay":            {change("priority_fencing_delay: 10s", "priority_fencing_delay: 20s"), "fencing: priority_fencing_delay 10s -> 20s"},
		"time-out":         {change("timeout: 90s", "timeout: 2m"), "fencing: device ipmi-director1: timeout 1m30s -> 2m"},
		"run_on":           {change("      run_on: [director2]\n", ""), "fencing: device ipmi-director1: run_on director2 -> none"},
		"program":          {change("fence_ipmilan", "fence_ilo4"), "fencing: device ipmi-director1: program fence_ipmilan -> fence_ilo4"},
		"type":             {change("script: /etc/keepbeat/fence.sh", "agent: fence_x"), "fencing: device hook: type script -> agent\nfencing: device hook: program /etc/keepbeat/fence.sh -> fence_x"},
		"parameter":        {change("ip: 10.9.0.1, ", "ip: 10.9.0.2, cipher: \"1 7\", "), "fencing: device ipmi-director1: param cipher none -> \"1 7\"\nfencing: device ipmi-director1: param ip 10.9.0.1 -> 10.9.0.2"},
		"place of secret":  {change("{env: PDU_COMMUNITY}", "{file: /x}"), "fencing: device pdu-a: param community env PDU_COMMUNITY -> file /x"},
		"secret":           {secret, "fencing: device ipmi-director1: param password file /etc/keepbeat/ipmi.secret -> ****"},
		"port":             {change("{director1: 3,", "{director1: 7,"), "fencing: device pdu-a: target director1: port 3 -> 7"},
		"target":           {change("manual: yes, targets: [director1, director2]", "manual: yes, targets: [director1]"), "fencing: device hands: target director2 removed"},
		"topology":         {change("[hook, dog], hands]", "[hook, dog]]"), "fencing: topology director1 ipmi-director1, then pdu-a and pdu-b, then hook and dog, then hands -> ipmi-director1, then pdu-a and pdu-b, then hook and dog"},
		"topology is new":  {change("    director1: [ipmi-director1, [pdu-a", "    director2: hands\n    director1: [ipmi-director1, [pdu-a"), "fencing: topology director2 none -> hands"},
		"priority":         {change("priority: 10, ", ""), "group web: priority 10 -> 1"},
		"no fencing":       {without, "fencing removed (6 devices)"},
		"device is gone":   {change(", dog], hands]\n", "], hands]\n"), "fencing: topology director1 ipmi-director1, then pdu-a and pdu-b, then hook and dog, then hands -> ipmi-director1, then pdu-a and pdu-b, then hook, then hands"},
		"order of devices": {change("    hook:  {script: /etc/keepbeat/fence.sh, targets: [director1, director2]}\n    hands: {manual: yes, targets: [director1, director2]}\n", "    hands: {manual: yes, targets: [director1, director2]}\n    hook:  {script: /etc/keepbeat/fence.sh, targets: [director1, director2]}\n"), "fencing: device: order ipmi-director1, pdu-a, pdu-b, hook, hands, dog -> ipmi-director1, pdu-a, pdu-b, hands, hook, dog"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := strings.Join(Diff(base, c.to), "\n"); got != c.want {
				t.Errorf("it says\n%s\nwant\n%s", got, c.want)
			}
		})
	}
	if got := Diff(without, base); len(got) != 1 || got[0] != "fencing added (6 devices)" {
		t.Errorf("fencing that is new: %q", got)
	}
}

func TestADifferenceShowsNoSecret(t *testing.T) {
	spec := func(c Check, also ...Check) *Spec {
		v := Virtual{Address: netip.MustParseAddrPort("10.0.0.1:80"), Protocol: TCP, Reals: []Real{{Address: netip.MustParseAddrPort("10.0.0.5:80"), Check: c, Also: also}}}
		return &Spec{Pools: map[string]Pool{"p.yaml": {Virtuals: []Virtual{v}}}}
	}
	const token = "hunter2"
	a := spec(Check{Type: Negotiate, Passwd: token, Body: token}, Check{Type: Negotiate, Service: "radius", Secret: token})
	b := spec(Check{Type: Negotiate, Passwd: token + token, Headers: "Authorization: " + token}, Check{Type: Negotiate, Service: "radius", Secret: token, Login: "me"}, Check{Type: Ping, Passwd: token})
	const real = "pool p.yaml: virtual 10.0.0.1:80 tcp: real 10.0.0.5:80: check"
	want := []string{real + ": passwd changed", real + ": headers added", real + ": body removed", real + " 2: login none -> me", real + " 3 added (ping)"}
	if d := cmp.Diff(want, Diff(a, b)); d != "" {
		t.Error(d)
	}
	if got := Diff(b, spec(Check{Type: Negotiate, Passwd: token + token, Headers: "Authorization: " + token})); len(got) != 2 || got[0] != real+" 2 removed (negotiate radius)" {
		t.Errorf("%q", got)
	}
}
