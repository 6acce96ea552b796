package lease

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

var ab = Voters{Index: 10, IDs: []string{"a/1", "b/1"}}

func TestOfTwoVotersEachIsNeeded(t *testing.T) {
	h := holder(ab)
	h.Pair("b", false)
	h.Round(time.Second, length)
	h.Ack(ack("a/1", 1))
	wantEnd(t, h, 0)
	h.Ack(ack("b/1", 1))
	wantEnd(t, h, time.Second+length)
}

func TestTheRuleOfThePairStandsInForThePeerAndNobodyElse(t *testing.T) {
	h := holder(ab)
	h.Pair("b", false)
	h.Round(time.Second, length)
	h.GoAlone(time.Second + 300*ms)
	wantEnd(t, h, 0) // its own voter has not promised
	h.Ack(ack("a/1", 1))
	wantEnd(t, h, time.Second+300*ms)
	h.GoAlone(time.Second + 200*ms)
	wantEnd(t, h, time.Second+300*ms)
	h.GoAlone(2 * time.Second)
	wantEnd(t, h, time.Second+length) // no further than what its own voter has promised
}

func TestAmongThreeNobodyStandsInForAnybody(t *testing.T) {
	h := holder(ab)
	h.Pair("b", false)
	h.Latest(Voters{Index: 12, IDs: []string{"a/1", "b/1", "c/1"}})
	h.Round(time.Second, length)
	h.Ack(ack("a/1", 1))
	h.GoAlone(2 * time.Second)
	wantEnd(t, h, 0)
}

func TestTheOnlyVoterNeedsTheRuleWhileItIsContested(t *testing.T) {
	h := holder(Voters{Index: 20, IDs: []string{"a/1/1.0000abcd"}})
	h.Pair("b", true)
	h.Round(time.Second, length)
	h.Ack(ack("a/1/1.0000abcd", 1))
	wantEnd(t, h, 0)
	h.GoAlone(time.Second + 400*ms)
	wantEnd(t, h, time.Second+400*ms)
	h.Pair("", false)
	wantEnd(t, h, time.Second+length)
}

func TestShortenGivesUpGoingAloneToo(t *testing.T) {
	h := holder(ab)
	h.Pair("b", false)
	h.Round(time.Second, time.Minute)
	h.Ack(ack("a/1", 1))
	h.GoAlone(time.Minute)
	h.Shorten(2 * time.Second)
	wantEnd(t, h, 2*time.Second)
}

func TestAShunnedNodeGetsNoPromiseWhateverItsIncarnation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := 0
		k := NewKeeper(Config{Node: "a", ID: "a/1", Boot: 1, Clock: bubbleClock{time.Now()}, Store: &Memory{}, Length: length,
			Send: func(string, []byte) { sent++ }, Changed: func() {}, Logger: slog.New(slog.DiscardHandler)})
		end := runKeeper(k)
		defer end()
		renew := func(n uint64) {
			k.Receive("b", 7, Encode(Renew{Incarnation: 3, K: n, Length: length}))
			synctest.Wait()
		}
		renew(1)
		if sent != 1 {
			t.Fatalf("%d answers before it is shunned", sent)
		}
		k.Shun("b", true)
		renew(2)
		if sent != 1 {
			t.Error("a shunned node got a promise")
		}
		k.Shun("b", false)
		renew(3)
		if sent != 2 {
			t.Error("no promise after it was shunned no more")
		}
	})
}

func TestThisNodesVoterAloneRevokesWhenItsPromiseIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := NewKeeper(Config{Node: "a", ID: "a/1", Boot: 1, Clock: bubbleClock{time.Now()}, Store: &Memory{}, Length: length,
			Send: func(string, []byte) {}, Changed: func() {}, Logger: slog.New(slog.DiscardHandler)})
		end := runKeeper(k)
		defer end()
		k.Receive("b", 7, Encode(Renew{Incarnation: 3, K: 1, Length: length}))
		synctest.Wait()
		k.RevokeHere("b", 3)
		time.Sleep(length)
		if k.RevokedHere("b", 3) {
			t.Error("revoked within the promise")
		}
		k.RevokeHere("b", 3)
		time.Sleep(length / 10)
		if !k.RevokedHere("b", 3) {
			t.Error("not revoked after the promise")
		}
		k.Rename("a/1/1.0000abcd")
		synctest.Wait()
		if k.RevokedHere("b", 3) {
			t.Error("under its new name it has not said so yet")
		}
		k.RevokeHere("b", 3)
		synctest.Wait()
		if !k.RevokedHere("b", 3) {
			t.Error("it does not say so under its new name")
		}
	})
}

// runKeeper runs a keeper until the function that it returns is called.
func runKeeper(k *Keeper) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = k.Run(ctx) // it ends with its context
	}()
	return func() {
		cancel()
		<-done
	}
}
