package probe

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// HTTPServer is a real server: `/` answers its name, `/.test.html` answers ok
// while it is well and 503 while it is sick, `/numbers` counts, a line each
// 20 ms, until the client has enough.
type HTTPServer struct {
	Name string
	// Listen has address:port, or address:first-last for many ports; an empty
	// address is every address of the host.
	Listen []string

	sick atomic.Bool
}

// SetSick makes the test page fail, or succeed again; `/` goes on answering.
func (s *HTTPServer) SetSick(sick bool) { s.sick.Store(sick) }

// Serve answers until ctx ends, then closes every connection at once. ready is
// called when every port listens.
func (s *HTTPServer) Serve(ctx context.Context, ready func()) error {
	var addresses []string
	for _, l := range s.Listen {
		expanded, err := expandPorts(l)
		if err != nil {
			return err
		}
		addresses = append(addresses, expanded...)
	}
	if len(addresses) == 0 {
		return errors.New("http server: nothing to listen on")
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/.test.html", func(w http.ResponseWriter, _ *http.Request) {
		if s.sick.Load() {
			http.Error(w, "sick", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("/numbers", count)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, s.Name) })
	server := &http.Server{
		Handler: mux,
		// Longer than a busy machine lets a client wait between its connection and its request.
		ReadHeaderTimeout: 2 * time.Minute,
		ErrorLog:          log.Default(),
	}
	defer server.Close()

	var listeners []net.Listener
	for _, a := range addresses {
		l, err := net.Listen("tcp", a)
		if err != nil {
			return fmt.Errorf("http server: %w", err)
		}
		defer l.Close()
		listeners = append(listeners, l)
	}
	errs := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { errs <- server.Serve(l) }()
	}
	if ready != nil {
		ready()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-errs:
		return fmt.Errorf("http server: %w", err)
	}
}

func count(w http.ResponseWriter, r *http.Request) {
	ticks := time.NewTicker(20 * time.Millisecond)
	defer ticks.Stop()
	out := http.NewResponseController(w)
	for n := 1; ; n++ {
		if _, err := fmt.Fprintln(w, n); err != nil || out.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-ticks.C:
		}
	}
}

// expandPorts turns 10.0.0.1:8000-8002 into three addresses.
func expandPorts(s string) ([]string, error) {
	host, ports, err := net.SplitHostPort(s)
	if err != nil {
		return nil, fmt.Errorf("http server: %q: want address:port or address:first-last: %w", s, err)
	}
	if host != "" {
		if _, err := netip.ParseAddr(host); err != nil {
			return nil, fmt.Errorf("http server: %q: %w", s, err)
		}
	}
	first, last, isRange := strings.Cut(ports, "-")
	if !isRange {
		last = first
	}
	from, err1 := strconv.ParseUint(first, 10, 16)
	to, err2 := strconv.ParseUint(last, 10, 16)
	if err := errors.Join(err1, err2); err != nil || from == 0 || from > to {
		return nil, fmt.Errorf("http server: %q: ports are 1 to 65535, the first not after the last", s)
	}
	var addresses []string
	for p := from; p <= to; p++ {
		addresses = append(addresses, net.JoinHostPort(host, strconv.FormatUint(p, 10)))
	}
	return addresses, nil
}
