package fault

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/uml"
)

// Session is some injections into one cluster, one after the other.
type Session struct {
	Shape string // trio, pair
	Seed  uint64
	Only  *regexp.Regexp // of names of kinds; nil: all
	Temp  string         // a directory that ends with the test
	// Once injects each kind once, and then two at once. Otherwise Rounds are drawn.
	Once   bool
	Rounds int
	// Until ends the drawing; zero: never.
	Until time.Time
	// Report is told what every injection did.
	Report func(Row)
}

// TB is what a session needs of a test.
type TB interface {
	lab.TB
	Errorf(format string, args ...any)
}

// kinds are those that can be injected in the lab kernel, or outside of it, once or at random.
func kinds(inside, once bool, only *regexp.Regexp) []kind {
	all := slices.Concat(networkKinds(), processKinds(), diskKinds(), hostileKinds())
	if inside {
		all = kernelKinds()
		if !once {
			all = slices.Concat(all, networkKinds(), processKinds(), diskKinds())
			// One processor is busy enough.
			all = slices.DeleteFunc(all, func(k kind) bool { return strings.HasPrefix(k.name, "64 ") })
		}
	}
	return slices.DeleteFunc(all, func(k kind) bool { return only != nil && !only.MatchString(k.name) })
}

// injection is a kind to be drawn, or two at once.
type injection struct {
	name string
	draw func(a *arena, r *rand.Rand) plan
}

func (s *Session) injections(r *rand.Rand) []injection {
	some := kinds(uml.Inside(), s.Once, s.Only)
	two := injection{twoAtOnce, func(a *arena, r *rand.Rand) plan { return drawTwo(a, r, kinds(uml.Inside(), s.Once, nil)) }}
	twoWanted := s.Only == nil || s.Only.MatchString(twoAtOnce)
	var all []injection
	if s.Once {
		for _, k := range some {
			all = append(all, injection{k.name, k.draw})
		}
		if twoWanted && !uml.Inside() {
			all = append(all, two, two)
		}
		return all
	}
	for range s.Rounds {
		switch {
		case twoWanted && (len(some) == 0 || r.IntN(5) < 2):
			all = append(all, two)
		case len(some) > 0:
			k := some[r.IntN(len(some))]
			all = append(all, injection{k.name, k.draw})
		}
	}
	return all
}

// Run builds a cluster and injects; when the cluster does not get well again, what
// is left is injected into another one. t ends each cluster with its lab.
func (s *Session) Run(each func(name string, f func(t TB))) {
	r := rand.New(rand.NewPCG(s.Seed, 1))
	todo := s.injections(r)
	for n := 1; len(todo) > 0 && (s.Until.IsZero() || time.Now().Before(s.Until)); n++ {
		before := len(todo)
		each(fmt.Sprintf("%s, seed %d, cluster %d", s.Shape, s.Seed, n), func(t TB) {
			log := &timeline{}
			profile := "default"
			if !s.Once {
				profile = one(r, "default", "default", "default", "fast", "calm")
			}
			a := newArena(t, s.Shape, profile, s.Temp, r, log)
			for len(todo) > 0 && (s.Until.IsZero() || time.Now().Before(s.Until)) {
				next := todo[0]
				todo = todo[1:]
				began := time.Now()
				p := next.draw(a, r)
				res := a.round(next.name, p, int(r.Int32N(1<<30)))
				res.Cluster = s.Shape
				s.Report(res.Row)
				t.Logf("%-36s %4.1f s, silent %5.0f ms: %s", next.name, time.Since(began).Seconds(), res.SilenceMS, p.what)
				if len(res.faults) > 0 {
					t.Errorf("%s (%s), %s, seed %d:\n%s\n%s", next.name, p.what, s.Shape, s.Seed, strings.Join(res.faults, "\n"), res.story)
				}
				a.tidy()
				if !res.usable {
					return
				}
			}
		})
		if len(todo) == before { // no cluster to be had
			return
		}
	}
}
