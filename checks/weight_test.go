package checks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// scales answers with one weight after the other: -1 is down, -2 says nothing of a weight.
type scales struct {
	answers []int
	n       int
}

func (k *scales) answer() int { return k.answers[min(k.n, len(k.answers))-1] }

func (k *scales) Check(context.Context) (string, error) {
	if k.n++; k.answer() == -1 {
		return "", errors.New("down")
	}
	return "fine", nil
}

func (k *scales) Weight() (int, bool) { return max(k.answer(), 0), k.answer() >= 0 }

func TestAWeightThatChangesIsToldAndOneThatStaysIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewScheduler(Config{NewChecker: func(conf.Check) (Checker, error) {
			return &scales{answers: []int{10, 10, 0, 0, -2, -2, 7, -1, -1, 7, 8, 8}}, nil
		}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		var told []string
		c := target(1)
		s.Subscribe(c, func(st Status) {
			told = append(told, fmt.Sprintf("up %v weighed %v %d", st.Up, st.Weighed, st.Weight))
		})
		time.Sleep(30 * time.Second)
		synctest.Wait()
		want := []string{
			"up true weighed true 10",
			"up true weighed true 0",
			"up true weighed false 0",
			"up true weighed true 7",
			"up false weighed true 7", // a failure says nothing of the weight
			"up true weighed true 7",
			"up true weighed true 8",
		}
		if !slices.Equal(told, want) {
			t.Errorf("told %q\nwant %q", told, want)
		}
		var late []Status
		s.Subscribe(c, func(st Status) { late = append(late, st) })
		synctest.Wait()
		if len(late) != 1 || !late[0].Weighed || late[0].Weight != 8 {
			t.Errorf("a new holder was told %+v", late)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
