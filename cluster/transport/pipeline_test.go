package transport

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// fakePipeline answers when the test says so.
type fakePipeline struct {
	sent []*raft.AppendEntriesRequest
	out  chan raft.AppendFuture
}

type fakeFuture struct {
	omitted
	err error
}

func (f *fakeFuture) Error() error { return f.err }

func (p *fakePipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	p.sent = append(p.sent, args)
	return nil, nil
}
func (p *fakePipeline) Consumer() <-chan raft.AppendFuture { return p.out }
func (p *fakePipeline) Close() error                       { return nil }

func (p *fakePipeline) answer(success bool, err error) {
	args := p.sent[len(p.sent)-1]
	p.out <- &fakeFuture{omitted{args: args, resp: &raft.AppendEntriesResponse{Success: success}}, err}
}

func TestPipelineSendsOnlyNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &fakePipeline{out: make(chan raft.AppendFuture)}
		p := newPipeline(in)
		defer p.Close()
		send := func(r raft.AppendEntriesRequest) bool {
			before := len(in.sent)
			if _, err := p.AppendEntries(&r, &raft.AppendEntriesResponse{}); err != nil {
				t.Fatal(err)
			}
			return len(in.sent) > before
		}
		at := raft.AppendEntriesRequest{Term: 2, PrevLogEntry: 10, PrevLogTerm: 2, LeaderCommitIndex: 9}
		if !send(at) {
			t.Fatal("the first request was left out")
		}
		if !send(at) {
			t.Error("a repetition was left out although the first is not confirmed")
		}
		in.answer(true, nil)
		<-p.Consumer()
		in.answer(true, nil)
		<-p.Consumer()
		synctest.Wait()
		if send(at) {
			t.Error("a confirmed request was sent again")
		}
		select {
		case <-p.Consumer():
			t.Error("a request that was left out was answered: raft would take that for contact")
		default:
		}
		newer := at
		newer.LeaderCommitIndex = 10
		if !send(newer) {
			t.Error("a new commit index was left out")
		}
		in.answer(true, nil)
		<-p.Consumer()
		withEntry := newer
		withEntry.Entries = []*raft.Log{{Index: 11}}
		if !send(withEntry) {
			t.Error("an entry was left out")
		}
		if !send(newer) {
			t.Error("a request was left out while an entry is under way")
		}
		in.answer(true, nil)
		<-p.Consumer()
		in.answer(true, nil)
		<-p.Consumer()
		time.Sleep(2 * refresh)
		if !send(newer) {
			t.Error("nothing was sent for long")
		}
		in.answer(false, errors.New("reset"))
		synctest.Wait()
		select {
		case <-p.Consumer():
			t.Error("a failed request was passed on: raft would take that for contact")
		default:
		}
		if _, err := p.AppendEntries(&at, nil); err == nil {
			t.Error("a broken pipeline takes requests")
		}
	})
}
