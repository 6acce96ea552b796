package state

import (
	"testing"
	"time"
)

func TestAWatchdogIsArmedByTheDaemonThatSaysSo(t *testing.T) {
	armed := func(boot uint64, timeout time.Duration) Command {
		return Command{Armed: &Armed{Node: "a", Boot: boot, Timeout: timeout, Within: 3 * timeout}}
	}
	again := func(boot, after uint64) Command { return readmit(boot, after, true) }
	for name, c := range map[string]struct {
		do      []Command // all but the last are not refused
		refused bool      // the last
		want    time.Duration
	}{
		"nobody has said so": {nil, false, 0},
		"it is armed":        {[]Command{armed(11, 10*time.Second)}, false, 10 * time.Second},
		"another timeout":    {[]Command{armed(11, 10*time.Second), armed(11, 8*time.Second)}, false, 8 * time.Second},
		"not any more":       {[]Command{armed(11, 10*time.Second), armed(11, 0)}, false, 0},
		"a daemon that starts has not armed it yet":  {[]Command{armed(11, 10*time.Second), again(12, 0)}, false, 0},
		"what the one before says comes too late":    {[]Command{again(12, 0), armed(11, 10*time.Second)}, true, 0},
		"a revocation leaves it armed":               {[]Command{armed(11, 10*time.Second), revokeOf(1)}, false, 10 * time.Second},
		"and so does the new incarnation after that": {[]Command{armed(11, 10*time.Second), revokeOf(1), again(11, 1)}, false, 10 * time.Second},
		"who is revoked says nothing new":            {[]Command{revokeOf(1), armed(11, 10*time.Second)}, true, 0},
		"a clean stop stops it": {[]Command{armed(11, 10*time.Second), stoppedOf(1, 1), {Stopped: &Stopped{Group: "db", Node: "a", Incarnation: 1, Epoch: 1}},
			{Leave: &Leave{Node: "a", Incarnation: 1}}}, false, 0},
		"no timeout is negative":         {[]Command{armed(11, -1)}, true, 0},
		"nor is it longer than the rest": {[]Command{{Armed: &Armed{Node: "a", Boot: 11, Timeout: 2, Within: 1}}}, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := fencedClass(t)
			s.Format = Format
			for i, do := range c.do {
				after, r := s.Apply(s.Index+1, do)
				if want := c.refused && i == len(c.do)-1; (r.Refused != "") != want {
					t.Fatalf("command %d: refused %q", i, r.Refused)
				}
				s = after
			}
			if got := s.Nodes["a"]; got.Watchdog != c.want || got.ResetWithin != 3*c.want {
				t.Errorf("armed with %v, reset within %v, want %v", got.Watchdog, got.ResetWithin, c.want)
			}
		})
	}
}

func TestAnEarlierFormatKnowsNoArmedWatchdogs(t *testing.T) {
	s := fencedClass(t)
	s.Format = 4
	after, r := s.Apply(s.Index+1, Command{Armed: &Armed{Node: "a", Boot: 11, Timeout: time.Second, Within: time.Second}})
	if r.Refused == "" || after.Nodes["a"].Watchdog != 0 {
		t.Errorf("%+v", after.Nodes["a"])
	}
}
