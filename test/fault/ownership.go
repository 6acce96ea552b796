package fault

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/keepbeat/keepbeat/test/lab/probe"
)

// hold is a time for which a director was seen to answer for the address, by its
// own stamps: it owned at From and at To and, as far as anybody saw, in between.
type hold struct {
	owner    string
	from, to probe.Instant
}

// holds joins the answers of each director that are not further apart than quiet;
// a move of the group there and back takes longer. Sorted by their beginning.
func holds(samples []probe.Sample, quiet time.Duration) []hold {
	stamps := map[string][]probe.Instant{}
	for _, s := range samples {
		if s.OK() && s.At > 0 {
			stamps[s.Who] = append(stamps[s.Who], s.At)
		}
	}
	var all []hold
	for owner, at := range stamps {
		slices.Sort(at)
		h := hold{owner, at[0], at[0]}
		for _, i := range at[1:] {
			if i.Sub(h.to) > quiet {
				all = append(all, h)
				h.from = i
			}
			h.to = i
		}
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b hold) int { return int(a.from - b.from) })
	return all
}

// conflict is two directors that owned at the same instant.
type conflict struct {
	a, b     string
	from, to probe.Instant
}

func conflicts(all []hold) []conflict {
	var found []conflict
	for i, x := range all {
		for _, y := range all[i+1:] {
			if from, to := max(x.from, y.from), min(x.to, y.to); x.owner != y.owner && from <= to {
				found = append(found, conflict{x.owner, y.owner, from, to})
			}
		}
	}
	return found
}

// The history of ownership is that of a lock. A hold is two operations whose exact
// instants nobody knows: the director acquired some time after it was last seen
// before and not later than its first answer, and released some time after its
// last answer. A page fetched by TCP is a read: whoever served it owned at some
// instant between the connection's first packet and the page's last.
type lockInput struct {
	kind  lockKind
	owner string
}

type lockKind uint8

const (
	_ lockKind = iota
	acquire
	releaseLock
	servedBy
)

func (k lockKind) String() string {
	return [...]string{"invalid", "acquire", "release", "served by"}[k]
}

var lockModel = porcupine.Model{
	Init: func() any { return "" }, // nobody owns
	Step: func(state, input, _ any) (bool, any) {
		owner, in := state.(string), input.(lockInput)
		switch in.kind {
		case acquire:
			return owner == "", in.owner
		case releaseLock:
			return owner == in.owner, ""
		default:
			return owner == in.owner, owner
		}
	},
	DescribeOperation: func(input, _ any) string {
		in := input.(lockInput)
		return fmt.Sprintf("%v %s", in.kind, in.owner)
	},
}

// lockHistory makes operations of what was seen after an instant.
func lockHistory(from probe.Instant, seen []hold, pages []probe.Sample) []porcupine.Operation {
	var history []porcupine.Operation
	clients := map[string]int{}
	client := func(name string) int {
		if _, known := clients[name]; !known {
			clients[name] = len(clients)
		}
		return clients[name]
	}
	add := func(who string, in lockInput, call, ret probe.Instant) {
		history = append(history, porcupine.Operation{ClientId: client(who), Input: in, Call: int64(call), Return: int64(ret)})
	}
	last := map[string]probe.Instant{}
	for i, h := range seen {
		since, known := last[h.owner]
		if !known {
			since = from - 1
		}
		until := probe.Instant(math.MaxInt64)
		for _, next := range seen[i+1:] {
			if next.owner == h.owner {
				until = next.from
				break
			}
		}
		add(h.owner, lockInput{acquire, h.owner}, since, h.from)
		add(h.owner, lockInput{releaseLock, h.owner}, h.to, until)
		last[h.owner] = h.to
	}
	for _, p := range pages {
		if p.OK() && p.Sent >= from {
			add("pages", lockInput{servedBy, p.Who}, p.Sent, p.Received)
		}
	}
	return history
}

// operations counts the times of an owner and the pages in a history of ownership.
func operations(history []porcupine.Operation) (acquired, read int) {
	for _, o := range history {
		switch o.Input.(lockInput).kind {
		case acquire:
			acquired++
		case servedBy:
			read++
		}
	}
	return acquired, read
}

// checkTime bounds the search for a linearisation. A history that is one is found at once.
const checkTime = 20 * time.Second

// checkHistory says why a history is none that the model allows; nil: it is one.
func checkHistory(what string, model porcupine.Model, history []porcupine.Operation) error {
	switch porcupine.CheckOperationsTimeout(model, history, checkTime) {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return fmt.Errorf("the history of %s (%d operations) was not understood within %v", what, len(history), checkTime)
	}
	return fmt.Errorf("the history of %s (%d operations) is none that one register could have had", what, len(history))
}
