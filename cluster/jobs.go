package cluster

import (
	"context"
	"sync"
	"time"
)

// jobs runs proposals that the loops find missing: each of a key once at a
// time, so that a loop may ask as often as it looks.
type jobs struct {
	ctx  context.Context
	end  context.CancelFunc
	wg   sync.WaitGroup
	mu   sync.Mutex // guards busy and over
	busy map[string]bool
	over bool
}

// jobTimeout bounds one try; the loop that asked asks again.
const jobTimeout = 5 * time.Second

// jobPause keeps a refused proposal from being repeated in a tight loop.
const jobPause = 20 * time.Millisecond

func (j *jobs) init() {
	j.ctx, j.end = context.WithCancel(context.Background())
	j.busy = map[string]bool{}
}

// start runs f unless one of that key is running; then says that it has ended, for a loop to look again.
func (j *jobs) start(key string, then func(), f func(ctx context.Context) error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.busy[key] || j.over {
		return
	}
	j.busy[key] = true
	j.wg.Go(func() {
		ctx, cancel := context.WithTimeout(j.ctx, jobTimeout)
		err := f(ctx)
		cancel()
		if err != nil {
			select {
			case <-time.After(jobPause):
			case <-j.ctx.Done():
			}
		}
		j.mu.Lock()
		delete(j.busy, key)
		j.mu.Unlock()
		then()
	})
}

// begin runs f, which bounds itself, unless one of that key is running.
func (j *jobs) begin(key string, f func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.busy[key] || j.over {
		return
	}
	j.busy[key] = true
	j.wg.Go(func() {
		f()
		j.mu.Lock()
		delete(j.busy, key)
		j.mu.Unlock()
	})
}

// run runs f, which ends with the node.
func (j *jobs) run(f func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.over {
		j.wg.Go(f)
	}
}

// wait ends every job and waits for it.
func (j *jobs) wait() {
	j.mu.Lock()
	j.over = true
	j.mu.Unlock()
	j.end()
	j.wg.Wait()
}
