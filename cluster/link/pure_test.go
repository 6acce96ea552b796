package link

import (
	"bytes"
	"errors"
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestJudge(t *testing.T) {
	const ms = time.Millisecond
	tm, err := Timing{Keepalive: 100 * ms}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	t0 := time.Unix(1000, 0)
	now := t0.Add(10 * time.Second)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, c := range []struct {
		name string
		e    evidence
		want State
		why  string
		next time.Duration // from now; 0: never
	}{
		{"never heard is down", evidence{}, Down, "no hello yet", 0},
		{"just heard both ways is up", evidence{hello: now, saw: now, echo: now}, Up, "", 250*ms + 1},
		{"up to warntime it is up", evidence{hello: ago(250 * ms), saw: ago(250 * ms), echo: ago(250 * ms)}, Up, "", 1},
		{"past warntime it is late", evidence{hello: ago(251 * ms), saw: ago(251 * ms), echo: ago(251 * ms)}, Late, "no hello for 251ms", 249*ms + 1},
		{"up to deadtime it is late", evidence{hello: ago(500 * ms), saw: ago(500 * ms), echo: ago(500 * ms)}, Late, "no hello for 500ms", 1},
		{"past deadtime it is down", evidence{hello: ago(501 * ms), saw: ago(501 * ms), echo: ago(501 * ms)}, Down, "no hello for 501ms", 0},
		{"long ages are said in round figures", evidence{hello: ago(1234 * ms), saw: ago(1234 * ms), echo: ago(1234 * ms)}, Down, "no hello for 1.2s", 0},
		{"heard, but without echo, is down", evidence{hello: now, saw: now}, Down, "hears us not", 0},
		{"heard, with an old echo, is late", evidence{hello: now, saw: now, echo: ago(300 * ms)}, Late, "hears us not", 200*ms + 1},
		{"heard, with a dead echo, is down", evidence{hello: now, saw: now, echo: ago(600 * ms)}, Down, "hears us not", 0},
		{"a boot that is not believed shows that it cannot hear us", evidence{saw: ago(50 * ms)}, Down, "hears us not", 0},
		{"a broken interface is down whatever was heard", evidence{problem: "eth1: no carrier", hello: now, saw: now, echo: now}, Down, "eth1: no carrier", 0},
	} {
		s, why, next := judge(c.e, now, tm)
		var in time.Duration
		if !next.IsZero() {
			in = next.Sub(now)
		}
		if s != c.want || why != c.why || in != c.next {
			t.Errorf("%s: got %v %q next %v, want %v %q next %v", c.name, s, why, in, c.want, c.why, c.next)
		}
		if !next.IsZero() {
			if after, _, _ := judge(c.e, next, tm); after == s {
				t.Errorf("%s: at next it is still %v", c.name, after)
			}
		}
	}
}

func TestEchoTime(t *testing.T) {
	tm := Timing{Keepalive: 100 * time.Millisecond}
	now := time.Unix(1000, 0)
	for _, c := range []struct {
		name string
		sent time.Duration // before now
		want time.Duration // before now
	}{
		{"an echo of the last hello is as good as now", 100 * time.Millisecond, 0},
		{"two keepalives are granted", 200 * time.Millisecond, 0},
		{"what is older counts", 1200 * time.Millisecond, time.Second},
	} {
		if got := now.Sub(echoTime(now, now.Add(-c.sent), tm)); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestTiming(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name string
		in   Timing
		want Timing
		err  string
	}{
		{"defaults", Timing{}, Timing{100 * ms, 250 * ms, 500 * ms}, ""},
		{"from the keepalive", Timing{Keepalive: 40 * ms}, Timing{40 * ms, 100 * ms, 200 * ms}, ""},
		{"a long warntime moves deadtime", Timing{Keepalive: 40 * ms, WarnTime: 300 * ms}, Timing{40 * ms, 300 * ms, 600 * ms}, ""},
		{"keepalive too short", Timing{Keepalive: 1}, Timing{}, "keepalive 1ns: at least 1ms"},
		{"warntime too short", Timing{100 * ms, 150 * ms, 0}, Timing{}, "warntime 150ms: at least two keepalives, 200ms"},
		{"deadtime too short", Timing{100 * ms, 200 * ms, 200 * ms}, Timing{}, "deadtime 200ms: more than warntime, 200ms"},
	} {
		got, err := c.in.withDefaults()
		switch {
		case c.err != "":
			if err == nil || err.Error() != c.err {
				t.Errorf("%s: error %v, want %s", c.name, err, c.err)
			}
		case err != nil || got != c.want:
			t.Errorf("%s: %v, %v, want %v", c.name, got, err, c.want)
		}
	}
}

func TestLoss(t *testing.T) {
	run := func(ticks ...uint64) *lossWindow {
		w := new(lossWindow)
		for _, n := range ticks {
			w.add(n)
		}
		return w
	}
	seq := func(from, to, step uint64) (out []uint64) {
		for n := from; n <= to; n += step {
			out = append(out, n)
		}
		return out
	}
	for _, c := range []struct {
		name    string
		w       *lossWindow
		overdue int
		want    float64
	}{
		{"nothing heard is no loss", run(), 50, 0},
		{"all heard", run(seq(500, 700, 1)...), 0, 0},
		{"before the first nothing is due", run(1_000_000), 0, 0},
		{"every second one", run(seq(1, 401, 2)...), 0, 0.5},
		{"one of four", run(1, 2, 4), 0, 0.25},
		{"late ones count", run(1, 4, 2, 3), 0, 0},
		{"doubled ones count once", run(1, 1, 2, 4, 4), 0, 0.25},
		{"a gap longer than the window", run(append(seq(1, 100, 1), 1000)...), 0, 0.99},
		{"silence is loss", run(seq(1, 100, 1)...), 25, 0.25},
		{"long silence is total loss", run(seq(1, 100, 1)...), 1000, 1},
		{"tick 0 is nothing", run(0), 0, 0},
		{"the largest tick", run(math.MaxUint64-1, math.MaxUint64), 0, 0},
	} {
		if got := c.w.share(c.overdue); math.Abs(got-c.want) > 0.001 {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestWindow(t *testing.T) {
	type step struct {
		seq  uint64
		link int
		want verdict
	}
	for _, c := range []struct {
		name  string
		start uint64
		steps []step
	}{
		{"a number is taken once, other links make duplicates, the same link replays", 10,
			[]step{{11, 0, fresh}, {11, 1, duplicate}, {11, 0, replayed}, {11, 1, replayed}}},
		{"what came before the proof is refused", 10, []step{{10, 0, duplicate}, {1, 3, duplicate}, {9, 0, duplicate}}},
		{"reordered numbers are taken", 10, []step{{15, 0, fresh}, {12, 0, fresh}, {14, 0, fresh}, {12, 0, replayed}}},
		{"the window slides", 10, []step{{11, 0, fresh}, {11 + windowSize, 0, fresh}, {11, 0, tooOld}, {12, 0, fresh}, {12, 1, duplicate}}},
		{"a great leap forgets nothing that it should refuse", 10,
			[]step{{20, 0, fresh}, {20 + 10*windowSize, 0, fresh}, {20, 0, tooOld}, {20 + 9*windowSize + 1, 0, fresh}, {20 + 10*windowSize, 0, replayed}}},
		{"the end of the numbers", math.MaxUint64 - 1, []step{{math.MaxUint64, 0, fresh}, {math.MaxUint64, 0, replayed}, {1, 0, tooOld}}},
	} {
		w := newWindow(c.start)
		for i, s := range c.steps {
			if v := w.check(s.seq, s.link); (v == fresh) != (s.want == fresh) {
				t.Errorf("%s: step %d: check says %d", c.name, i, v)
			} else if v != fresh {
				if v != s.want {
					t.Errorf("%s: step %d: %d, want %d", c.name, i, v, s.want)
				}
				continue
			}
			if v := w.mark(s.seq, s.link); v != s.want {
				t.Errorf("%s: step %d: %d, want %d", c.name, i, v, s.want)
			}
		}
	}
}

// A window of the plainest kind is the measure: nothing is taken twice, and
// nothing young that was not seen is refused.
func FuzzWindow(f *testing.F) {
	f.Add([]byte{1, 2, 3, 2, 1, 255, 254, 3})
	f.Add([]byte{250, 250, 250, 1, 0, 0, 7})
	f.Fuzz(func(t *testing.T, moves []byte) {
		w, seen, top, at := newWindow(100), map[uint64]bool{}, uint64(100), uint64(100)
		for i, b := range moves {
			switch {
			case b >= 240:
				at += uint64(b-239) * 700
			case b >= 120:
				at += uint64(b - 120)
			default:
				at -= min(at-1, uint64(b)*40)
			}
			v := w.mark(at, i%3)
			if seen[at] && v == fresh {
				t.Fatalf("%d was taken twice", at)
			}
			if young := at > 100 && (at > top || top-at < windowSize); !seen[at] && young && v != fresh {
				t.Fatalf("%d was refused: %d", at, v)
			}
			if v == fresh {
				seen[at] = true
				top = max(top, at)
			}
		}
	})
}

func TestBucketLetsABurstPassAndThenADrip(t *testing.T) {
	var b bucket
	now := time.Unix(0, 0)
	n := 0
	for range 100 {
		if b.take(now, time.Second) {
			n++
		}
	}
	for range 100 {
		now = now.Add(100 * time.Millisecond)
		if b.take(now, time.Second) {
			n++
		}
	}
	if n < bucketSize+9 || n > bucketSize+10 {
		t.Errorf("%d passed in 10 s, want a burst of %d and one a second", n, bucketSize)
	}
}

func TestHelloRoundTrip(t *testing.T) {
	for _, want := range []hello{
		{tick: 1},
		{prompt: true, tick: 1 << 40, hasMeta: true, meta: []byte("x"), period: 40 * time.Millisecond},
		{tick: 3, hasMeta: true, meta: []byte{}, entries: []entry{{1, 2, 3, 4, 5, 6 * time.Microsecond}, {node: 7, boot: 8}}},
		{tick: 3, hasMeta: true, meta: make([]byte, MaxMeta), entries: make([]entry, entriesThatFit(MaxMeta))},
		{tick: 3, entries: make([]entry, entriesThatFit(-1))},
	} {
		b := appendHello(nil, &want)
		if len(b) > maxPlain {
			t.Errorf("%d bytes do not fit", len(b))
		}
		var got hello
		if err := parseHello(b, &got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, appendHello(nil, &got)) || got.tick != want.tick || got.period != want.period || got.prompt != want.prompt || got.hasMeta != want.hasMeta || len(got.entries) != len(want.entries) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		for n := range b {
			if err := parseHello(b[:n], &got); !errors.Is(err, errHello) {
				t.Errorf("%d of %d bytes: %v", n, len(b), err)
			}
		}
		if parseHello(append(b, 0), &got) == nil {
			t.Error("a byte too many was taken")
		}
	}
}

func TestEntryDelayIsBounded(t *testing.T) {
	for in, want := range map[time.Duration]time.Duration{
		-time.Second: 0, 24 * time.Hour: math.MaxUint32 * time.Microsecond, 1500: time.Microsecond,
	} {
		var got hello
		if err := parseHello(appendHello(nil, &hello{entries: []entry{{delay: in}}}), &got); err != nil || got.entries[0].delay != want {
			t.Errorf("%v: %v, %v", in, got.entries, err)
		}
	}
}

func FuzzHello(f *testing.F) {
	f.Add(appendHello(nil, &hello{tick: 9, hasMeta: true, meta: []byte("meta"), entries: []entry{{node: 1, boot: 2, heard: 3}}}))
	f.Add([]byte{byte(ChannelHello), 2, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var h hello
		if err := parseHello(b, &h); err != nil {
			return
		}
		if again := appendHello(nil, &h); !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

func TestHeaderRoundTrip(t *testing.T) {
	want := header{cluster: 1, key: 2, src: 3, dst: 4, boot: 5, seq: 6}
	b := make([]byte, headerLen+1+tagLen)
	want.put(b)
	got, ok := parseHeader(b)
	if !ok || got != want {
		t.Errorf("%s", cmp.Diff(want, got, cmp.AllowUnexported(header{})))
	}
	for name, spoil := range map[string]func([]byte) []byte{
		"short":         func(b []byte) []byte { return b[:len(b)-1] },
		"long":          func(b []byte) []byte { return append(b, make([]byte, maxDatagram)...) },
		"magic":         func(b []byte) []byte { b[0] = 'X'; return b },
		"version":       func(b []byte) []byte { b[2]++; return b },
		"no source":     func(b []byte) []byte { clear(b[8:12]); return b },
		"no boot":       func(b []byte) []byte { clear(b[16:24]); return b },
		"sequence of 0": func(b []byte) []byte { clear(b[24:32]); return b },
	} {
		if _, ok := parseHeader(spoil(bytes.Clone(b))); ok {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestEveryBootHasItsOwnKey(t *testing.T) {
	secret := []byte("0123456789abcdef")
	seal := func(cluster string, src uint32, boot Boot) string {
		k, err := newCryptKey(cluster, Key{Index: 1, Secret: secret})
		if err != nil {
			t.Fatal(err)
		}
		a, err := k.aead(src, boot)
		if err != nil {
			t.Fatal(err)
		}
		return string(a.Seal(nil, make([]byte, 12), []byte("the same text"), nil))
	}
	seen := map[string]bool{}
	for _, s := range []string{seal("a", 1, 1), seal("b", 1, 1), seal("a", 2, 1), seal("a", 1, 2)} {
		if seen[s] {
			t.Error("two senders, boots or clusters share a key")
		}
		seen[s] = true
	}
	if one, again := seal("a", 1, 1), seal("a", 1, 1); one != again {
		t.Error("a key does not follow from its parts")
	}
}

func TestRingFindsWhatItKeeps(t *testing.T) {
	var r ring
	for i := range 1000 {
		r.add(uint64(i+1), time.Unix(int64(i+1), 0))
	}
	if at, ok := r.find(999); !ok || at.Unix() != 999 {
		t.Error("a recent hello is not found")
	}
	for _, seq := range []uint64{0, 1, 1001} {
		if _, ok := r.find(seq); ok {
			t.Errorf("%d is found", seq)
		}
	}
}

func TestAlarmsAreLoggedOnceAndThenCounted(t *testing.T) {
	var a alarms
	now := time.Unix(1000, 0)
	count := func() (n uint64) {
		for _, d := range a.due(now) {
			n += d.count
		}
		return n
	}
	for i, c := range []struct {
		notes int
		pass  time.Duration
		want  uint64
	}{
		{1, 0, 1}, {500, time.Second, 0}, {1, alarmEvery / 2, 0}, {0, alarmEvery, 501}, {0, alarmEvery, 0}, {2, 0, 2},
	} {
		for range c.notes {
			a.note(cAuth, netip.MustParseAddrPort("10.0.0.1:694"))
		}
		now = now.Add(c.pass)
		if got := count(); got != c.want {
			t.Errorf("step %d: %d, want %d", i, got, c.want)
		}
	}
}
