package lease

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// troubleEvery is the time between two lines about the same trouble: what
// goes wrong here goes wrong with every message, several times a second.
const troubleEvery = 10 * time.Second

// trouble logs a repeated error now and then, with the number of times.
type trouble struct {
	mu    sync.Mutex // guards what follows
	said  time.Time
	times int
	now   error // nil: it is over
}

func (t *trouble) is(l *slog.Logger, level slog.Level, text string, err error, args ...any) {
	t.mu.Lock()
	t.now = err
	t.times++
	n, due := t.times, t.said.IsZero() || time.Since(t.said) >= troubleEvery
	if due {
		t.said, t.times = time.Now(), 0
	}
	t.mu.Unlock()
	if due {
		l.Log(context.Background(), level, text, append(args, "err", err, "times", n)...)
	}
}

func (t *trouble) over() {
	t.mu.Lock()
	t.now = nil
	t.mu.Unlock()
}

func (t *trouble) err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now
}

// Unstored returns why this voter could not store its last promise or
// revocation, and so did not give it; nil when it could.
func (k *Keeper) Unstored() error { return k.unstored.err() }
