package checks

import (
	"hash/maphash"
	"iter"

	"github.com/keepbeat/keepbeat/conf"
)

// book finds the entry of a check. A map with checks as keys would hold one more
// copy of each, of some 700 bytes.
type book struct {
	hash  func(conf.Check) uint64
	first map[uint64]*entry // by hash; others of the same follow by entry.next
	n     int
}

func newBook() book {
	seed := maphash.MakeSeed()
	return book{first: map[uint64]*entry{}, hash: func(c conf.Check) uint64 { return maphash.Comparable(seed, c) }}
}

// find is nil when there is no such entry.
func (b *book) find(c conf.Check) *entry {
	e := b.first[b.hash(c)]
	for e != nil && *e.key != c {
		e = e.next
	}
	return e
}

// add adds an entry whose check has none.
func (b *book) add(e *entry) {
	h := b.hash(*e.key)
	e.next = b.first[h]
	b.first[h] = e
	b.n++
}

// remove removes an entry that is there.
func (b *book) remove(e *entry) {
	h := b.hash(*e.key)
	at := b.first[h]
	if at == e {
		if b.first[h] = e.next; e.next == nil {
			delete(b.first, h)
		}
	} else {
		for at.next != e {
			at = at.next
		}
		at.next = e.next
	}
	b.n--
}

func (b *book) all() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for _, e := range b.first {
			for ; e != nil; e = e.next {
				if !yield(e) {
					return
				}
			}
		}
	}
}
