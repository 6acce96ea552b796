package probe

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// Respond answers probes on every address of this host, now and later, from the
// address that was asked, until ctx ends. who is the name it answers with.
func Respond(ctx context.Context, who string) error {
	if who == "" || len(who) > MaxName {
		return fmt.Errorf("responder: the name %.80q needs 1 to %d bytes", who, MaxName)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, 2)
	go func() { errs <- respond4(ctx, who); cancel() }()
	go func() { errs <- respond6(ctx, who); cancel() }()
	return errors.Join(<-errs, <-errs)
}

// The two families have their own sockets because the source address of an
// answer travels in another control message in each.
func respond4(ctx context.Context, who string) error {
	c, err := net.ListenPacket("udp4", fmt.Sprintf("0.0.0.0:%d", Port))
	if err != nil {
		return fmt.Errorf("responder: %w", err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	p := ipv4.NewPacketConn(c)
	if err := p.SetControlMessage(ipv4.FlagDst, true); err != nil {
		return fmt.Errorf("responder: %w", err)
	}
	in, out := make([]byte, 256), make([]byte, 0, 256)
	for {
		n, cm, from, err := p.ReadFrom(in)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("responder: %w", err)
		}
		r, err := ParseRequest(in[:n])
		if err != nil || cm == nil {
			continue
		}
		// An answer that cannot be sent is an answer the client misses; nothing else would be true.
		_, _ = p.WriteTo(Answer{r, Now(), who}.AppendTo(out), &ipv4.ControlMessage{Src: cm.Dst}, from)
	}
}

func respond6(ctx context.Context, who string) error {
	c, err := net.ListenPacket("udp6", fmt.Sprintf("[::]:%d", Port))
	if err != nil {
		return fmt.Errorf("responder: %w", err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	p := ipv6.NewPacketConn(c)
	if err := p.SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true); err != nil {
		return fmt.Errorf("responder: %w", err)
	}
	in, out := make([]byte, 256), make([]byte, 0, 256)
	for {
		n, cm, from, err := p.ReadFrom(in)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("responder: %w", err)
		}
		r, err := ParseRequest(in[:n])
		if err != nil || cm == nil {
			continue
		}
		_, _ = p.WriteTo(Answer{r, Now(), who}.AppendTo(out), &ipv6.ControlMessage{Src: cm.Dst}, from)
	}
}
