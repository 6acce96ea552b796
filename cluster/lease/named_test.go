package lease

import (
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// hangingDisk takes a record when the test lets it.
type hangingDisk struct{ free chan struct{} }

func (d hangingDisk) Save(Record) error {
	<-d.free
	return nil
}

var (
	threeAt40 = Voters{Index: 40, IDs: []string{"a/1", "b/1", "c/1"}}
	fourAt50  = Voters{Index: 50, IDs: []string{"a/1", "b/1", "c/1", "d/1"}}
)

// hanging runs the keeper of b, whose log holds the configuration of 40 and whose
// disk hangs until the test closes free. What it answers goes to each.
func hanging(t *testing.T, each func(to string, m Message)) (k *Keeper, free chan struct{}) {
	free = make(chan struct{})
	k = NewKeeper(Config{
		Node: "b", ID: "b/1", Boot: 1, Length: length, Clock: bubbleClock{time.Now()}, Store: hangingDisk{free},
		Send: func(to string, b []byte) {
			m, err := Decode(b)
			if err != nil {
				t.Error(err)
			}
			each(to, m)
		},
		Changed: func() {}, Logger: slog.New(slog.DiscardHandler),
	})
	k.Latest(threeAt40)
	t.Cleanup(runKeeper(k))
	return k, free
}

// flood fills all places in which messages wait for the disk, as a leader does that
// asks for a revocation again and again.
func flood(k *Keeper) {
	for range 2 { // the first of them is taken out, and hangs
		for range cap(k.votes) {
			k.Receive("c", 7, Encode(Revoke{Node: "dead", Incarnation: 3}))
		}
		synctest.Wait()
	}
}

func TestRule4APromiseNamesWhatTheLogHoldsHoweverMuchWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var acks []Ack
		k, free := hanging(t, func(to string, m Message) {
			if a, ok := m.(Ack); ok {
				acks = append(acks, a)
			}
		})
		flood(k)
		k.Latest(fourAt50)
		k.Rename("b/1/1.0000abcd")
		close(free)
		synctest.Wait()
		for i := range uint64(3) {
			k.Receive("a", 9, Encode(Renew{Incarnation: 1, K: i + 1, Length: length, Config: 40}))
			synctest.Wait()
		}
		if len(acks) != 3 {
			t.Fatalf("%d of 3 renewals are answered", len(acks))
		}
		for _, a := range acks {
			if a.Config.Index != 50 || !slices.Equal(a.Config.IDs, fourAt50.IDs) || a.Voter != "b/1/1.0000abcd" {
				t.Errorf("it promises as %s and names %+v", a.Voter, a.Config)
			}
		}
	})
}

// The promise itself has to be stored first.
func TestRule4APromiseThatWaitedForTheDiskNamesNothingOlderThanTheLogHoldsByThen(t *testing.T) {
	others := Voters{Index: 40, IDs: []string{"a/1", "b/1"}}
	older := Voters{Index: 30, IDs: []string{"a/1", "b/1"}}
	for name, c := range map[string]struct {
		change func(*Keeper)
		id     string
		config Voters
	}{
		"another configuration":          {func(k *Keeper) { k.Latest(fourAt50) }, "b/1", fourAt50},
		"another one in the same place":  {func(k *Keeper) { k.Latest(others) }, "b/1", others},
		"one was taken out":              {func(k *Keeper) { k.Latest(older) }, "b/1", older},
		"one that is said to be applied": {func(k *Keeper) { k.Configure(fourAt50) }, "b/1", fourAt50},
		"another name":                   {func(k *Keeper) { k.Rename("b/1/1.0000abcd") }, "b/1/1.0000abcd", threeAt40},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var acks []Ack
				k, free := hanging(t, func(to string, m Message) {
					if a, ok := m.(Ack); ok {
						acks = append(acks, a)
					}
				})
				renew := func(n uint64) {
					k.Receive("a", 9, Encode(Renew{Incarnation: 1, K: n, Length: length}))
					synctest.Wait()
				}
				renew(1)
				c.change(k)
				close(free)
				synctest.Wait()
				renew(2)
				if len(acks) == 0 || acks[len(acks)-1].K != 2 {
					t.Fatalf("the next renewal is not answered: %+v", acks)
				}
				for _, a := range acks {
					if a.Voter != c.id || a.Config.Index != c.config.Index || !slices.Equal(a.Config.IDs, c.config.IDs) {
						t.Errorf("it promises as %s and names %+v; it is %s, and its log holds %+v", a.Voter, a.Config, c.id, c.config)
					}
				}
			})
		})
	}
}

func TestARevocationThatWaitedForTheDiskIsToldUnderTheNewName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []Revoked
		k, free := hanging(t, func(to string, m Message) {
			if r, ok := m.(Revoked); ok {
				told = append(told, r)
			}
		})
		ask := func() {
			k.Receive("c", 7, Encode(Revoke{Node: "dead", Incarnation: 3}))
			synctest.Wait()
		}
		ask()
		k.Rename("b/1/1.0000abcd")
		close(free)
		synctest.Wait()
		ask()
		if len(told) != 1 || told[0].Voter != "b/1/1.0000abcd" {
			t.Errorf("told: %+v", told)
		}
	})
}

func TestRule4WhatRaftTakesOutOfTheLogIsNamedNoMore(t *testing.T) {
	k, v, _ := alone(t)
	var acks []Ack
	k.cfg.Send = func(_ string, b []byte) {
		if m, err := Decode(b); err == nil {
			acks = append(acks, m.(Ack))
		}
	}
	var named []uint64
	for n, config := range []Voters{threeAt40, fourAt50, threeAt40} {
		k.Latest(config)
		k.handle(v, vote{from: "c", boot: 7, m: Renew{Incarnation: 1, K: uint64(n + 1), Length: length}})
		named = append(named, acks[len(acks)-1].Config.Index)
	}
	k.Configure(fourAt50)
	k.Latest(threeAt40) // what is applied stands in the log
	k.handle(v, vote{from: "c", boot: 7, m: Renew{Incarnation: 1, K: 4, Length: length}})
	named = append(named, acks[len(acks)-1].Config.Index)
	if !slices.Equal(named, []uint64{40, 50, 40, 50}) {
		t.Errorf("named: %v", named)
	}
}

// a is cut off from all but b. 50 is committed by b, c and d while the disk under b's
// promises hangs; then b is cut off from the others, and 60, of a to e, is committed
// by c, d and e, which revoke a. So a must have no lease by b's word.
func TestRule4AnOwnerThatIsCutOffHasNoLeaseByTheWordOfAVoterWhoseDiskHung(t *testing.T) {
	for name, waits := range map[string]func(*Keeper){
		"nothing waits for the disk":                 func(*Keeper) {},
		"all places of what waits for it are filled": flood,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := holder(threeAt40)
				k, free := hanging(t, func(to string, m Message) {
					if a, ok := m.(Ack); ok && to == "a" {
						h.Ack(a)
					}
				})
				own := NewVoter("a/1", Record{}, k.Now())
				own.Configure(threeAt40)
				waits(k)
				k.Latest(fourAt50)
				close(free)
				for range 24 { // 3 s
					h.Round(k.Now(), length)
					if m, _ := own.Renew(k.Now(), "a", 9, h.RenewFor("a/1", false)); m != nil {
						h.Ack(m.(Ack))
					}
					k.Receive("a", 9, Encode(h.RenewFor("b/1", false)))
					synctest.Wait()
					time.Sleep(length / 4)
				}
				for _, id := range []string{"c/1", "d/1", "e/1"} { // which have heard nothing of a
					if m, _ := NewVoter(id, Record{}, 0).Revoke(k.Now(), "c", Revoke{Node: "a", Incarnation: 1}); m == nil {
						t.Fatalf("%s does not revoke", id)
					}
				}
				if left := h.End() - k.Now(); left > 0 {
					t.Errorf("a majority of 50 and of 60 has revoked it, and its lease has %v left", left)
				}
			})
		})
	}
}
