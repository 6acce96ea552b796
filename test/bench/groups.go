package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
)

// groupCount is how many groups the node that dies owns.
const groupCount = 100

func groupAddress(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{192, 168, 56, byte(100 + i)})
}

// manyGroups is haresources.yaml with one address a group.
func manyGroups() string {
	var b strings.Builder
	for i := range groupCount {
		fmt.Fprintf(&b, "  web%02d:\n    prefer: [director1, director2]\n    resources:\n      - vip: %s/24/eth0\n", i, groupAddress(i))
	}
	return b.String()
}

// askAll asks all addresses from the client's host every interval, and returns
// the instant at which the last of them had answered as who, each to a request
// sent after since.
func askAll(ctx context.Context, from *lab.Host, who string, interval time.Duration, since func() probe.Instant) (probe.Instant, error) {
	var conn *net.UDPConn
	err := from.Do(func() (err error) {
		conn, err = net.ListenUDP("udp4", nil)
		return err
	})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	var sender sync.WaitGroup
	defer sender.Wait()
	defer cancel()
	sender.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			for i := range groupCount {
				b := probe.Request{Sequence: uint64(i), Sent: probe.Now()}.AppendTo(nil)
				// Where nobody answers ARP the kernel may refuse: that is silence.
				_, _ = conn.WriteToUDPAddrPort(b, netip.AddrPortFrom(groupAddress(i), probe.Port))
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	answered := map[uint64]bool{}
	buffer := make([]byte, 256)
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Now()) })
	defer stop()
	for len(answered) < groupCount {
		n, _, err := conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return 0, fmt.Errorf("%d of %d addresses were answered by %s: %w", len(answered), groupCount, who, context.Cause(ctx))
			}
			continue // an ICMP error for an earlier request
		}
		a, err := probe.ParseAnswer(buffer[:n])
		if s := since(); err == nil && s != 0 && a.Who == who && a.Sent >= s {
			answered[a.Sequence] = true
		}
	}
	return probe.Now(), nil
}

func (b *bench) manyGroups(r *Result) time.Duration {
	owner, _, _ := b.settle()
	b.anyMoment()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var mu sync.Mutex // guards died
	var died probe.Instant
	since := func() probe.Instant { mu.Lock(); defer mu.Unlock(); return died }
	var all probe.Instant
	var err error
	var asking sync.WaitGroup
	other := b.Other(owner).Name
	asking.Go(func() { all, err = askAll(ctx, b.Client, other, 10*time.Millisecond, since) })
	time.Sleep(200 * time.Millisecond) // all neighbours are known, as they are to a real client
	at := owner.Die()
	mu.Lock()
	died = at
	mu.Unlock()
	asking.Wait()
	if err != nil {
		b.Lab.Eventually(0, err.Error(), func() bool { return false })
	}
	d := all.Sub(at)
	r.after = append(r.after, d)
	return d - b.lease()
}
