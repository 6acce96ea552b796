package guard

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// resyncInterval is how often everything is looked at though the kernel told
	// nothing: for what it does not tell (tcx) and for messages that were lost.
	resyncInterval = 10 * time.Second
	// retryInterval is how soon after a failure.
	retryInterval = time.Second
	// eventBuffer is the socket's buffer in bytes; somebody may load ten thousand filters at once.
	eventBuffer = 4 << 20
)

// Run keeps the filters on every interface until ctx ends: new interfaces get
// them, removed ones are put back at once. It is called once.
func (g *Guard) Run(ctx context.Context) {
	for ctx.Err() == nil {
		w, err := g.watch()
		if err != nil {
			g.cfg.Logger.Warn("guard: cannot hear the kernel's events; looking again and again instead", "err", err)
			g.resync()
			select {
			case <-ctx.Done():
			case <-time.After(retryInterval):
			}
			continue
		}
		// What happened before the subscription is found by a full look after it.
		g.follow(ctx, w)
		w.close()
	}
}

// follow works on events until the subscription breaks or ctx ends.
func (g *Guard) follow(ctx context.Context, w *watcher) {
	next := time.NewTimer(g.resync())
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
			indexes, err := w.take()
			if err != nil {
				g.cfg.Logger.Info("guard: lost the kernel's events, looking at everything", "err", err)
				return
			}
			if !g.resyncSome(indexes) {
				next.Reset(retryInterval)
			}
		case <-next.C:
			next.Reset(g.resync())
		}
	}
}

// resync looks at every interface and returns when to do it again.
func (g *Guard) resync() time.Duration {
	alarms, err := g.locked(g.ensureAll)
	g.say(alarms)
	if err != nil {
		g.cfg.Logger.Error("guard: not on every interface", "err", err)
		return retryInterval
	}
	return resyncInterval
}

// resyncSome looks at some interfaces and tells whether all is well.
func (g *Guard) resyncSome(indexes []int) bool {
	well := true
	for _, i := range indexes {
		alarms, err := g.locked(func() ([]string, error) { return g.ensureOne(i) })
		g.say(alarms)
		if err != nil {
			g.cfg.Logger.Error("guard: not on an interface", "err", err)
			well = false
		}
	}
	return well
}

func (g *Guard) locked(f func() ([]string, error)) ([]string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, nil
	}
	return f()
}

// watcher collects which interfaces the kernel spoke of.
type watcher struct {
	socket *nl.NetlinkSocket
	wake   chan struct{} // holds one: there is something to take
	done   chan struct{} // closed when the reader has ended

	mu      sync.Mutex // guards the fields below
	indexes []int
	has     map[int]bool
	err     error
}

func (g *Guard) watch() (*watcher, error) {
	s, err := nl.SubscribeAt(g.tc.ns, g.tc.ns, unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_TC)
	if err != nil {
		return nil, fmt.Errorf("subscribing to RTNLGRP_LINK and RTNLGRP_TC: %w", err)
	}
	if s.SetReceiveBufferSize(eventBuffer, true) != nil {
		// Not root in the first user namespace: the ordinary buffer serves, lost messages are noticed.
		_ = s.SetReceiveBufferSize(eventBuffer, false)
	}
	w := &watcher{socket: s, wake: make(chan struct{}, 1), done: make(chan struct{}), has: map[int]bool{}}
	go w.read()
	return w, nil
}

func (w *watcher) close() {
	w.socket.Close()
	<-w.done
}

func (w *watcher) read() {
	defer close(w.done)
	for {
		msgs, from, err := w.socket.Receive()
		if errors.Is(err, unix.EINTR) {
			continue
		}
		w.mu.Lock()
		switch {
		case err != nil:
			w.err = err
		case from.Pid == nl.PidKernel:
			for _, m := range msgs {
				if i, ok := ifindexOf(m); ok && !w.has[i] {
					w.has[i] = true
					w.indexes = append(w.indexes, i)
				}
			}
		}
		w.mu.Unlock()
		select {
		case w.wake <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// take returns what was collected since the last time.
func (w *watcher) take() ([]int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.indexes
	w.indexes = nil
	clear(w.has)
	return out, w.err
}

// ifindexOf returns the interface a message is about. In ifinfomsg and in
// tcmsg it is the second word.
func ifindexOf(m syscall.NetlinkMessage) (int, bool) {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK,
		unix.RTM_NEWQDISC, unix.RTM_DELQDISC,
		unix.RTM_NEWTFILTER, unix.RTM_DELTFILTER,
		unix.RTM_NEWCHAIN, unix.RTM_DELCHAIN:
	default:
		return 0, false
	}
	if len(m.Data) < 8 {
		return 0, false
	}
	i := int(int32(binary.NativeEndian.Uint32(m.Data[4:])))
	return i, i > 0
}
