package transport

import (
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// refresh is how often a pipeline sends a request that tells nothing new, which
// still proves that the follower's raft answers.
const refresh = time.Second

var errPipelineBroken = errors.New("pipeline: an earlier request failed")

// pipeline leaves out what the follower has confirmed already. Raft sends an
// empty AppendEntries to each follower every CommitTimeout so that it learns the
// commit index; raft does not look at the future that AppendEntries returns, so
// one that is not sent needs no answer, and contact is never faked.
type pipeline struct {
	inner raft.AppendPipeline
	out   chan raft.AppendFuture
	done  chan struct{}
	once  sync.Once
	wg    sync.WaitGroup

	mu       sync.Mutex // guards the rest
	inflight int
	known    position // what the follower confirmed last
	at       time.Time
	broken   bool
}

// position is all that an AppendEntries without entries tells.
type position struct{ term, prevIndex, prevTerm, commit uint64 }

func positionOf(r *raft.AppendEntriesRequest) position {
	return position{r.Term, r.PrevLogEntry, r.PrevLogTerm, r.LeaderCommitIndex}
}

func newPipeline(inner raft.AppendPipeline) *pipeline {
	p := &pipeline{inner: inner, out: make(chan raft.AppendFuture), done: make(chan struct{})}
	p.wg.Go(p.pump)
	return p
}

// AppendEntries implements raft.AppendPipeline.
func (p *pipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	p.mu.Lock()
	if p.broken {
		p.mu.Unlock()
		return nil, errPipelineBroken
	}
	if len(args.Entries) == 0 && p.inflight == 0 && p.known == positionOf(args) && time.Since(p.at) < refresh {
		p.mu.Unlock()
		return &omitted{start: time.Now(), args: args, resp: resp}, nil
	}
	p.inflight++
	p.mu.Unlock()
	f, err := p.inner.AppendEntries(args, resp)
	if err != nil {
		p.mu.Lock()
		p.inflight--
		p.mu.Unlock()
	}
	return f, err
}

// pump passes answers on. A failed request is not passed on, since raft would
// count it as contact with the follower; the next AppendEntries fails instead
// and raft leaves the pipeline.
func (p *pipeline) pump() {
	for {
		select {
		case f := <-p.inner.Consumer():
			err := f.Error()
			p.mu.Lock()
			p.inflight--
			switch {
			case err != nil:
				p.broken = true
			case f.Response().Success && len(f.Request().Entries) == 0:
				p.known, p.at = positionOf(f.Request()), time.Now()
			}
			p.mu.Unlock()
			if err != nil {
				continue
			}
			select {
			case p.out <- f:
			case <-p.done:
				return
			}
		case <-p.done:
			return
		}
	}
}

// Consumer implements raft.AppendPipeline.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.out }

// Close implements raft.AppendPipeline.
func (p *pipeline) Close() error {
	var err error
	p.once.Do(func() {
		err = p.inner.Close()
		close(p.done)
		p.wg.Wait()
	})
	return err
}

// omitted is the future of a request that was not sent.
type omitted struct {
	start time.Time
	args  *raft.AppendEntriesRequest
	resp  *raft.AppendEntriesResponse
}

func (o *omitted) Error() error                          { return nil }
func (o *omitted) Start() time.Time                      { return o.start }
func (o *omitted) Request() *raft.AppendEntriesRequest   { return o.args }
func (o *omitted) Response() *raft.AppendEntriesResponse { return o.resp }
