package lease

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ms     = time.Millisecond
	length = 500 * ms
)

var abc = Voters{Index: 10, IDs: []string{"a/1", "b/1", "c/1"}}

func holder(v Voters) *Holder {
	h := NewHolder("a")
	h.Admit(1)
	h.Configure(v)
	return h
}

func ack(voter string, k uint64) Ack { return Ack{Voter: voter, Incarnation: 1, K: k} }

func wantEnd(t *testing.T, h *Holder, want time.Duration) {
	t.Helper()
	if got := h.End(); got != want {
		t.Errorf("the lease ends at %v, want %v", got, want)
	}
}

func TestRule1NoLeaseBeforeAdmission(t *testing.T) {
	h := NewHolder("a")
	h.Configure(abc)
	h.Round(time.Second, length)
	h.Ack(Ack{Voter: "a/1", K: 1})
	h.Ack(Ack{Voter: "b/1", K: 1})
	wantEnd(t, h, 0)
}

func TestRule2TheLeaseCountsFromBeforeSending(t *testing.T) {
	h := holder(abc)
	h.Round(time.Second, length)
	h.Ack(ack("a/1", 1))
	wantEnd(t, h, 0)
	h.Ack(ack("b/1", 1)) // whenever it arrives
	wantEnd(t, h, time.Second+length)
}

func TestRule4OnlyWhatAMajorityAcknowledgedCounts(t *testing.T) {
	h := holder(abc)
	h.Round(1000*ms, length)
	h.Round(1100*ms, length)
	h.Round(1200*ms, length)
	h.Ack(ack("a/1", 3))
	h.Ack(ack("b/1", 1))
	wantEnd(t, h, 1500*ms)
	h.Ack(ack("x/1", 3)) // no voter
	wantEnd(t, h, 1500*ms)
	h.Ack(ack("c/1", 2))
	wantEnd(t, h, 1600*ms)
	h.Ack(ack("b/1", 4)) // never sent
	wantEnd(t, h, 1600*ms)
	h.Ack(Ack{Voter: "b/1", Incarnation: 9, K: 3}) // of another life
	wantEnd(t, h, 1600*ms)
}

func TestRule4AReplacedVoterIsAnother(t *testing.T) {
	h := holder(abc)
	h.Round(1000*ms, length)
	h.Ack(ack("a/1", 1))
	h.Ack(ack("b/2", 1))
	wantEnd(t, h, 0)
}

func TestRule4ANewerConfigurationCountsToo(t *testing.T) {
	abcd := Voters{Index: 20, IDs: []string{"a/1", "b/1", "c/1", "d/1"}}
	t.Run("that an acknowledgement names", func(t *testing.T) {
		h := holder(abc)
		h.Round(1000*ms, length)
		h.Ack(ack("a/1", 1))
		b := ack("b/1", 1)
		b.Config = abcd
		h.Ack(b)
		wantEnd(t, h, 0)
		if got := strings.Join(h.Voters(), " "); got != "a/1 b/1 c/1 d/1" {
			t.Errorf("renewals go to %s", got)
		}
		h.Ack(ack("d/1", 1))
		wantEnd(t, h, 1500*ms)
	})
	t.Run("until its voter takes it back", func(t *testing.T) {
		h := holder(abc)
		h.Round(1000*ms, length)
		h.Round(1100*ms, length)
		h.Ack(ack("a/1", 1))
		b := ack("b/1", 1)
		b.Config = abcd
		h.Ack(b)
		h.Ack(ack("b/1", 2)) // raft truncated the entry
		wantEnd(t, h, 1500*ms)
	})
	t.Run("also when a still newer one is named, until that is applied", func(t *testing.T) {
		abc70 := Voters{Index: 70, IDs: abc.IDs}
		h := holder(abc)
		for k, c := range []Voters{{Index: 50, IDs: []string{"a/1", "b/1", "c/1", "d/1", "e/1"}}, abc70} {
			h.Round(time.Duration(1000+100*k)*ms, length)
			h.Ack(ack("a/1", uint64(k+1)))
			b := ack("b/1", uint64(k+1))
			b.Config = c
			h.Ack(b)
			wantEnd(t, h, 0) // c, d and e may have revoked it by the configuration of 50
		}
		h.Configure(abc70) // and all that stands before it: the revocation, too
		wantEnd(t, h, 1600*ms)
	})
	t.Run("that stands in the own log only", func(t *testing.T) {
		h := holder(abc)
		h.Latest(abcd)
		h.Round(1000*ms, length)
		h.Ack(ack("a/1", 1))
		h.Ack(ack("b/1", 1))
		wantEnd(t, h, 0)
		h.Ack(ack("c/1", 1))
		wantEnd(t, h, 1500*ms)
	})
	t.Run("each that stands in the own log until it is applied", func(t *testing.T) {
		h := holder(abc)
		h.Latest(abcd)
		h.Latest(Voters{Index: 30, IDs: []string{"a/1", "b/1", "d/1"}})
		h.Latest(Voters{Index: 40, IDs: []string{"a/1", "b/1"}})
		h.Round(1000*ms, length)
		h.Ack(ack("a/1", 1))
		h.Ack(ack("b/1", 1))
		wantEnd(t, h, 0) // c and d may have revoked it by the configuration of 20
		h.Latest(Voters{Index: 35, IDs: []string{"a/1", "b/1"}})
		wantEnd(t, h, 0)
		h.Configure(abcd)
		wantEnd(t, h, 0)
		h.Configure(Voters{Index: 30, IDs: []string{"a/1", "b/1", "d/1"}})
		wantEnd(t, h, 1500*ms)
	})
	t.Run("but none that was taken out", func(t *testing.T) {
		h := holder(abc)
		h.Latest(abcd)
		h.Latest(abc)
		h.Round(1000*ms, length)
		h.Ack(ack("a/1", 1))
		h.Ack(ack("b/1", 1))
		wantEnd(t, h, 1500*ms)
	})
	t.Run("a voter names what it has helped to commit before it is told that it is committed", func(t *testing.T) {
		v := NewVoter("b/1", Record{}, 0)
		v.Configure(abcd)
		a, _ := v.Renew(0, "a", 7, Renew{Incarnation: 1, K: 1, Length: length, Config: abc.Index})
		if d := cmp.Diff(abcd, a.(Ack).Config); d != "" {
			t.Error(d)
		}
	})
}

func TestAcknowledgementsOnTheirWayCountOnlyUpToAShortenedEnd(t *testing.T) {
	h := holder(abc)
	h.Round(1000*ms, 30*time.Second)
	h.Ack(ack("a/1", 1))
	h.Shorten(1600 * ms)
	h.Ack(ack("b/1", 1))
	wantEnd(t, h, 1600*ms)
}

func TestAnAcknowledgementTooLateForItsLeaseGivesNone(t *testing.T) {
	h := holder(abc)
	h.Round(1000*ms, length)
	h.Round(2000*ms, length)
	h.Ack(ack("a/1", 1))
	h.Ack(ack("b/1", 1))
	wantEnd(t, h, 0)
}

func TestRefusalsOfThePresentIncarnationAreCounted(t *testing.T) {
	h := holder(abc)
	h.Refuse(Refuse{Voter: "b/1", Incarnation: 1, Revoked: 1})
	h.Refuse(Refuse{Voter: "b/1", Incarnation: 1, Revoked: 1})
	h.Refuse(Refuse{Voter: "c/1", Incarnation: 0, Revoked: 0})
	if h.Refused() != 1 {
		t.Errorf("refused by %d, want 1", h.Refused())
	}
	h.Admit(2)
	if h.Refused() != 0 {
		t.Error("the new incarnation is not refused")
	}
}

// renew asks and stores as the keeper does.
func renew(t *testing.T, v *Voter, now time.Duration, boot uint64, r Renew) (Message, *Record) {
	t.Helper()
	if r.Incarnation == 0 {
		r.Incarnation = boot
	}
	if r.Length == 0 {
		r.Length = length
	}
	m, rec := v.Renew(now, "a", boot, r)
	if rec != nil {
		v.Saved()
	}
	return m, rec
}

func TestRule3APromiseOutlastsTheLeaseByThreePercent(t *testing.T) {
	v := NewVoter("b/1", Record{}, 0)
	m, rec := renew(t, v, time.Second, 1, Renew{K: 1})
	if d := cmp.Diff(Ack{Voter: "b/1", Incarnation: 1, K: 1}, m); d != "" {
		t.Error(d)
	}
	if rec == nil || rec.Longest["a"] != length {
		t.Errorf("stored before the first promise: %+v", rec)
	}
	if p := v.Promised("a"); p != time.Second+515*ms {
		t.Errorf("promised until %v", p)
	}
	if _, rec := renew(t, v, 1100*ms, 1, Renew{K: 2}); rec != nil {
		t.Error("a promise of the same length does not wait for the disk")
	}
}

func TestRule3AVoterThatHasJustStartedTreatsEveryPromiseAsRunningForTheLongest(t *testing.T) {
	v := NewVoter("b/1", Record{Longest: map[string]time.Duration{"a": 30 * time.Second}}, time.Second)
	if m, _ := v.Revoke(2*time.Second, "c", Revoke{"a", 1}); m != nil {
		t.Errorf("revoked at once: %v", m)
	}
	if m, _, _ := v.Due(31*time.Second + 899*ms); m != nil {
		t.Error("revoked early")
	}
	v.Revoke(31*time.Second+900*ms, "c", Revoke{"a", 1})
	if m, _ := v.Revoke(31*time.Second+901*ms, "c", Revoke{"a", 1}); m == nil {
		t.Error("not revoked after 30.9 s")
	}
}

func TestALongPromiseIsTakenBackOnlyByANewerRenewal(t *testing.T) {
	long := Renew{K: 8, Length: 30 * time.Second}
	for name, c := range map[string]struct {
		boot    uint64
		r       Renew
		restart bool
		want    time.Duration
	}{
		"not without Reset":                               {5, Renew{K: 9}, false, 31900 * ms},
		"by a later one with Reset":                       {5, Renew{K: 9, Reset: true}, false, 2515 * ms},
		"by the next boot with Reset":                     {6, Renew{K: 1, Reset: true}, false, 2515 * ms},
		"not by a late one of the boot before":            {4, Renew{K: 99, Reset: true}, false, 31900 * ms},
		"not by one that was overtaken":                   {5, Renew{K: 7, Reset: true}, false, 31900 * ms},
		"not by one overtaken, when the voter restarted":  {5, Renew{K: 7, Reset: true}, true, 32900 * ms},
		"not by an old boot's, when the voter restarted":  {4, Renew{K: 99, Reset: true}, true, 32900 * ms},
		"by a later one with Reset, after a restart also": {5, Renew{K: 9, Reset: true}, true, 2515 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			v := NewVoter("b/1", Record{}, 0)
			_, rec := renew(t, v, time.Second, 5, long)
			if c.restart {
				v = NewVoter("b/1", *rec, 2*time.Second)
			}
			_, rec = renew(t, v, 2*time.Second, c.boot, c.r)
			if got := v.Promised("a"); got != c.want {
				t.Errorf("promised until %v, want %v", got, c.want)
			}
			if rec != nil && rec.Longest["a"] < 30*time.Second && c.want > 5*time.Second {
				t.Errorf("the disk claims only %v", rec.Longest["a"])
			}
		})
	}
}

func TestRule5ARevocationWaitsForThePromiseAndIsStoredFirst(t *testing.T) {
	v := NewVoter("b/1", Record{}, 0)
	renew(t, v, time.Second, 1, Renew{K: 1})
	if m, _ := v.Revoke(1200*ms, "c", Revoke{"a", 1}); m != nil {
		t.Fatalf("revoked while promised: %v", m)
	}
	v.Revoke(1300*ms, "d", Revoke{"a", 1})
	if at, ok := v.Next(); !ok || at != 1515*ms {
		t.Errorf("due at %v %v", at, ok)
	}
	m, to, rec := v.Due(1515 * ms)
	if d := cmp.Diff(Revoked{"b/1", "a", 1}, m); d != "" {
		t.Error(d)
	}
	if len(to) != 2 || rec == nil || rec.Revoked["a"] != 1 {
		t.Errorf("to %v, stored %+v", to, rec)
	}
	t.Run("and from then on every such incarnation is refused", func(t *testing.T) {
		v := NewVoter("b/1", *rec, 5*time.Second)
		m, _ := renew(t, v, 5*time.Second, 1, Renew{K: 2})
		if d := cmp.Diff(Refuse{"b/1", 1, 2, 1}, m); d != "" {
			t.Error(d)
		}
		if m, _ := renew(t, v, 5*time.Second, 2, Renew{K: 1}); m == nil || m.kind() != (Ack{}).kind() {
			t.Errorf("the next incarnation is promised to: %v", m)
		}
	})
	t.Run("a save that failed is repeated before anything is said", func(t *testing.T) {
		if _, rec := v.Revoke(1600*ms, "c", Revoke{"a", 1}); rec == nil || rec.Revoked["a"] != 1 {
			t.Errorf("not stored again: %+v", rec)
		}
		v.Saved()
		if _, rec := v.Revoke(1600*ms, "c", Revoke{"a", 1}); rec != nil {
			t.Error("stored for nothing")
		}
	})
	t.Run("a lower one, late, lowers nothing", func(t *testing.T) {
		v := NewVoter("b/1", Record{Revoked: map[string]uint64{"a": 7}}, 0)
		v.Revoke(0, "c", Revoke{"a", 3})
		if m, _ := renew(t, v, 0, 7, Renew{K: 1}); m.kind() != (Refuse{}).kind() {
			t.Errorf("%v", m)
		}
	})
}

func TestASenderThatDoesNotHearIsPromisedNothingMoreOnceItsGroupsAreAskedFor(t *testing.T) {
	v := NewVoter("b/1", Record{}, 0)
	now := time.Second
	for k := uint64(1); k <= 20; k++ {
		renew(t, v, now, 1, Renew{K: k})
		now += 125 * ms
	}
	heard, any := v.Heard("a")
	if any <= heard {
		t.Errorf("heard %v, any %v: speech alone is not life", heard, any)
	}
	v.Revoke(now, "c", Revoke{"a", 1})
	if m, _ := renew(t, v, now, 1, Renew{K: 21}); m != nil {
		t.Errorf("promised again: %v", m)
	}
	if m, _, _ := v.Due(now + length); m == nil {
		t.Error("not revoked")
	}
}

func TestARecordThatIsDamagedOrOutOfRangeIsRefusedWithItsPath(t *testing.T) {
	f := File{filepath.Join(t.TempDir(), "promises.json")}
	if _, err := f.Load(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	want := Record{Revoked: map[string]uint64{"a": 3}, Longest: map[string]time.Duration{"b": time.Second}, Since: map[string]Mark{"b": {2, 5}}}
	if err := f.Save(want); err != nil {
		t.Fatal(err)
	}
	got, err := f.Load()
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%s %v", d, err)
	}
	for _, bad := range []string{"", "{", `{"longest":{"a":-1}}`, `{"longest":{"a":9000000000000}}`} {
		if err := os.WriteFile(f.Path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Load(); err == nil || !strings.Contains(err.Error(), f.Path) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range []Message{
		Renew{1, 2, length, 1, 9, true}, Ack{"a/1", 1, 2, abc}, Refuse{"a/1", 1, 2, 3}, Revoke{"a", 1}, Revoked{"a/1", "b", 7},
	} {
		f.Add(Encode(m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Decode(Encode(m))
		if err != nil {
			t.Fatalf("%+v does not survive: %v", m, err)
		}
		if d := cmp.Diff(m, again); d != "" {
			t.Fatal(d)
		}
		v := NewVoter("b/1", Record{}, 0)
		h := holder(abc)
		h.Round(0, length)
		switch m := m.(type) {
		case Renew:
			v.Renew(0, "a", 1, m)
		case Revoke:
			v.Revoke(0, "a", m)
		case Ack:
			h.Ack(m)
			h.End()
			h.Voters()
		case Refuse:
			h.Refuse(m)
		}
	})
}

// bubbleClock is lease time and the guard's in a bubble.
type bubbleClock struct{ start time.Time }

func (c bubbleClock) Now() time.Duration  { return time.Since(c.start) + time.Hour }
func (c bubbleClock) Boot() time.Duration { return time.Since(c.start) + 5*time.Hour }

type fakeGuard struct {
	deadline time.Duration
	err      error
}

func (g *fakeGuard) SetDeadline(d time.Duration) error {
	if g.err == nil {
		g.deadline = d
	}
	return g.err
}

// alone is the keeper of a cluster of one voter, whose word is enough.
func alone(_ *testing.T) (*Keeper, *Voter, *fakeGuard) {
	g := &fakeGuard{}
	k := NewKeeper(Config{
		Node: "a", ID: "a/1", Boot: 1, Holds: true, Length: length, Clock: bubbleClock{time.Now()},
		Store: &Memory{}, Guard: g, Send: func(string, []byte) {}, Changed: func() {}, Logger: slog.New(slog.DiscardHandler),
	})
	k.Admit(1)
	k.Configure(Voters{Index: 1, IDs: []string{"a/1"}})
	v := NewVoter("a/1", Record{}, k.cfg.Clock.Now())
	return k, v, g
}

func playRound(k *Keeper, v *Voter) {
	k.renew()
	for len(k.votes) > 0 {
		k.handle(v, <-k.votes)
	}
}

func TestTheGuardIsNeverAheadOfTheLease(t *testing.T) {
	check := func(t *testing.T, k *Keeper, v *Voter, g *fakeGuard, want time.Duration) {
		t.Helper()
		if left := g.deadline - k.cfg.Clock.Boot(); left != want {
			t.Errorf("the guard is open for %v, want %v", left, want)
		}
		if left := k.Left(); left != want {
			t.Errorf("the lease runs for %v, want %v", left, want)
		}
		if p := v.Promised("a") - k.cfg.Clock.Now(); p < want {
			t.Errorf("promised for %v only", p)
		}
	}
	t.Run("when the profile's lease gets shorter", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			k, v, g := alone(t)
			playRound(k, v)
			check(t, k, v, g, length)
			k.SetLength(100 * ms)
			playRound(k, v)
			check(t, k, v, g, 100*ms)
		})
	})
	t.Run("when a long lease is taken back", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			k, v, g := alone(t)
			k.long = 30 * time.Second
			playRound(k, v)
			check(t, k, v, g, 30*time.Second)
			k.Shorten()
			playRound(k, v)
			check(t, k, v, g, length)
			if p := v.Promised("a") - k.cfg.Clock.Now(); p > time.Second {
				t.Errorf("the others still wait %v for this node", p)
			}
		})
	})
	t.Run("when a long lease that nobody promised is taken back after the lease has ended", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			k, v, g := alone(t)
			playRound(k, v)
			k.long = 30 * time.Second
			time.Sleep(10 * time.Second)
			k.Shorten()
			check(t, k, v, g, length-10*time.Second)
		})
	})
	t.Run("when the guard refuses the shorter deadline, the promise stays long", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			k, v, g := alone(t)
			k.long = 30 * time.Second
			playRound(k, v)
			g.err = errors.New("no such map")
			k.Shorten()
			g.err = nil
			playRound(k, v)
			check(t, k, v, g, 30*time.Second)
		})
	})
}
