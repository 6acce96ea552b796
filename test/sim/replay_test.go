package sim

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// TestReplay plays schedules and makes every call of the pure cores again, from
// what was written down. KEEPBEAT_SIM_REPLAY=file does that with a recording
// that a violation has left behind.
func TestReplay(t *testing.T) {
	if path := os.Getenv("KEEPBEAT_SIM_REPLAY"); path != "" {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		n, err := replay(f)
		t.Logf("%d calls", n)
		if err != nil {
			t.Error(err)
		}
		return
	}
	majority := newSchedule(1, "leftovers")
	// A machine whose disk is empty is sent a snapshot; one that was off begins with its own.
	compacted := schedule{
		Config: Config{Seed: 1, Directors: 3, Groups: 2, Profile: conf.ProfileDefault, Snapshots: 4, Kept: 2}, Starts: make([]time.Duration, 3),
		Events: []event{{At: 3 * sec, For: 2 * sec, Do: power, On: []string{"director1"}}, {At: 8 * sec, For: 2 * sec, Do: diskLoss, On: []string{"director2"}}},
		Calm:   10 * sec,
	}
	for name, s := range map[string]schedule{
		"snapshots":        compacted,
		"a majority":       majority,
		"a foreign master": newSchedule(1, "a foreign master"),
		"a fencing pair":   pairSchedule(conf.QuorumFencing, event{At: sec, For: 5 * sec, Do: partition, On: []string{"director1"}}),
		"a pair and ping":  pairSchedule(conf.QuorumPing, event{At: sec, For: 5 * sec, Do: crash, On: []string{"director1"}}),
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			w := playSchedule(t, s)
			var b bytes.Buffer
			if err := writeRecordings(&b, w.recordings); err != nil {
				t.Fatal(err)
			}
			n, err := replay(bytes.NewReader(b.Bytes()))
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d calls of %d daemons, %d KiB: the same results", n, len(w.recordings), b.Len()>>10)
			for _, change := range [][2]string{
				{`"Phase":3`, `"Phase":4`},                          // a decision
				{`"number":1,"index"`, `"number":2,"index"`},        // a command's result
				{`"Incarnation\":1`, `"Incarnation\":3`},            // a lease message
				{`"sum":"`, `"sum":"0`},                             // a state
				{`"restored":{"format":`, `"restored":{"format":1`}, // a snapshot
			} {
				changed := strings.ReplaceAll(b.String(), change[0], change[1]) // of two snapshots the second takes the place of the first
				if changed == b.String() {
					if change[0] == `"Phase":3` && s.Rule == 0 || strings.HasPrefix(change[0], `"restored"`) && s.Snapshots == 0 {
						continue
					}
					t.Errorf("the recording has no %s", change[0])
					continue
				}
				if _, err := replay(strings.NewReader(changed)); err == nil {
					t.Errorf("a recording in which %s became %s is taken for the same", change[0], change[1])
				} else {
					t.Logf("%s became %s: %v", change[0], change[1], strings.SplitN(err.Error(), "{", 2)[0])
				}
			}
		})
	}
}
