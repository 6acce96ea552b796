package link

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// frames reads all that a line brought, in the pieces given.
func frames(pieces ...[]byte) (got []string, noise int) {
	var d deframer
	for _, in := range pieces {
		for len(in) > 0 {
			frame, rest, err := d.next(in)
			in = rest
			if err != nil {
				noise++
			} else if frame != nil {
				got = append(got, string(frame))
			}
		}
	}
	return got, noise
}

func TestFramesOfAllLengthsReturn(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{1, 2, 249, 250, 251, 252, 253, 254, 255, 503, 504, 505, 508, maxDatagram} {
		for _, fill := range []string{"zero", "one", "random", "ends in zero"} {
			data := make([]byte, n)
			for i := range data {
				switch fill {
				case "one":
					data[i] = 1
				case "random":
					data[i] = byte(r.Uint32())
				case "ends in zero":
					data[i] = byte(n - 1 - i)
				}
			}
			f := appendFrame(nil, data)
			if len(f) > 2+maxFrame || n == maxDatagram && fill == "one" && len(f) < maxFrame {
				t.Errorf("%d bytes of %s make a frame of %d", n, fill, len(f))
			}
			if i := bytes.IndexByte(f[1:len(f)-1], 0); f[0] != 0 || f[len(f)-1] != 0 || i >= 0 {
				t.Errorf("%d bytes of %s: the delimiter is inside, at %d", n, fill, i)
			}
			if got, noise := frames(f); len(got) != 1 || got[0] != string(data) || noise != 0 {
				t.Errorf("%d bytes of %s return as %d frames and %d times noise", n, fill, len(got), noise)
			}
		}
	}
}

func TestTheFrameAfterNoiseIsRead(t *testing.T) {
	one, two := appendFrame(nil, []byte("one")), appendFrame(nil, []byte("two\x00\x00"))
	flipped := bytes.Clone(one)
	flipped[3] ^= 0x20
	for _, c := range []struct {
		name  string
		noise []byte
		bad   int
	}{
		{"nothing", nil, 0},
		{"a break", make([]byte, 1000), 0},
		{"the end of a frame", one[3:], 1},
		{"the beginning of a frame", one[:4], 1},
		{"a flipped bit", flipped, 1},
		{"a byte lost", append(bytes.Clone(one[:3]), one[4:]...), 1},
		{"a byte doubled", append(bytes.Clone(one[:4]), one[3:]...), 1},
		{"a delimiter in the middle", append(append(bytes.Clone(one[:4]), 0), one[4:]...), 2},
		{"more than any frame", bytes.Repeat([]byte{7}, 100_000), 1},
		{"words of a getty", []byte("\r\ndirector1 login: "), 1},
	} {
		in := append(bytes.Clone(c.noise), two...)
		whole, bad := frames(in)
		if fmt.Sprintf("%q", whole) != `["two\x00\x00"]` || bad != c.bad {
			t.Errorf("%s: frames %q, %d times noise, want %d", c.name, whole, bad, c.bad)
		}
		var bytewise [][]byte
		for i := range in {
			bytewise = append(bytewise, in[i:i+1])
		}
		if got, n := frames(bytewise...); fmt.Sprint(got, n) != fmt.Sprint(whole, bad) {
			t.Errorf("%s, byte by byte: frames %q, %d times noise", c.name, got, n)
		}
	}
}

func TestASqueezedDatagramReturns(t *testing.T) {
	a, b := pair(t)
	for _, dst := range []uint32{0, b.id} {
		tx := new(txBuf)
		d := bytes.Clone(a.sealTo(tx, dst, 7, 50))
		s := squeeze(nil, d)
		buf := make([]byte, maxDatagram+1)
		n := expand(buf, copy(buf, s), a.cluster)
		if !bytes.Equal(buf[:n], d) {
			t.Errorf("to %d: %x\nreturns as %x", dst, d, buf[:n])
		}
		if saved := len(d) - len(s); saved != 6 && dst != 0 || saved != 10 && dst == 0 {
			t.Errorf("to %d: %d bytes are saved", dst, saved)
		}
		for cut := range s[:min(len(s), 30)] { // whatever comes: no panic
			expand(buf, copy(buf, s[:cut]), a.cluster)
		}
	}
}

func TestTheUsualHelloHasTheSizeThatTheBudgetCountsOn(t *testing.T) {
	a, _ := pair(t)
	tx := new(txBuf)
	h := hello{tick: 1, bare: true, entries: []entry{{node: 1, boot: 2, heard: 3}}}
	n := len(appendHello(tx.b[headerLen:headerLen], &h))
	if got := len(appendFrame(nil, squeeze(nil, a.sealTo(tx, 0, 1<<60, n)))); got != lineHello {
		t.Errorf("a hello is %d bytes on the line, the budget says %d", got, lineHello)
	}
	for _, c := range []struct {
		keepalive time.Duration
		baud      int
		want      int
	}{
		{100 * time.Millisecond, 19200, 3}, {40 * time.Millisecond, 19200, 7}, {250 * time.Millisecond, 19200, 1},
		{100 * time.Millisecond, 9600, 5}, {100 * time.Millisecond, 115200, 1}, {40 * time.Millisecond, 115200, 2},
	} {
		if got := beatsPerHello(c.keepalive, c.baud); got != c.want {
			t.Errorf("at %d baud a hello goes out every %d keepalives of %v, want %d", c.baud, got, c.keepalive, c.want)
		}
	}
}

func TestLineQueue(t *testing.T) {
	begin := time.Now()
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	type add struct {
		ms   int
		c    class
		text string
	}
	// 1 ms a byte: frames of 100 bytes take 100 ms, lease messages are stale after 400 ms, hellos wait 200 ms.
	for _, c := range []struct {
		name string
		adds []add
		want string // what goes out, and when
	}{
		{"one after the other", []add{{0, 9, "a"}, {1, 9, "b"}}, "a@0 b@100"},
		{"lease messages before a hello", []add{{0, 9, "a"}, {1, classBeat, "hello"}, {50, 9, "b"}}, "a@0 b@100 hello@200"},
		{"a hello that waited long goes first", []add{{0, 9, "a"}, {1, classBeat, "hello"}, {90, 9, "b"}, {190, 9, "c"}, {290, 9, "d"}}, "a@0 b@100 c@200 hello@300 d@400"},
		{"a newer hello replaces an older one", []add{{0, 9, "a"}, {1, classBeat, "old"}, {2, classPrompt, "prompt"}, {3, classBeat, "hello"}}, "a@0 prompt@100 hello@200"},
		{"the newest of a class first", []add{{0, 9, "a"}, {1, 9, "b"}, {2, 9, "c"}, {3, 9, "d"}}, "a@0 d@100 c@200 b@300"},
		{"classes in turn", []add{{0, 8, "x1"}, {1, 9, "y1"}, {2, 9, "y2"}, {3, 8, "x2"}, {4, 8, "x3"}}, "x1@0 y2@100 x3@200 y1@300 x2@400"},
		{"what is stale is dropped", []add{{0, 9, "a"}, {1, 9, "b"}, {2, 9, "c"}, {3, 9, "d"}, {4, 9, "e"}, {5, 9, "f"}}, "a@0 f@100 e@200 d@300 c@400"},
	} {
		q := lineQueue{byteTime: time.Millisecond}
		var got []string
		for ms := 0; ms < 2000; ms++ {
			for _, a := range c.adds {
				if a.ms == ms {
					q.add(at(ms), a.c, append([]byte(a.text), make([]byte, 100-len(a.text))...))
				}
			}
			if data, _ := q.next(at(ms)); data != nil {
				got = append(got, fmt.Sprintf("%s@%d", bytes.TrimRight(data, "\x00"), ms))
			}
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, s, c.want)
		}
	}
	q := lineQueue{byteTime: time.Millisecond}
	for i := range 1000 {
		q.add(at(0), class(100+i), []byte{1})
	}
	if len(q.leases) != maxWaiting || q.dropped != 1000-maxWaiting {
		t.Errorf("%d wait, %d were dropped", len(q.leases), q.dropped)
	}
}

func TestMetaInParts(t *testing.T) {
	meta := bytes.Repeat([]byte("0123456789"), 20)
	var out partsOut
	var in partsIn
	beats := 0
	complete := func(lose int) bool {
		for i := range 100 {
			beats++
			p := out.next(meta, uint64(beats))
			if i == lose {
				continue
			}
			if got, ok := in.add(p); ok {
				if !bytes.Equal(got, meta) {
					t.Fatalf("got %q", got)
				}
				return true
			}
		}
		return false
	}
	if !complete(-1) || beats != 9 {
		t.Errorf("it took %d hellos", beats)
	}
	out.again()
	beats = 0
	if !complete(3) || beats != 18 {
		t.Errorf("with one lost it took %d hellos", beats)
	}
	meta = []byte("another")
	beats = 0
	if !complete(-1) || beats != 1 {
		t.Errorf("the next one took %d hellos", beats)
	}
	p := out.next(meta, 1)
	if p.data[0] ^= 1; p.total > 0 {
		if _, ok := in.add(p); ok {
			t.Error("a meta that does not fit its digest was taken")
		}
	}
}

func TestAFloodIsNoticed(t *testing.T) {
	begin := time.Now()
	for _, c := range []struct {
		name string
		per  int // bytes every millisecond
		want bool
	}{{"the line's rate", 2, false}, {"a flood", 1000, true}} {
		f := flood{rate: 3840}
		var err error
		for ms := 0; ms < 60_000 && err == nil; ms++ {
			err = f.take(c.per, begin.Add(time.Duration(ms)*time.Millisecond))
		}
		if (err != nil) != c.want {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// Whatever a line brings: no panic, bounded memory, and the frame after it is read.
func FuzzDeframer(f *testing.F) {
	f.Add([]byte("\x00\x04abc\x00"), []byte("next"))
	f.Add(appendFrame(nil, []byte("whole")), []byte{0})
	f.Add(bytes.Repeat([]byte{0xff}, 3000), []byte{1})
	f.Fuzz(func(t *testing.T, noise, data []byte) {
		if len(data) == 0 || len(data) > maxDatagram {
			return
		}
		var d deframer
		for in := noise; len(in) > 0; {
			frame, rest, err := d.next(in)
			if len(rest) >= len(in) || len(frame) > maxFrame || err != nil && !errors.Is(err, ErrNoise) {
				t.Fatalf("%d bytes left of %d, a frame of %d, %v", len(rest), len(in), len(frame), err)
			}
			if frame != nil {
				buf := make([]byte, maxDatagram+1)
				expand(buf, copy(buf, frame), 1)
			}
			in = rest
		}
		in := appendFrame(nil, data)
		for len(in) > 0 {
			frame, rest, err := d.next(in)
			if in = rest; frame != nil {
				if !bytes.Equal(frame, data) || err != nil {
					t.Fatalf("the frame after it is %x, %v; want %x", frame, err, data)
				}
				return
			}
		}
		t.Fatal("the frame after it is lost")
	})
}

func BenchmarkFrame(b *testing.B) {
	data := bytes.Repeat([]byte("lease"), 20)
	var d deframer
	buf := make([]byte, 0, 200)
	b.ReportAllocs()
	for b.Loop() {
		buf = appendFrame(buf[:0], data)
		if frame, _, err := d.next(buf); err != nil || len(frame) != len(data) {
			b.Fatal(err)
		}
	}
}
