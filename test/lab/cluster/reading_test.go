package cluster

import (
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

// TestANodeThatHasJustStartedIsNoEmptyCluster: until it has read its log, its status says that.
func TestANodeThatHasJustStartedIsNoEmptyCluster(t *testing.T) {
	t.Parallel()
	s := begin(t, scenario.Options{})
	for range 3 {
		if err := s.Daemons[s.Director2.Name].Terminate(limit); err != nil {
			t.Fatal(err)
		}
		s.Start(s.Director2)
		asked, reading := 0, 0
		for deadline := time.Now().Add(limit); ; {
			st, answered := s.Status(s.Director2)
			if answered {
				asked++
				if st.Reading != "" {
					reading++
				} else if st.Spec.Version == 0 || len(st.Groups) == 0 {
					t.Errorf("specification %d, %d groups, and no word of the log: %q", st.Spec.Version, len(st.Groups), st.Trouble)
				} else if settled(st) {
					break
				}
			}
			if time.Now().After(deadline) {
				t.Fatalf("not settled: %q", st.Trouble)
			}
		}
		s.Lab.Logf("%d answers, %d of them while it read its log", asked, reading)
	}
}
