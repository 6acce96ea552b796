package conf

import (
	"strings"
	"testing"
)

func TestDiffInWords(t *testing.T) {
	parse := func(groups, pool string) *Spec {
		t.Helper()
		s, _, err := ParseSpec(Files{Haresources: []byte(groups), Pools: map[string][]byte{"p.yaml": []byte(pool), "q.yaml": []byte(pool)}}, nil)
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
		"nothing":           {parse(groups, pool), ""},
		"weight":            {change("10.0.0.5:80 gate", "10.0.0.5:80 gate 2"), "pool p.yaml: virtual 10.0.0.1:80 tcp: real 10.0.0.5:80: weight 1 -> 2"},
		"server removed":    {change("10.0.0.5:80 gate, ", ""), "pool p.yaml: virtual 10.0.0.1:80 tcp: real 10.0.0.5:80 removed"},
		"server added":      {change("10.0.0.6:80 gate", "10.0.0.6:80 gate, 10.0.0.7:80 gate"), "pool p.yaml: virtual 10.0.0.1:80 tcp: real 10.0.0.7:80 added"},
		"order of servers":  {change("10.0.0.5:80 gate, 10.0.0.6:80 gate", "10.0.0.6:80 gate, 10.0.0.5:80 gate"), "pool p.yaml: virtual 10.0.0.1:80 tcp: real: order 10.0.0.5:80, 10.0.0.6:80 -> 10.0.0.6:80, 10.0.0.5:80"},
		"scheduler":         {change("fallback", "scheduler: wlc\n    fallback"), "pool p.yaml: virtual 10.0.0.1:80 tcp: scheduler wrr -> wlc"},
		"check":             {change("real: [10.0.0.5 gate]", "real: [10.0.0.5 gate]\n    receive: o k\n    checkinterval: 1m"), "pool p.yaml: virtual 10.0.0.1:443 tcp: real 10.0.0.5:443: check: receive none -> \"o k\"\npool p.yaml: virtual 10.0.0.1:443 tcp: real 10.0.0.5:443: check: interval 10s -> 1m"},
		"fallback":          {change("    fallback: 127.0.0.1 gate\n", ""), "pool p.yaml: virtual 10.0.0.1:80 tcp: fallback 127.0.0.1:80 removed"},
		"fallback changed":  {change("127.0.0.1 gate", "127.0.0.2 masq"), "pool p.yaml: virtual 10.0.0.1:80 tcp: fallback: address 127.0.0.1:80 -> 127.0.0.2:80\npool p.yaml: virtual 10.0.0.1:80 tcp: fallback: forward gate -> masq"},
		"service added":     {change("virtual:\n", "virtual:\n  - {address: 10.0.0.1:81, service: http, real: [10.0.0.5 gate]}\n"), "pool p.yaml: virtual 10.0.0.1:81 tcp added"},
		"autoreload":        {change("virtual:", "autoreload: yes\nvirtual:"), "pool p.yaml: autoreload no -> yes"},
		"resource added":    {regroup("{vip: 10.0.0.1/24}", "{vip: 10.0.0.1/24}, {vip: 10.0.0.2}"), "group web: resource \"vip 10.0.0.2\" added"},
		"prefix":            {regroup("10.0.0.1/24", "10.0.0.1/32"), "group web: resource \"vip 10.0.0.1\": vip: prefix 24 -> 32"},
		"prefer":            {regroup("[a, b]", "[b]"), "group web: prefer a, b -> b"},
		"time-out":          {regroup("{vip: 10.0.0.1/24}", "{vip: 10.0.0.1/24, stop_timeout: 1m}"), "group web: resource \"vip 10.0.0.1\": stop_timeout 20s -> 1m"},
		"another pool":      {regroup("p.yaml", "q.yaml"), "group web: resource \"ldirectord p.yaml\" removed\ngroup web: resource \"ldirectord q.yaml\" added\npool p.yaml removed (2 virtual services)\npool q.yaml added (2 virtual services)"},
		"group renamed":     {regroup("web:", "www:"), "group web removed\ngroup www added"},
		"profile":           {settings, "settings: profile: name default -> fast\nsettings: profile: keepalive 100ms -> 40ms\nsettings: profile: lease 500ms -> 200ms\nsettings: profile: raft_heartbeat 200ms -> 80ms\nsettings: profile: raft_lease 100ms -> 40ms"},
		"everything is new": {nil, "group web removed\npool p.yaml removed (2 virtual services)"},
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
