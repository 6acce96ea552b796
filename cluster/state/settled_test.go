package state

import (
	"maps"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

// A node that has just started has not had the time to say that it is not
// settled: where connections are synchronised it counts as such until it has spoken.
func TestWhatANodeSaysOfBeingSettled(t *testing.T) {
	says := func(what map[string]string) Command {
		return Command{Problems: &Problems{Node: "a", Incarnation: 2, Problems: map[string]string{}, Unsettled: what}}
	}
	admit := admitOf("a", 12, 0)
	admit.Admit.Format = 3
	fresh := map[string]string{"": "it has just started"}
	web := map[string]string{"web": "connections are still being received"}
	for name, tc := range map[string]struct {
		format   int
		sync     bool
		commands []Command
		want     map[string]string
	}{
		"it has just started":                        {3, true, nil, fresh},
		"it has spoken":                              {3, true, []Command{says(web)}, web},
		"it is settled":                              {3, true, []Command{says(web), says(nil)}, nil},
		"nothing is synchronised":                    {3, false, nil, nil},
		"others run a program that does not know it": {2, true, []Command{says(web)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := *begun(t)
			s.Format = tc.format
			spec := *s.Spec
			if tc.sync {
				spec.IPVS = &conf.IPVS{Sync: &conf.IPVSSync{Interface: "eth1"}}
			}
			s.Spec = &spec
			got := play(t, &s, append([]Command{admit}, tc.commands...)...).Nodes["a"]
			if !maps.Equal(got.Unsettled, tc.want) {
				t.Errorf("%v, want %v", got.Unsettled, tc.want)
			}
		})
	}
}
