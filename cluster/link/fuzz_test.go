package link

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

// pair is two meshes without ports, and what the first would send to the second.
func pair(tb testing.TB) (a, b *Mesh) {
	tb.Helper()
	make := func(self string) *Mesh {
		m, err := New(Config{
			Cluster: "test", Self: self, Nodes: []string{"a", "b"}, Boot: Boot(len(self)) + 41,
			Keys: []Key{{Index: 1, Secret: []byte("0123456789abcdef")}}, Active: 1,
			Links: []conf.Link{{Type: conf.Bcast, Interface: "eth1"}, {Type: conf.Bcast, Interface: "eth2"}},
			Open:  func(conf.Link) (Port, error) { return nil, ErrDropped },
		})
		if err != nil {
			tb.Fatal(err)
		}
		return m
	}
	return make("a"), make("b")
}

// sealed makes a datagram of m to everybody.
func sealed(m *Mesh, plain []byte) []byte {
	tx := new(txBuf)
	copy(tx.b[headerLen:], plain)
	return bytes.Clone(m.sealTo(tx, 0, m.seq.Add(1), len(plain)))
}

// introduceTo makes b believe a, as their hellos would.
func introduceTo(tb testing.TB, b, a *Mesh) *receiver {
	tb.Helper()
	r := &receiver{m: b, l: b.links[0]}
	from := netip.MustParseAddrPort("10.0.0.1:694")
	r.take(sealed(a, appendHello(nil, &hello{tick: 1})), from)
	if len(b.roster.Load().byName["a"].candidates) != 1 {
		tb.Fatal("the first hello makes no candidate")
	}
	c := b.roster.Load().byName["a"].candidates[0].challenge
	r.take(sealed(a, appendHello(nil, &hello{tick: 2, entries: []entry{{node: b.id, boot: b.boot, answer: c}}})), from)
	if s := b.roster.Load().byName["a"].sess.Load(); s == nil || s.boot != a.boot {
		tb.Fatal("the answer is not believed")
	}
	return r
}

// Whatever arrives, authenticated or not, from strangers or from the believed
// boot: no panic, and nothing unauthenticated is delivered.
func FuzzDatagram(f *testing.F) {
	a, _ := pair(f)
	f.Add(false, sealed(a, appendHello(nil, &hello{tick: 1})))
	f.Add(true, appendHello(nil, &hello{tick: 1, hasMeta: true, meta: []byte("m"), entries: []entry{{node: nodeID("b"), boot: 42, answer: 7, heard: 1}}}))
	f.Add(true, appendHello(nil, &hello{tick: 1, bare: true, part: metaPart{7, 10, 4, []byte("part")}, entries: []entry{{node: nodeID("b"), boot: 42, heard: 1}}}))
	f.Add(true, []byte{byte(ChannelLease), 1, 2, 3})
	f.Add(true, []byte{byte(ChannelHello)})
	f.Add(false, []byte("KB\x01\x01"))
	f.Fuzz(func(t *testing.T, seal bool, data []byte) {
		if len(data) > maxPlain && seal {
			return
		}
		from := netip.MustParseAddrPort("10.0.0.9:694")
		for _, known := range []bool{false, true} {
			a, b := pair(t)
			r := &receiver{m: b, l: b.links[0]}
			if known {
				r = introduceTo(t, b, a)
			}
			delivered := 0
			for ch := range b.handlers {
				b.Handle(Channel(ch), func(_ string, _ Boot, got []byte) {
					delivered++
					if !seal || !bytes.Equal(got, data[1:]) {
						t.Fatalf("delivered %x", got)
					}
				})
			}
			packet := data
			if seal && len(data) > 0 {
				packet = sealed(a, data)
			}
			for range 2 {
				r.take(bytes.Clone(packet), from)
			}
			if delivered > 1 || delivered == 1 && !known {
				t.Fatalf("delivered %d times", delivered)
			}
			b.Peers()
			b.mu.Lock()
			b.compose(nil, b.links[0], nil, netip.AddrPort{}, b.started)
			b.mu.Unlock()
		}
	})
}

// The cost of receiving one datagram and its copy on a second link. No allocation.
func BenchmarkSealAndReceive(b *testing.B) {
	for _, size := range []int{100, MaxPayload} {
		b.Run(map[int]string{100: "lease", MaxPayload: "full"}[size], func(b *testing.B) {
			a, d := pair(b)
			r := introduceTo(b, d, a)
			second := &receiver{m: d, l: d.links[1]}
			n := 0
			d.Handle(ChannelQUIC, func(string, Boot, []byte) { n++ })
			from, tx, copied := netip.MustParseAddrPort("10.0.0.1:694"), new(txBuf), make([]byte, maxDatagram)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				tx.b[headerLen] = byte(ChannelQUIC)
				p := a.sealTo(tx, d.id, a.seq.Add(1), 1+size)
				c := copied[:copy(copied, p)]
				r.take(p, from)
				second.take(c, from)
			}
			if n != b.N {
				b.Fatalf("%d of %d were delivered", n, b.N)
			}
		})
	}
}

func TestReceivingAllocatesNothing(t *testing.T) {
	a, d := pair(t)
	r := introduceTo(t, d, a)
	d.Handle(ChannelQUIC, func(string, Boot, []byte) {})
	from, tx := netip.MustParseAddrPort("10.0.0.1:694"), new(txBuf)
	tx.b[headerLen] = byte(ChannelQUIC)
	if n := testing.AllocsPerRun(1000, func() {
		r.take(a.sealTo(tx, d.id, a.seq.Add(1), 500), from)
	}); n > 0 {
		t.Errorf("%v allocations for a datagram", n)
	}
}
