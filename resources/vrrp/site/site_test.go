package site

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/vrrp"
	"github.com/keepbeat/keepbeat/resources/vrrp/tell"
)

// What a reload takes out is told by its own program that it has been stopped:
// whatever notify_master began would run on otherwise.
func TestAnInstanceThatAReloadTakesOutIsToldThatItStops(t *testing.T) {
	var mu sync.Mutex
	var ran []string
	s := &Site{leaving: map[subject]*conf.VRRPNotify{}, master: map[string]bool{}}
	s.teller = tell.New(tell.Config{Logger: slog.New(slog.DiscardHandler), Run: func(_ context.Context, _ string, command []string) error {
		mu.Lock()
		defer mu.Unlock()
		ran = append(ran, fmt.Sprint(command))
		return nil
	}})
	one := conf.VRRPInstance{Name: "VI_1", Notify: conf.VRRPNotify{Stop: []string{"/stop-1"}}}
	two := conf.VRRPInstance{Name: "VI_2", Notify: conf.VRRPNotify{Stop: []string{"/stop-2"}}}
	group := conf.VRRPSyncGroup{Name: "VG", Notify: conf.VRRPNotify{Stop: []string{"/stop-group"}}}
	s.learn(&conf.VRRP{Instances: []conf.VRRPInstance{one, two}, SyncGroups: []conf.VRRPSyncGroup{group}})
	s.learn(&conf.VRRP{Instances: []conf.VRRPInstance{one}})
	s.learn(&conf.VRRP{Instances: []conf.VRRPInstance{one}}) // once more before it is gone
	s.event(vrrp.Event{Name: "VI_2", State: vrrp.Initialize})
	s.event(vrrp.Event{Name: "VG", Group: true, State: vrrp.Initialize})
	s.event(vrrp.Event{Name: "VI_2", State: vrrp.Initialize}) // nobody is told twice
	s.teller.Close()
	if got := strings.Join(ran, " "); got != "[/stop-2] [/stop-group]" && got != "[/stop-group] [/stop-2]" {
		t.Errorf("run: %s", got)
	}
	if len(s.leaving) != 0 {
		t.Errorf("kept: %v", s.leaving)
	}
}
