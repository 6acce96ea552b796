// Package wire asks the network what a pair under the rule ping has to know:
// whether the tie-breaker answers, and who on the local networks has an address.
//
// Who has it is asked as a host asks before it takes an address: by ARP probes
// (RFC 5227) and the solicitations of duplicate address detection (RFC 4862,
// 5.4), which change nobody's tables. Any packet that shows the address in use
// by another machine is an answer: a reply, a gratuitous ARP, an unsolicited
// advertisement, the owner's own questions to others.
//
// Who is about to have an address and does not answer for it by itself yet
// defends it (Wire.Defend): whoever asks gets his own question back, at link
// layer to him alone. Two hosts that ask for one address at once have to give way
// both (RFC 5227, 2.1.1; RFC 4862, 5.4.3), so that is an answer; it comes from
// nobody, so it changes no table, his neither, and the guard lets it pass while
// it keeps the address closed until all of its group is there: a reply or an
// advertisement in the name of the address would be dropped then.
//
// What cannot be seen so: an owner behind a router, or one that answers only
// whom it likes (arp_ignore, a firewall); it does answer its clients then by
// other means than its own. A switch that answers in the name of a dead machine
// (ARP suppression) makes its address look taken until the switch forgets.
package wire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/checks/icmp"
	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/resources/vip"
)

const (
	// pingTries is how often the tie-breaker is asked within one call of Ping.
	pingTries = 3
	// rounds is how often each address is asked within one call of Probe, in a long
	// one more often: every longestPause.
	rounds       = 2
	longestPause = 100 * time.Millisecond
	// answerIn is how long a machine has to answer, at least: on one network it takes
	// less than 1 ms. A call goes on for so long after its context when it has to.
	answerIn = 20 * time.Millisecond
	// freshFor is how old a question may be when the call ends: who stood still
	// meanwhile knows nothing of now.
	freshFor = 250 * time.Millisecond
	// burst questions go out at once, then burstPause passes: several hundred
	// answers at the same time would overflow the queues of small machines.
	burst, burstPause = 128, time.Millisecond
	// restAfter this long without Probe nothing is listened to any more.
	restAfter = 10 * time.Second
)

// errStarved: the process did not get to run, or stood still.
var errStarved = errors.New("this process did not get to run: nobody was asked, or too long ago")

// Config is what a Wire needs.
type Config struct {
	Vips   *vip.Maker // knows the interfaces, and where a vip would be started
	Logger *slog.Logger
}

// Wire implements pair.Wire. It opens nothing until it is asked something. Its
// methods may be called from any goroutine.
type Wire struct {
	cfg    Config
	pinger *icmp.Pinger

	probing sync.Mutex // held by Probe, which does one round at a time
	readers sync.WaitGroup

	mu       sync.Mutex // guards what follows; Vips' own lock may be taken under it
	closed   bool
	sock     *socket // nil: not open
	groups   groups
	watched  map[spot]*notes
	defended map[spot]*defence
	defences int // made so far
	rest     *time.Timer
	warned   map[netip.Addr]bool // tie-breakers that are this machine's own
}

var _ pair.Wire = (*Wire)(nil)

// spot is where an address is looked for.
type spot struct {
	index int
	addr  netip.Addr
}

// notes are what was seen there since the last call of Probe ended.
type notes struct{ answered, asked bool }

// New returns a Wire.
func New(cfg Config) *Wire {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Wire{cfg: cfg, pinger: icmp.NewPinger(), watched: map[spot]*notes{}, defended: map[spot]*defence{}, warned: map[netip.Addr]bool{}}
}

// Close ends what is listening.
func (w *Wire) Close() {
	w.mu.Lock()
	w.closed = true
	if w.rest != nil {
		w.rest.Stop()
	}
	w.mu.Unlock()
	w.shut()
	w.readers.Wait()
	w.pinger.Close()
}

// Ping implements pair.Wire. An address of this very machine does not count: it
// would answer on either side of any partition.
func (w *Wire) Ping(ctx context.Context, to netip.Addr) bool {
	own := to.Unmap().IsLoopback()
	// When the kernel does not tell, the address is asked all the same.
	_ = w.cfg.Vips.Look(func(v vip.View) { own = own || v.Has(to.Unmap()) })
	if own {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.warned[to] {
			w.warned[to] = true
			w.cfg.Logger.Error("an address of ping_group is this machine's own and decides nothing; take one that both nodes have to reach, as the router's", "address", to)
		}
		return false
	}
	every := time.Second
	if d, ok := ctx.Deadline(); ok {
		every = time.Until(d) / pingTries
	}
	return w.pinger.Ping(ctx, to, every) == nil
}

// target is an address with the way to it.
type target struct {
	place pair.Place
	spot  spot
	mac   mac       // ours there
	asked time.Time // when the last question went out
	err   error
}

// Probe implements pair.Wire. Between two calls it listens on, so that what
// comes late, or unasked, is returned by the next one. It asks everybody once at
// least, however short ctx is, if that has not ended before.
func (w *Wire) Probe(ctx context.Context, places []pair.Place) (answered, asked []pair.Place, unasked map[pair.Place]error) {
	w.probing.Lock()
	defer w.probing.Unlock()
	targets := w.targets(places)
	if err := w.listen(targets); err != nil {
		for i := range targets {
			targets[i].err = errors.Join(targets[i].err, err)
		}
	}
	pause := longestPause
	if d, ok := ctx.Deadline(); ok {
		pause = min(max(time.Until(d)/rounds, time.Millisecond), pause)
	}
	var last time.Time
	for ctx.Err() == nil {
		again := time.After(pause)
		w.ask(targets)
		last = time.Now()
		select {
		case <-ctx.Done():
		case <-again:
		}
	}
	time.Sleep(answerIn - time.Since(last))
	return w.collect(targets)
}

// targets finds the interface of each place.
func (w *Wire) targets(places []pair.Place) []target {
	targets := make([]target, 0, len(places))
	err := w.cfg.Vips.Look(func(v vip.View) {
		for _, p := range places {
			port, err := v.Where(p.Addr, p.Interface)
			targets = append(targets, target{place: p, spot: spot{port.Index, p.Addr}, mac: port.MAC, err: err})
		}
	})
	if err != nil {
		targets = targets[:0]
		for _, p := range places {
			targets = append(targets, target{place: p, err: err})
		}
	}
	return targets
}

// listen opens what is needed and not open, and notes from now on what is seen
// of the targets, and of nothing else.
func (w *Wire) listen(targets []target) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return errors.New("closed")
	}
	w.restLater()
	watched := make(map[spot]*notes, len(targets))
	for i := range targets {
		t := &targets[i]
		if t.err != nil {
			continue
		}
		if t.spot.addr.Is6() {
			if t.err = w.groups.join(t.spot.index, group(t.spot.addr)); t.err != nil {
				continue
			}
		}
		if n := w.watched[t.spot]; n != nil {
			watched[t.spot] = n
		} else if watched[t.spot] == nil {
			watched[t.spot] = &notes{}
		}
	}
	w.watched = watched
	return w.open()
}

// restLater is called with mu held.
func (w *Wire) restLater() {
	if w.rest != nil {
		w.rest.Stop()
	}
	w.rest = time.AfterFunc(restAfter, w.idle)
}

// open is called with mu held.
func (w *Wire) open() error {
	if w.sock != nil {
		return nil
	}
	sock, err := openSocket()
	if err != nil {
		return err
	}
	w.sock = sock
	w.readers.Go(func() {
		sock.await(func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.sock == sock {
				sock.receive(w.take)
			}
		})
	})
	return nil
}

// ask sends one question for each target. A target of which one question could
// not be sent was not asked: whatever kept it back keeps back answers too.
func (w *Wire) ask(targets []target) {
	for i := range targets {
		if i%burst == burst-1 {
			time.Sleep(burstPause)
		}
		if t := &targets[i]; t.err == nil {
			t.err = w.question(t)
			t.asked = time.Now()
		}
	}
}

func (w *Wire) question(t *target) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return errors.New("closed")
	}
	protocol, to, b := question(t.mac, t.spot.addr)
	if err := w.sock.send(protocol, t.spot.index, to, b); err != nil {
		return fmt.Errorf("%v cannot be asked for: %w", t.spot.addr, err)
	}
	return nil
}

// collect takes what has arrived and returns what was seen.
func (w *Wire) collect(targets []target) (answered, asked []pair.Place, unasked map[pair.Place]error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	missed, now := w.drain(), time.Now()
	unasked = map[pair.Place]error{}
	for _, t := range targets {
		if t.err == nil && now.Sub(t.asked) > freshFor {
			t.err = errStarved
		}
		if err := errors.Join(t.err, missed); err != nil {
			unasked[t.place] = err
		}
		n := w.watched[t.spot]
		if n == nil {
			continue
		}
		if n.answered {
			answered = append(answered, t.place)
		}
		if n.asked {
			asked = append(asked, t.place)
		}
	}
	for _, n := range w.watched {
		*n = notes{}
	}
	return answered, asked, unasked
}

// drain takes in what waits in the socket; the error says that there was more
// than could be kept.
func (w *Wire) drain() error {
	if w.sock == nil {
		return nil // every target has its error
	}
	w.sock.receive(w.take)
	switch n, err := w.sock.lost(); {
	case err != nil:
		return fmt.Errorf("packet socket: %w", err)
	case n > 0:
		return fmt.Errorf("%d packets were lost that may have been answers", n)
	}
	return nil
}

// take notes a sighting of another machine. That with a link-layer address of
// ours is our own kernel's, by another interface on the same network; but an
// answer for an address that this machine does not have is none of ours,
// whatever it says: two routers may share a virtual link-layer address.
func (w *Wire) take(index int, s sighting) {
	at := spot{index, s.addr}
	n, ours := w.watched[at], w.defended[at]
	if n == nil && ours == nil {
		return
	}
	own, have := false, false
	// When the kernel does not tell, it is somebody else's.
	_ = w.cfg.Vips.Look(func(v vip.View) { own, have = v.Own(s.by), v.Has(s.addr) })
	if ours != nil && !own && s.sign != inUse {
		w.answer(ours, s)
	}
	switch {
	case n == nil:
	case s.sign == inUse && !(own && have), s.sign == defended && !own:
		n.answered = true
	case s.sign == askedFor && !own:
		n.asked = true
	}
}

// idle ends listening when nobody has asked, or defended, for a while.
func (w *Wire) idle() {
	if !w.probing.TryLock() {
		return
	}
	defer w.probing.Unlock()
	w.shut()
}

// shut closes the socket and forgets what was seen. What is defended keeps it open until Close.
func (w *Wire) shut() {
	w.mu.Lock()
	if len(w.defended) > 0 && !w.closed {
		w.watched = map[spot]*notes{}
		w.mu.Unlock()
		return
	}
	sock := w.sock
	w.sock, w.watched = nil, map[spot]*notes{}
	w.groups.leave()
	w.mu.Unlock()
	if sock != nil {
		_ = sock.f.Close() // waits for its reader, which may be waiting for mu
	}
}
