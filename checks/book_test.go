package checks

import (
	"math/rand/v2"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

func TestABookTellsChecksOfTheSameHashApart(t *testing.T) {
	b := newBook()
	b.hash = func(c conf.Check) uint64 { return uint64(c.Target.Addr().As4()[3] % 7) }
	random := rand.New(rand.NewPCG(1, 2))
	want := map[conf.Check]*entry{}
	for range 5000 {
		c := target(random.IntN(50))
		if e := b.find(c); e != want[c] {
			t.Fatalf("%v: found %p, want %p", c.Target, e, want[c])
		}
		if e := want[c]; e != nil {
			b.remove(e)
			delete(want, c)
		} else {
			want[c] = &entry{key: &c}
			b.add(want[c])
		}
		n := 0
		for e := range b.all() {
			if n++; want[*e.key] != e {
				t.Fatalf("%v is in the book", e.key.Target)
			}
		}
		if n != len(want) || b.n != n {
			t.Fatalf("%d entries, counted as %d, want %d", n, b.n, len(want))
		}
	}
}
