package cluster

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepbeat/keepbeat/cluster/pair"
)

// The disk of a survivor is full: it goes on as soon as there is room, and until
// then it fills neither the log nor the processor.
func TestAStepOfAPairThatFailsIsTriedAgainWithoutAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		n := &Node{logger: slog.New(slog.NewTextHandler(&log, nil))}
		n.jobs.init()
		p := &pairing{n: n, kick: make(chan struct{}, 1)}
		tries, full := 0, true
		turn := func(d time.Duration) {
			for began := time.Now(); time.Since(began) < d && (full || tries == 0); {
				p.step(pair.Record{}, func() error {
					tries++
					if full {
						return errors.New("the generation cannot be stored: no space left on device")
					}
					return nil
				})
				select {
				case <-p.kick:
				case <-time.After(d):
				}
			}
		}
		began := time.Now()
		turn(100 * time.Millisecond)
		if tries < 3 {
			t.Errorf("%d tries in the first %v", tries, time.Since(began))
		}
		turn(time.Minute)
		if tries > 80 {
			t.Errorf("%d tries in a minute", tries)
		}
		if lines := strings.Count(log.String(), "a step failed"); lines < 6 || lines > 8 {
			t.Errorf("%d lines in a minute", lines)
		}
		if p.failing.why == "" {
			t.Error("status is not told of it")
		}
		full, tries = false, 0
		turn(longestPause)
		if tries == 0 || p.failing.why != "" {
			t.Errorf("with room again: %d tries, %q", tries, p.failing.why)
		}
		n.jobs.wait()
	})
}

func TestANewFailureIsSaidAtOnce(t *testing.T) {
	var x failing
	now := time.Unix(1000, 0)
	var said []bool
	for _, text := range []string{"a", "a", "b", "", "b"} {
		var err error
		if text != "" {
			err = errors.New(text)
		}
		_, say := x.note(err, now)
		said = append(said, say)
	}
	if want := []bool{true, false, true, false, true}; !slices.Equal(said, want) {
		t.Errorf("%v, want %v", said, want)
	}
}

func TestAPairThatCannotGetOnSaysWhy(t *testing.T) {
	s := Status{Quorum: true, Node: "director1", Nodes: []NodeStatus{{Name: "director1", State: "up", Here: &LocalStatus{Lease: 400, Pair: &PairStatus{
		Rule: "unsafe", Peer: "director2", Phase: "alone", Why: "director2 is silent", Failing: "the generation cannot be stored: no space left on device",
	}}}}}
	want := "node director1 tries again and again to get on (alone): the generation cannot be stored: no space left on device"
	if got := trouble(s); !slices.Contains(got, want) {
		t.Errorf("trouble: %q", got)
	}
}
