package vrrp

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// AnnouncerHost is what an Announcer needs of the machine.
type AnnouncerHost interface {
	Open(i *conf.VRRPInstance, receive func(Packet)) (Endpoint, error)
	Now() time.Time
}

// AnnouncerConfig is what an Announcer needs.
type AnnouncerConfig struct {
	Host      AnnouncerHost
	Announcer *conf.Announcer
	Logger    *slog.Logger
	// Conflict is told when a foreign master outbids this one while it announces,
	// and when it is over. One call at a time; it must not wait, and not call the Announcer. Nil: nobody.
	Conflict func(f Foreign, over bool)
	// Live says whether this node may act as owner now. While it may not, nobody
	// hears it (the guard), and who is master is the next owner. Nil: always.
	Live func() bool
}

// Announcer tells by VRRP who has the addresses of a group. It has no state
// machine: the cluster decides, and the Announcer is the part of a master that
// speaks (RFC 3768, 6.4.3; RFC 9568, 6.4.3).
type Announcer struct {
	cfg AnnouncerConfig
	run sync.WaitGroup

	life    sync.Mutex    // held by Listen, Start, Stop and Close; guards what follows
	listens bool          // Listen was called
	stop    chan struct{} // ends beat; nil: stopped

	mu       sync.Mutex // guards the rest
	endpoint Endpoint   // nil: closed
	speaks   bool
	silent   bool // it speaks no more, since it has yielded
	sender   sender
	judge    *judge
	rival    rival
	yielded  netip.Addr // to whom, until it is started again
	sent     time.Time
	still    time.Time // until then no regular advertisement goes out
	counters counters
}

// NewAnnouncer returns one that is silent.
func NewAnnouncer(cfg AnnouncerConfig) *Announcer {
	if cfg.Conflict == nil {
		cfg.Conflict = func(Foreign, bool) {}
	}
	if cfg.Live == nil {
		cfg.Live = func() bool { return true }
	}
	i := &cfg.Announcer.Instance
	return &Announcer{cfg: cfg, sender: newSender(i), judge: newJudge(i)}
}

var errNoAddress = errors.New("its interface has no address to send from")

// Listen makes it hear foreign masters while it does not announce, until Close.
// It sends nothing.
func (a *Announcer) Listen() error {
	a.life.Lock()
	defer a.life.Unlock()
	if err := a.open(); err != nil {
		return err
	}
	a.listens = true
	return nil
}

// open opens the endpoint. life is held.
func (a *Announcer) open() error {
	if a.endpoint != nil { // written with life held
		return nil
	}
	e, err := a.cfg.Host.Open(&a.cfg.Announcer.Instance, a.receive)
	if err != nil {
		return a.errorf(err)
	}
	a.mu.Lock()
	a.endpoint = e
	a.mu.Unlock()
	return nil
}

// close closes it, unless it is to go on listening. life is held.
func (a *Announcer) close() error {
	if a.listens || a.endpoint == nil {
		return nil
	}
	a.mu.Lock()
	e := a.endpoint
	a.endpoint = nil
	a.mu.Unlock()
	return e.Close() // waits for receive
}

func (a *Announcer) errorf(err error) error {
	return fmt.Errorf("vrrp %d on %s: %w", a.cfg.Announcer.Instance.VRID, a.cfg.Announcer.Instance.Interface, err)
}

// Start begins to announce: the first advertisement goes out at once. Started
// again it does nothing.
func (a *Announcer) Start() error {
	a.life.Lock()
	defer a.life.Unlock()
	if a.stop != nil {
		return nil
	}
	if err := a.open(); err != nil {
		return err
	}
	if err := a.Able(); err != nil {
		return errors.Join(err, a.close())
	}
	stop := make(chan struct{})
	a.stop = stop
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rival, a.yielded, a.speaks, a.silent = rival{}, netip.Addr{}, true, false
	a.send(a.cfg.Announcer.Instance.Priority)
	a.run.Go(func() { a.beat(stop) })
	return nil
}

// Able says why it could not announce now. Before Listen and Start nothing is known.
func (a *Announcer) Able() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.endpoint != nil && !a.endpoint.Local().IsValid() {
		return a.errorf(errNoAddress)
	}
	return nil
}

// Opened sends an advertisement beside the regular ones: the first may have gone
// out before the guard let it through.
func (a *Announcer) Opened() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.send(a.cfg.Announcer.Instance.Priority)
}

const (
	// replaceTime is for what is left to do before the process is another one.
	replaceTime = 2 * time.Second
	// longestInterval of version 3 is 12 bits of centiseconds (RFC 9568, 5.2.7).
	longestInterval = 4095 * 10 * time.Millisecond
)

// Replacing says before a restart of the daemon that the master is there: a
// backup counts from now. With version 3 it learns to wait for absence, until the
// next daemon announces the usual interval; version 2 has no word for that.
func (a *Announcer) Replacing(absence time.Duration) {
	i := a.cfg.Announcer.Instance
	a.mu.Lock()
	defer a.mu.Unlock()
	if i.Version == 3 {
		i.Interval = max(i.Interval, min(absence/time.Duration(i.DownAdverts), longestInterval).Truncate(10*time.Millisecond))
		usual := a.sender
		defer func() { a.sender = usual }()
		a.sender = newSender(&i)
	}
	a.send(i.Priority)
	if i.Version == 3 {
		a.still = a.sent.Add(replaceTime) // a regular one would take it back
	}
}

// Stop ends it with an advertisement of priority 0, so that nobody has to wait
// for the next owner's first one to be missing. Stopped again it does nothing.
func (a *Announcer) Stop() error {
	a.life.Lock()
	defer a.life.Unlock()
	a.end(true)
	return a.close()
}

// Close ends everything without a word: who leaves has said so by Stop.
func (a *Announcer) Close() error {
	a.life.Lock()
	defer a.life.Unlock()
	a.listens = false
	a.end(false)
	return a.close()
}

// end ends the advertisements. life is held.
func (a *Announcer) end(word bool) {
	if a.stop == nil {
		return
	}
	a.mu.Lock()
	if word {
		a.send(0)
	}
	if a.silent {
		a.yielded = a.rival.From
	}
	a.speaks, a.silent = false, false
	a.mu.Unlock()
	close(a.stop)
	a.stop = nil
	a.run.Wait()
}

// Conflict returns the foreign master that outbids this one, if there is one.
// Who has yielded has yielded: then there is one until Stop.
func (a *Announcer) Conflict() (Foreign, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rival.Foreign, a.silent || a.rival.again && !a.rival.gone(a.cfg.Host.Now())
}

// Heard returns when a foreign master was heard last; zero: never.
func (a *Announcer) Heard() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rival.heard
}

// AnnouncerStatus is what an Announcer knows.
type AnnouncerStatus struct {
	Announces    bool       `json:"announces"`
	Source       netip.Addr `json:"source,omitzero"` // that it sends from
	Sent         uint64     `json:"sent"`
	SentZero     uint64     `json:"sent_zero"` // of Sent, of priority 0: the group left
	SendErrors   uint64     `json:"send_errors,omitempty"`
	SendError    string     `json:"send_error,omitempty"` // the latest
	Received     uint64     `json:"received"`             // that were taken
	ReceivedZero uint64     `json:"received_zero"`        // of Received, of priority 0: another master left
	Notes        []Note     `json:"notes,omitempty"`
	Foreign      *Foreign   `json:"foreign,omitempty"` // that outbids it now
}

// Status returns what is known now.
func (a *Announcer) Status() AnnouncerStatus {
	foreign, conflict := a.Conflict()
	a.mu.Lock()
	defer a.mu.Unlock()
	c := &a.counters
	s := AnnouncerStatus{Announces: a.speaks && !a.silent, Notes: c.remarks(),
		Sent: c.sent, SentZero: c.sentZero, SendErrors: c.sendErrors, SendError: c.sendError, Received: c.received, ReceivedZero: c.receivedZero}
	if a.endpoint != nil {
		s.Source = a.endpoint.Local()
	}
	if conflict {
		s.Foreign = &foreign
	}
	return s
}

// beat sends at the interval until stop is closed.
func (a *Announcer) beat(stop chan struct{}) {
	interval := a.cfg.Announcer.Instance.Interval
	due := a.cfg.Host.Now().Add(interval)
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for {
		select {
		case <-stop:
			return
		case <-timer.C:
		}
		a.mu.Lock()
		now := a.cfg.Host.Now()
		if !now.Before(a.still) {
			a.send(a.cfg.Announcer.Instance.Priority)
		}
		a.forget(now)
		a.mu.Unlock()
		if due = due.Add(interval); due.Before(now) {
			due = now.Add(interval)
		}
		timer.Reset(due.Sub(now))
	}
}

// send sends an advertisement, unless it is stopped or has yielded. mu is held.
func (a *Announcer) send(priority uint8) {
	if a.endpoint == nil || !a.speaks || a.silent {
		return
	}
	a.sent = a.cfg.Host.Now()
	from := a.endpoint.Local()
	err := errNoAddress
	if from.IsValid() {
		err = a.sender.send(a.endpoint, from, priority)
	}
	a.counters.attempt(a.cfg.Logger, priority, err)
}

func (a *Announcer) receive(p Packet) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.endpoint == nil {
		return
	}
	now, local := a.cfg.Host.Now(), a.endpoint.Local()
	adv, taken := a.counters.take(a.judge, p, local, a.cfg.Logger, now)
	own := &a.cfg.Announcer.Instance
	switch {
	case !taken || a.speaks && !a.cfg.Live():
	case a.outbids(adv, local):
		a.outbid(adv, now)
	case !a.speaks || a.silent:
	default:
		if adv.Priority > 0 {
			a.counters.note(a.cfg.Logger, ReasonRival, p.From, now)
		}
		// RFC 9568, 6.4.3: one that leaves, and one of lower priority, are answered at once.
		if now.Sub(a.sent) >= assertGap && (adv.Priority == 0 || own.LowerAdvert) {
			a.send(own.Priority)
		}
	}
}

// outbids says whether a master of the RFCs yields to an advertisement. One of
// the same priority is that of this group's owner, where this node is not it.
func (a *Announcer) outbids(adv Advert, local netip.Addr) bool {
	own := a.cfg.Announcer.Instance.Priority
	switch {
	case adv.Priority != own:
		return adv.Priority > own
	case a.speaks:
		return local.Unmap().WithZone("").Less(adv.From)
	}
	return adv.From == a.yielded
}

func (a *Announcer) outbid(adv Advert, now time.Time) {
	if !a.rival.hear(adv, &a.cfg.Announcer.Instance, now) {
		return
	}
	if !a.speaks {
		a.cfg.Logger.Warn("a foreign router is master, and has the better priority", "foreign", a.rival.Foreign)
		return
	}
	what := "it goes on announcing: there are two masters"
	if a.cfg.Announcer.OnConflict == conf.ConflictYield {
		a.silent = true
		what = "it is silent from now on"
	}
	a.cfg.Logger.Error("ALARM: a foreign router is master too, and has the better priority; "+what, "foreign", a.rival.Foreign)
	a.cfg.Conflict(a.rival.Foreign, false)
}

// forget ends a conflict whose other side is gone. mu is held.
func (a *Announcer) forget(now time.Time) {
	if a.silent || !a.rival.again || !a.rival.gone(now) {
		return
	}
	was := a.rival.Foreign
	a.rival = rival{}
	a.cfg.Logger.Info("the foreign router is master no more", "foreign", was)
	a.cfg.Conflict(was, true)
}
