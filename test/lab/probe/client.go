package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Ask sends a datagram to the responder at to every interval and reports each
// answer, until ctx ends. The answers of more than one responder are all reported.
func Ask(ctx context.Context, to netip.Addr, interval time.Duration, report func(Sample)) error {
	if interval <= 0 {
		return fmt.Errorf("probe: interval %v: it has to be positive", interval)
	}
	// Not connected: a refused or unreachable address is silence and not an error of the socket.
	c, err := net.ListenUDP("udp", nil)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()

	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() {
		ticks := time.NewTicker(interval)
		defer ticks.Stop()
		b := make([]byte, 0, requestSize)
		for n := uint64(1); ; n++ {
			// No route and no buffer are silence as well.
			_, _ = c.WriteToUDPAddrPort(Request{n, Now()}.AppendTo(b), netip.AddrPortFrom(to, Port))
			select {
			case <-ctx.Done():
				return
			case <-ticks.C:
			}
		}
	})

	b := make([]byte, 256)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		received := Now()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			continue // an ICMP error that the kernel hands over
		}
		a, err := ParseAnswer(b[:n])
		if err != nil || from.Addr().Unmap() != to || a.Sent > received {
			continue
		}
		report(Sample{Sent: a.Sent, At: a.At, Received: received, Who: a.Who})
	}
}

// HTTPConfig says what GetHTTP asks.
type HTTPConfig struct {
	URL string
	// Interval between the starts of two requests; they do not wait for each other.
	Interval time.Duration
	// Timeout of one request, connection and answer.
	Timeout time.Duration
	// Close: a new connection for every request. Otherwise connections are kept.
	Close bool
	// Serial: a request waits for the answer to the one before, so that a busy
	// machine is asked less.
	Serial bool
}

// GetHTTP fetches the URL every interval and reports each answer or failure
// until ctx ends; then it waits for the requests under way.
func GetHTTP(ctx context.Context, cfg HTTPConfig, report func(Sample)) error {
	if cfg.Interval <= 0 || cfg.Timeout <= 0 {
		return fmt.Errorf("http client: interval %v and timeout %v have to be positive", cfg.Interval, cfg.Timeout)
	}
	request, err := http.NewRequest(http.MethodGet, cfg.URL, nil)
	if err != nil {
		return fmt.Errorf("http client: %w", err)
	}
	transport := &http.Transport{DisableKeepAlives: cfg.Close, MaxIdleConnsPerHost: 64}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: cfg.Timeout}

	var running sync.WaitGroup
	defer running.Wait()
	// More than this many under way means that the server has stopped answering; they end by time-out.
	slots := make(chan struct{}, 1024)
	ticks := time.NewTicker(cfg.Interval)
	defer ticks.Stop()
	for n := uint64(1); ; n++ {
		s := Sample{Number: n, Sent: Now()}
		if cfg.Serial {
			report(get(client, request, s))
			select {
			case <-ctx.Done():
				return nil
			case <-ticks.C:
			}
			continue
		}
		select {
		case slots <- struct{}{}:
			running.Go(func() {
				report(get(client, request, s))
				<-slots
			})
		default:
			report(failed(s, errors.New("not sent: 1024 requests are waiting for an answer")))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
		}
	}
}

func get(client *http.Client, request *http.Request, s Sample) Sample {
	response, err := client.Do(request.Clone(context.Background()))
	if err != nil {
		return failed(s, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return failed(s, err)
	}
	if response.StatusCode != http.StatusOK {
		return failed(s, errors.New(response.Status))
	}
	s.Who, _, _ = strings.Cut(string(body), "\n")
	s.Who = strings.TrimSpace(s.Who)
	s.Received = Now()
	return s
}

func failed(s Sample, err error) Sample {
	s.Error, s.Received = err.Error(), Now()
	return s
}
