package vrrp

import (
	"fmt"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/vrrp/track"
)

func TestWhatAnInstanceTracksIsShown(t *testing.T) {
	one := func(name string, weight int) []conf.VRRPTrack {
		return []conf.VRRPTrack{{Name: name, Weight: weight}}
	}
	i := &conf.VRRPInstance{
		TrackInterfaces: one("eth1", -10), TrackScripts: one("chk", 2), TrackProcesses: one("haproxy", 0), TrackFiles: one("hold", 1),
	}
	g := &conf.VRRPSyncGroup{TrackScripts: one("gate", 0)}
	w := &world{}
	expect := func(when, want string) {
		t.Helper()
		got := ""
		for _, s := range w.tracks(i, g) {
			got += fmt.Sprintf("%s, %d, %t\n", s, s.Weight, s.Well)
		}
		if got != want {
			t.Errorf("%s:\n%s\nwant\n%s", when, got, want)
		}
	}
	expect("at first", `interface eth1 has no result yet, -10, false
script chk has no result yet, 2, false
process haproxy has no result yet, 0, false
file hold has no result yet, 1, false
script gate has no result yet, 0, false
`)
	w.linked = true
	w.results = map[tracked]track.Result{
		{track.Script, "chk"}: {}, {track.Process, "haproxy"}: {}, {track.File, "hold"}: {Value: 7}, {track.Script, "gate"}: {Well: true},
	}
	expect("an interface that is not there is down", `interface eth1 is down, -10, false
script chk fails, 2, false
process haproxy does not run as it has to, 0, false
file hold has 7, 1, false
script gate succeeds, 0, true
`)
	w.links = map[string]bool{"eth1": true}
	w.results[tracked{track.Process, "haproxy"}] = track.Result{Well: true}
	w.results[tracked{track.File, "hold"}] = track.Result{}
	expect("well", `interface eth1 is up, -10, true
script chk fails, 2, false
process haproxy runs, 0, true
file hold has 0, 1, true
script gate succeeds, 0, true
`)
}
