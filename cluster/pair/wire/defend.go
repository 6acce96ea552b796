package wire

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/cluster/pair"
)

// defence is what answers for an address at a spot.
type defence struct {
	target
	// while says whether each of those who defend it still may.
	while  map[int]func() bool
	echoed time.Time // when a question to this machine alone was answered last
	failed bool      // it was said that no answer can be sent
}

// echoPause is between two answers to questions that came to this machine alone.
// Those are answers, as a rule, and two that defend an address would answer each
// other for ever; but some bridges make one frame for each port of a multicast.
const echoPause = 5 * time.Millisecond

// Defend implements pair.Wire.
func (w *Wire) Defend(places []pair.Place, while func() bool) (stop func(), err error) {
	targets := w.targets(places)
	var errs []error
	for _, t := range targets {
		errs = append(errs, t.err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("an address cannot be defended while it comes up: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, errors.New("closed")
	}
	for _, t := range targets {
		if t.spot.addr.Is6() {
			if err := w.groups.join(t.spot.index, group(t.spot.addr)); err != nil {
				return nil, fmt.Errorf("%v cannot be defended while it comes up: %w", t.spot.addr, err)
			}
		}
	}
	if err := w.open(); err != nil {
		return nil, err
	}
	w.defences++
	id := w.defences
	for _, t := range targets {
		d := w.defended[t.spot]
		if d == nil {
			d = &defence{target: t, while: map[int]func() bool{}}
			w.defended[t.spot] = d
		}
		d.while[id] = while
	}
	return sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, t := range targets {
			if d := w.defended[t.spot]; d != nil {
				if delete(d.while, id); len(d.while) == 0 {
					delete(w.defended, t.spot)
				}
			}
		}
		if !w.closed {
			w.restLater()
		}
	}), nil
}

// answer gives a question back to who asked, and to nobody else. The caller holds mu.
func (w *Wire) answer(d *defence, s sighting) {
	may := false
	for _, while := range d.while {
		may = may || while()
	}
	if !may || w.sock == nil {
		return
	}
	if s.sign == defended {
		if time.Since(d.echoed) < echoPause {
			return
		}
		d.echoed = time.Now()
	}
	protocol, _, b := question(d.mac, d.spot.addr)
	// Nobody can be told that it failed but people: who asked asks again.
	if err := w.sock.send(protocol, d.spot.index, s.by, b); err != nil && !d.failed {
		d.failed = true
		w.cfg.Logger.Error("pair: who asks for an address that comes up here is not answered", "address", d.spot.addr, "err", err)
	}
}
