package notify

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

const (
	// collect is how long lines are gathered before a mail is sent: a rack that
	// loses power is one mail, not a thousand.
	collect = time.Second
	// mailTime is how long the delivery of a mail may take as a whole.
	mailTime = 30 * time.Second
	// mailLines is how many lines a mail has at most; of the others their number is told.
	mailLines = 1000
	// mailBoxes is how many sets of recipients may wait: no pool has as many.
	mailBoxes = 1000
)

// mailPauses are between the tries of a mail that is not taken. After the last
// it is given up; what has happened meanwhile goes with the next.
var mailPauses = []time.Duration{10 * time.Second, time.Minute, 5 * time.Minute}

// MailConfig is what a Mailer needs.
type MailConfig struct {
	Node   string // in subjects, and behind root@ where no sender is named
	Logger *slog.Logger
	// Send delivers a mail. nil: by the SMTP server that the conf.Email names,
	// or by the local sendmail. For tests.
	Send func(ctx context.Context, to conf.Email, mail Mail) error
}

// Mailer collects lines into mails and sends them.
type Mailer struct {
	cfg  MailConfig
	wake chan struct{} // capacity 1

	mu    sync.Mutex // guards boxes and order
	boxes map[conf.Email]*box
	order []conf.Email // of boxes, oldest first
}

// box is what waits to be sent to the same people in the same way.
type box struct {
	lines []string
	more  int       // lines beyond mailLines
	due   time.Time // when it is tried
	tries int
}

// NewMailer returns a Mailer; Run makes it work.
func NewMailer(cfg MailConfig) *Mailer {
	if cfg.Send == nil {
		cfg.Send = deliver
	}
	return &Mailer{cfg: cfg, wake: make(chan struct{}, 1), boxes: map[conf.Email]*box{}}
}

// Add has a line mailed, together with what else there is to tell the same
// people within a second. It does not wait.
func (m *Mailer) Add(to conf.Email, line string) {
	to.Every, to.Status = 0, "" // they do not say to whom
	m.mu.Lock()
	b := m.boxes[to]
	if b == nil {
		if len(m.order) == mailBoxes {
			m.mu.Unlock()
			m.cfg.Logger.Error("an alert is not mailed: too many mails wait", "to", to.To, "alert", line)
			return
		}
		b = &box{due: time.Now().Add(collect)}
		m.boxes[to] = b
		m.order = append(m.order, to)
	}
	if len(b.lines) < mailLines {
		b.lines = append(b.lines, bounded(line, maxLine))
	} else {
		b.more++
	}
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Run sends what is added until ctx ends, and then tries once what still waits.
func (m *Mailer) Run(ctx context.Context) {
	t := time.NewTimer(time.Hour)
	defer t.Stop()
	for ctx.Err() == nil {
		to, wait, found := m.first()
		if found && wait <= 0 {
			m.send(ctx, to)
			continue
		}
		if !found {
			wait = time.Hour
		}
		t.Reset(wait)
		select {
		case <-ctx.Done():
		case <-m.wake:
		case <-t.C:
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), hooksEnd)
	defer cancel()
	for {
		to, _, found := m.first()
		if !found || last.Err() != nil {
			return
		}
		m.try(last, to)
	}
}

// first is who is next, and how long it is until then.
func (m *Mailer) first() (to conf.Email, wait time.Duration, found bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.order {
		if w := time.Until(m.boxes[e].due); !found || w < wait {
			to, wait, found = e, w, true
		}
	}
	return to, wait, found
}

// send tries a mail, and keeps it for later when it is not taken.
func (m *Mailer) send(ctx context.Context, to conf.Email) {
	b, err := m.try(ctx, to)
	if err == nil {
		return
	}
	if b.tries == len(mailPauses) || final(err) {
		m.cfg.Logger.Error("a mail is given up", "to", to.To, "lines", len(b.lines)+b.more, "err", err)
		return
	}
	m.cfg.Logger.Warn("a mail is not taken yet; it is tried again", "to", to.To, "in", mailPauses[b.tries], "err", err)
	b.due = time.Now().Add(mailPauses[b.tries])
	b.tries++
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.boxes[to]; n != nil { // what has come meanwhile goes along
		room := min(mailLines-len(b.lines), len(n.lines))
		b.lines = append(b.lines, n.lines[:room]...)
		b.more += n.more + len(n.lines) - room
	} else {
		m.order = append(m.order, to)
	}
	m.boxes[to] = b
}

// try takes a mail out of what waits and delivers it.
func (m *Mailer) try(ctx context.Context, to conf.Email) (*box, error) {
	m.mu.Lock()
	b := m.boxes[to]
	delete(m.boxes, to)
	for i, e := range m.order {
		if e == to {
			m.order = append(m.order[:i:i], m.order[i+1:]...)
			break
		}
	}
	m.mu.Unlock()
	mail, err := compose(to, m.cfg.Node, b.lines, b.more, time.Now())
	if err != nil {
		return b, err
	}
	ctx, cancel := context.WithTimeout(ctx, mailTime)
	defer cancel()
	return b, m.cfg.Send(ctx, to, mail)
}
