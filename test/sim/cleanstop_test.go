package sim

import (
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

// TestANodeOfAPairThatIsStoppedIsNotFenced: it gives up its vote before it ends, also
// where promises, for which a change of voters waits, run long: by the profile, or after a planned restart.
func TestANodeOfAPairThatIsStoppedIsNotFenced(t *testing.T) {
	for name, c := range map[string]struct {
		profile conf.Profile
		before  []event
	}{
		"profile fast":            {conf.ProfileFast, nil},
		"profile default":         {conf.ProfileDefault, nil},
		"profile calm":            {conf.ProfileCalm, nil},
		"after a planned restart": {conf.ProfileDefault, []event{{At: sec, For: sec, Do: restart, On: []string{"leader"}}}},
	} {
		for _, who := range []string{"leader", "owner"} {
			t.Run(strings.ReplaceAll(name+", the "+who, " ", "_"), func(t *testing.T) {
				s := pairSchedule(conf.QuorumFencing, append(c.before, event{At: 10 * sec, For: 100 * sec, Do: cleanStop, On: []string{who}})...)
				s.Profile, s.Calm = c.profile, 110*sec
				w := judge(t, s)
				if text := w.transcript.String(); strings.Contains(text, " fences ") || strings.Contains(text, "intended") {
					t.Errorf("the other one fenced it:\n%s", text)
				}
			})
		}
	}
}
