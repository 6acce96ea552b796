package cluster

import (
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/fencing"
)

// guarded has director2 with a group of class fenced and a watchdog of 10 s, on which
// the device dog of director1 counts.
func guarded() *state.State {
	const s = time.Second
	db := conf.Group{Name: "db", Resources: []conf.Resource{
		{Kind: "filesystem", Name: "/srv", Class: conf.Fenced, StopTimeout: 60 * s}, {Kind: "vip", Name: "10.0.0.1", Class: conf.Guarded},
	}}
	web := conf.Group{Name: "web", Resources: []conf.Resource{{Kind: "vip", Name: "10.0.0.2", Class: conf.Guarded, StopTimeout: 600 * s}}}
	return &state.State{
		Format: state.Format,
		Spec: &conf.Spec{
			Settings: conf.Settings{Profile: conf.ProfileDefault}, Groups: []conf.Group{db, web},
			Fencing: &conf.Fencing{Devices: []conf.FenceDevice{{Name: "dog", Type: conf.FenceWatchdog, Timeout: 87 * s, Targets: []conf.FenceTarget{{Node: "director2"}}}}},
		},
		Nodes:  map[string]state.Node{"director2": {Name: "director2", Boot: 7, Incarnation: 3, Valid: true, Director: true, Watchdog: 10 * s, ResetWithin: 87 * s}},
		Groups: map[string]state.Group{"db": {Name: "db", Owner: "director2"}, "web": {Name: "web", Owner: "director2"}},
	}
}

func TestWhoIsKnownToResetItself(t *testing.T) {
	for name, c := range map[string]struct {
		change func(st *state.State)
		within time.Duration
		want   string // empty: it is known
	}{
		// 2 leases of 0.5 s, 60 s and 1 s of stops, 5 s, 2 x 10 s
		"one that has said so":                        {nil, 87 * time.Second, ""},
		"not when the device does not wait so long":   {nil, 87*time.Second - 1, "director2 may take 1m27s to reset itself"},
		"nor when it was told with a longer timeout":  {func(st *state.State) { alter(st, func(x *state.Node) { x.Watchdog = 11 * time.Second }) }, 87 * time.Second, "make its timeout 1m29s or more"},
		"one that has fallen silent, and is revoked":  {func(st *state.State) { alter(st, func(x *state.Node) { x.Valid = false }) }, 87 * time.Second, ""},
		"one whose new daemon has not said so":        {func(st *state.State) { alter(st, func(x *state.Node) { x.Watchdog = 0 }) }, time.Hour, "director2 has not said since its daemon started that its watchdog is armed"},
		"one that was never there":                    {func(st *state.State) { delete(st.Nodes, "director2") }, time.Hour, "never been admitted"},
		"nobody before all run a version that has it": {func(st *state.State) { st.Format = armedFormat - 1 }, time.Hour, "before every node runs a version"},
		"what was taken out of the specification may still run": {func(st *state.State) {
			st.Leaving = map[string]conf.Group{"db": {Name: "db", Resources: []conf.Resource{{Class: conf.Fenced, StopTimeout: 2 * time.Minute}}}}
		}, 87 * time.Second, "may take "},
		"what the guard cuts off is not waited for": {func(st *state.State) {
			st.Spec.Groups = st.Spec.Groups[1:]
			delete(st.Groups, "db")
			alter(st, func(x *state.Node) { x.ResetWithin = 26 * time.Second })
		}, 26 * time.Second, ""},
		"one that does not know that stops are to be quicker": {func(st *state.State) { st.Spec.Groups[0].Resources[0].StopTimeout = time.Second }, 86 * time.Second, "may take 1m27s"},
		"one that has not said that stops take longer":        {func(st *state.State) { st.Spec.Groups[0].Resources[0].StopTimeout = time.Hour }, 87 * time.Second, "may take 1h0m27s"},
	} {
		t.Run(name, func(t *testing.T) {
			st := guarded()
			if c.change != nil {
				c.change(st)
			}
			err := resets(st, "director2", c.within)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func alter(st *state.State, change func(*state.Node)) {
	x := st.Nodes["director2"]
	change(&x)
	st.Nodes["director2"] = x
}

func TestStatusSaysThatADeviceWouldWaitInVain(t *testing.T) {
	devices := func(st *state.State, here bool) []fencing.DeviceStatus {
		d := []fencing.DeviceStatus{{Name: "dog", Kind: "watchdog", Targets: []string{"director2"}, Here: here}, {Name: "gone", Kind: "watchdog", Here: true}}
		doubt(st, d)
		return d
	}
	st := guarded()
	if d := devices(st, true); d[0].Error != "" {
		t.Errorf("%+v", d)
	}
	alter(st, func(x *state.Node) { x.Watchdog = 0 })
	d := devices(st, true)
	if !strings.HasPrefix(d[0].Error, "director2 has not said") {
		t.Errorf("%+v", d)
	}
	if elsewhere := devices(st, false); elsewhere[0].Error != "" {
		t.Errorf("said by who does not operate it: %+v", elsewhere)
	}
	var lines []string
	fenceTrouble(Status{Nodes: []NodeStatus{{Name: "director1", Here: &LocalStatus{Devices: d}}}}, func(_ int, format string, _ ...any) { lines = append(lines, format) })
	if len(lines) != 1 || !strings.Contains(lines[0], "fences nobody as it is") {
		t.Errorf("trouble: %q", lines)
	}
	alter(st, func(x *state.Node) { x.Valid = false })
	if d := devices(st, true); d[0].Error != "" {
		t.Errorf("of a node that is not up: %+v", d)
	}
}

func TestADaemonSaysThatItHasArmedItsWatchdog(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*state.State)
		boot    uint64
		timeout time.Duration
		says    bool
	}{
		"once it has":                      {func(st *state.State) { alter(st, func(x *state.Node) { x.Watchdog = 0 }) }, 7, 10 * time.Second, true},
		"once":                             {nil, 7, 10 * time.Second, false},
		"that the driver has made less":    {nil, 7, 8 * time.Second, true},
		"that it is not":                   {nil, 7, 0, true},
		"that stops are quicker now":       {func(st *state.State) { st.Spec.Groups[0].Resources[0].StopTimeout = 9 * time.Second }, 7, 10 * time.Second, true},
		"not before it has its groups":     {func(st *state.State) { st.Spec = nil }, 7, 8 * time.Second, false},
		"not before it is admitted":        {nil, 8, 8 * time.Second, false},
		"not when it is revoked":           {func(st *state.State) { alter(st, func(x *state.Node) { x.Valid = false }) }, 7, 8 * time.Second, false},
		"not when nobody would understand": {func(st *state.State) { st.Format = armedFormat - 1 }, 7, 8 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			st := guarded()
			if c.change != nil {
				c.change(st)
			}
			say := armed(st, "director2", c.boot, c.timeout)
			if (say != nil) != c.says || say != nil && (say.Node != "director2" || say.Boot != 7 || say.Timeout != c.timeout) {
				t.Errorf("it says %+v", say)
			}
		})
	}
}
