package vrrp

import (
	"testing"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/vrrp/track"
)

func TestHowAnInstanceStands(t *testing.T) {
	script := func(weight int, reverse bool) func(*conf.VRRPInstance) {
		return func(i *conf.VRRPInstance) {
			i.TrackScripts = []conf.VRRPTrack{{Name: "s", Weight: weight, Reverse: reverse}}
		}
	}
	file := func(weight int, reverse bool) func(*conf.VRRPInstance) {
		return func(i *conf.VRRPInstance) {
			i.TrackFiles = []conf.VRRPTrack{{Name: "f", Weight: weight, Reverse: reverse}}
		}
	}
	link := func(weight int, reverse bool) func(*conf.VRRPInstance) {
		return func(i *conf.VRRPInstance) {
			i.TrackInterfaces = []conf.VRRPTrack{{Name: "eth1", Weight: weight, Reverse: reverse}}
		}
	}
	owner := func(then func(*conf.VRRPInstance)) func(*conf.VRRPInstance) {
		return func(i *conf.VRRPInstance) { i.Priority = 255; then(i) }
	}
	up := map[string]bool{"eth0": true, "eth1": true}
	cut := map[string]bool{"eth0": true, "eth1": false}
	well := map[tracked]track.Result{{track.Script, "s"}: {Well: true}}
	ill := map[tracked]track.Result{{track.Script, "s"}: {}}
	number := func(n int) map[tracked]track.Result { return map[tracked]track.Result{{track.File, "f"}: {Value: n}} }
	ignores, counts := &conf.VRRPSyncGroup{}, &conf.VRRPSyncGroup{Weights: true}

	for _, c := range []struct {
		name   string
		change func(*conf.VRRPInstance)
		group  *conf.VRRPSyncGroup
		w      world
		want   Standing
	}{
		{"nothing is tracked", nil, nil, world{true, up, nil}, Standing{Priority: 100}},
		{"its interface is down", nil, nil, world{true, map[string]bool{"eth0": false}, nil}, Standing{Priority: 100, Lacks: "interface eth0 is down"}},
		{"its interface is not there", nil, nil, world{true, nil, nil}, Standing{Priority: 100, Lacks: "interface eth0 is not there"}},
		{"its interface is not known yet", nil, nil, world{false, nil, nil}, Standing{Priority: 100, Waits: true}},
		{"its interface is down and not tracked", func(i *conf.VRRPInstance) { i.DontTrack = true }, nil, world{true, nil, nil}, Standing{Priority: 100}},
		{"another interface is down", link(0, false), nil, world{true, cut, nil}, Standing{Priority: 100, Lacks: "interface eth1 is down"}},
		{"another interface is up, reversed", link(0, true), nil, world{true, up, nil}, Standing{Priority: 100, Lacks: "interface eth1 is up"}},
		{"another interface with a weight is down", link(-30, false), nil, world{true, cut, nil}, Standing{Priority: 70}},
		{"an interface in a group without weights", link(-30, false), ignores, world{true, cut, nil}, Standing{Priority: 100}},
		{"an interface in a group with weights", link(-30, false), counts, world{true, cut, nil}, Standing{Priority: 70}},
		{"a link without weight in a group", link(0, false), ignores, world{true, cut, nil}, Standing{Priority: 100, Lacks: "interface eth1 is down"}},

		{"a positive weight, well", script(2, false), nil, world{true, up, well}, Standing{Priority: 102}},
		{"a positive weight, not well", script(2, false), nil, world{true, up, ill}, Standing{Priority: 100}},
		{"a negative weight, well", script(-2, false), nil, world{true, up, well}, Standing{Priority: 100}},
		{"a negative weight, not well", script(-2, false), nil, world{true, up, ill}, Standing{Priority: 98}},
		{"a positive weight reversed, well", script(2, true), nil, world{true, up, well}, Standing{Priority: 98}},
		{"a positive weight reversed, not well", script(2, true), nil, world{true, up, ill}, Standing{Priority: 100}},
		{"a negative weight reversed, well", script(-2, true), nil, world{true, up, well}, Standing{Priority: 100}},
		{"a negative weight reversed, not well", script(-2, true), nil, world{true, up, ill}, Standing{Priority: 102}},
		{"no weight, not well", script(0, false), nil, world{true, up, ill}, Standing{Priority: 100, Lacks: "script s fails"}},
		{"no weight reversed, well", script(0, true), nil, world{true, up, well}, Standing{Priority: 100, Lacks: "script s does not fail"}},
		{"no weight, not known", script(0, false), nil, world{true, up, nil}, Standing{Priority: 100, Waits: true}},
		{"a weight, not known", script(-50, false), nil, world{true, up, nil}, Standing{Priority: 100}},
		{"not below 1", script(-253, false), nil, world{true, up, ill}, Standing{Priority: 1}},
		{"not above 254", script(253, false), nil, world{true, up, well}, Standing{Priority: 254}},
		{"the owner stays the owner", owner(script(-50, false)), nil, world{true, up, ill}, Standing{Priority: 255}},
		{"the owner has faults too", owner(script(0, false)), nil, world{true, up, ill}, Standing{Priority: 255, Lacks: "script s fails"}},

		{"a number", file(1, false), nil, world{true, up, number(-20)}, Standing{Priority: 80}},
		{"a number times a weight", file(3, false), nil, world{true, up, number(5)}, Standing{Priority: 115}},
		{"a number reversed", file(1, true), nil, world{true, up, number(20)}, Standing{Priority: 80}},
		{"a number far too great", file(253, false), nil, world{true, up, number(1 << 62)}, Standing{Priority: 254}},
		{"a number below all", file(1, false), nil, world{true, up, number(-254)}, Standing{Priority: 100, Lacks: "file f has -254, with its weight below -253"}},
		{"no weight and a number", file(0, false), nil, world{true, up, number(1)}, Standing{Priority: 100, Lacks: "file f has 1"}},
		{"no weight and 0", file(0, false), nil, world{true, up, number(0)}, Standing{Priority: 100}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.w.stand(virtual(2, c.change), c.group); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}
