package link

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// counter is a kind of thing that is counted per link.
type counter int

const (
	cSent counter = iota
	cReceived
	cSendErrors
	cDropped
	cAuth
	cReplay
	cDuplicate
	cForeign
	cMalformed
	cOldBoot
	cUnbelieved
	cUnknownNode
	cOwnName
	cNotOurs
	counterKinds
)

// complaint is what is logged when a counter grows; empty: nothing is.
var complaint = [counterKinds]string{
	cSendErrors:  "sending failed",
	cAuth:        "authentication failed: another key, or not from this cluster",
	cReplay:      "replayed datagram refused",
	cForeign:     "datagram of another cluster ignored",
	cMalformed:   "malformed datagram ignored",
	cOldBoot:     "datagram of a former boot refused: a replay, or two machines with one name",
	cUnknownNode: "datagram of a node that is not configured ignored",
	cOwnName:     "datagram in our own name refused: another machine with this name, or a replay",
}

// complaint is the text for a link.
func (l *meshLink) complaint(k counter) string {
	if l.serial && k == cMalformed {
		return "noise: damaged frames ignored; look at the cable, and at the rate of both ends"
	}
	return complaint[k]
}

// sender is who sent a datagram, as it claims.
func (l *meshLink) sender(from netip.AddrPort) string {
	if l.serial {
		return "the line"
	}
	return from.String()
}

// Stats are counters since the mesh was made.
type Stats struct {
	Links []LinkStats // in the order of the configuration
	// LogLost counts lines that were not logged because the log was too slow.
	LogLost uint64
}

// LinkStats counts the datagrams of one link.
type LinkStats struct {
	Link        string `json:"link"`
	Sent        uint64 `json:"sent"`
	Received    uint64 `json:"received"`     // authenticated, for us, not seen before
	SendErrors  uint64 `json:"send_errors"`  // refused by the kernel
	Dropped     uint64 `json:"dropped"`      // the send buffer was full
	AuthFailed  uint64 `json:"auth_failed"`  // wrong or unknown key, or corrupted
	Replayed    uint64 `json:"replayed"`     // seen before on this link, or too old
	Duplicates  uint64 `json:"duplicates"`   // seen before on another link: normal
	Foreign     uint64 `json:"foreign"`      // another cluster's
	Malformed   uint64 `json:"malformed"`    // not a datagram of ours
	OldBoot     uint64 `json:"old_boot"`     // of a boot that has been replaced
	Unbelieved  uint64 `json:"unbelieved"`   // of a boot that has not proved itself yet
	UnknownNode uint64 `json:"unknown_node"` // source is not configured
	OwnName     uint64 `json:"own_name"`     // names this node as source and is not ours
	NotOurs     uint64 `json:"not_ours"`     // for another node on the same medium: normal
}

// Stats returns the counters.
func (m *Mesh) Stats() Stats {
	s := Stats{LogLost: m.linesLost.Load()}
	for _, l := range m.links {
		c := func(k counter) uint64 { return l.counters[k].Load() }
		s.Links = append(s.Links, LinkStats{
			Link: l.name, Sent: c(cSent), Received: c(cReceived), SendErrors: c(cSendErrors), Dropped: c(cDropped),
			AuthFailed: c(cAuth), Replayed: c(cReplay), Duplicates: c(cDuplicate), Foreign: c(cForeign),
			Malformed: c(cMalformed), OldBoot: c(cOldBoot), Unbelieved: c(cUnbelieved),
			UnknownNode: c(cUnknownNode), OwnName: c(cOwnName), NotOurs: c(cNotOurs),
		})
	}
	return s
}

// count counts something that an administrator may have to know.
func (l *meshLink) count(k counter, from netip.AddrPort) {
	l.counters[k].Add(1)
	l.alarms.note(k, from)
}

func (l *meshLink) countVerdict(v verdict, from netip.AddrPort) {
	if v == duplicate || v == tooOld && l.serial { // a line is slow enough for thousands to be quicker
		l.counters[cDuplicate].Add(1)
		return
	}
	l.count(cReplay, from)
}

// alarmEvery is the time between two lines about one kind of trouble on one
// link: the first at once, then a count.
const alarmEvery = time.Minute

// alarms collects what is to be logged of a link, so that a flood of bad
// datagrams costs a few lines and the receivers never wait for the log.
type alarms struct {
	mu    sync.Mutex // guards kinds and dirty
	dirty bool
	kinds [counterKinds]alarm
}

type alarm struct {
	since  uint64 // not reported yet
	total  uint64
	from   netip.AddrPort
	last   time.Time
	logged time.Time
}

func (a *alarms) note(k counter, from netip.AddrPort) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	al := &a.kinds[k]
	al.since++
	al.total++
	al.from, al.last = from, now
	a.dirty = true
}

// Refused is one kind of datagram that a link has refused of late.
type Refused struct {
	Link  string    `json:"link"`
	What  string    `json:"what"` // and the way out, in words
	From  string    `json:"from"` // sender of the last one, as it claims
	Count uint64    `json:"count"`
	Last  time.Time `json:"last"`
}

// How long after the last datagram Refused speaks of it, and of how many at
// least: a single stray is no trouble. A second machine of a name is worth
// knowing longer, since its effect stays when it has gone.
const (
	refusedFor      = 10 * time.Second
	refusedNameFor  = 10 * time.Minute
	refusedAtLeast  = 3
	secondOfOurName = "; another machine is called like this one: give it a name of its own, then restart keepbeat here, since the others may have believed it"
)

// Refused lists what an administrator has to know of the datagrams that came
// and were not believed: a wrong key, a second machine of the same name, a node
// that ha.yaml does not have.
func (m *Mesh) Refused() (all []Refused) {
	now := time.Now()
	for _, l := range m.links {
		for _, k := range []counter{cAuth, cReplay, cMalformed, cOldBoot, cUnknownNode, cOwnName} {
			l.alarms.mu.Lock()
			al := l.alarms.kinds[k]
			l.alarms.mu.Unlock()
			limit, what := refusedFor, l.complaint(k)
			if k == cOwnName {
				limit, what = refusedNameFor, "datagram in our own name refused"+secondOfOurName
			}
			if al.total >= refusedAtLeast && now.Sub(al.last) < limit {
				all = append(all, Refused{l.name, what, l.sender(al.from), al.total, al.last})
			}
		}
	}
	return all
}

// due returns the alarms that may be logged now and forgets them.
func (a *alarms) due(now time.Time) (lines []dueAlarm) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.dirty {
		return nil
	}
	a.dirty = false
	for k := range a.kinds {
		al := &a.kinds[k]
		switch {
		case al.since == 0:
		case !al.logged.IsZero() && now.Sub(al.logged) < alarmEvery:
			a.dirty = true
		default:
			lines = append(lines, dueAlarm{counter(k), al.since, al.from})
			al.since, al.logged = 0, now
		}
	}
	return lines
}

type dueAlarm struct {
	kind  counter
	count uint64
	from  netip.AddrPort
}

// report logs the troubles of all links.
func (m *Mesh) report(now time.Time) {
	for _, l := range m.links {
		for _, a := range l.alarms.due(now) {
			args := []any{"count", a.count}
			if a.kind == cSendErrors {
				if err := l.lastErr.Load(); err != nil {
					args = append(args, "error", (*err).Error())
				}
			} else {
				args = append(args, "from", l.sender(a.from))
			}
			level := slog.LevelWarn
			if a.kind == cForeign {
				level = slog.LevelInfo // two clusters may share a wire
			}
			m.say(level, fmt.Sprintf("link %s: %s", l.name, l.complaint(a.kind)), args...)
		}
	}
}

// line is one line for the log.
type line struct {
	level slog.Level
	text  string
	args  []any
}

// say hands a line to the logging goroutine and never waits: hellos do not stop
// because a journal does.
func (m *Mesh) say(level slog.Level, text string, args ...any) {
	select {
	case m.lines <- line{level, text, args}:
	default:
		m.linesLost.Add(1)
	}
}

func (m *Mesh) writeLines(stop <-chan struct{}) {
	write := func(l line) { m.logger.Log(context.Background(), l.level, l.text, l.args...) }
	for {
		select {
		case l := <-m.lines:
			write(l)
			continue
		case <-stop:
		}
		for { // what is still there
			select {
			case l := <-m.lines:
				write(l)
			default:
				return
			}
		}
	}
}
