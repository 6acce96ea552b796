package scenario

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
)

// FenceScript is where a Pair's nodes have the script that operates its Power.
const FenceScript = "/etc/keepbeat/fence.sh"

// Power is the switch behind the lab's machines: what a script hook is told to
// fence, it switches off. It is reached by a socket of the file system, so that no
// fault of the lab's networks is one of it, and it serves one request at a
// time: of two nodes that fence each other one is first, and the other's request
// goes with the node that made it. Its methods may be called from any goroutine.
type Power struct {
	nodes []*lab.Host

	serving sync.Mutex // held while a request is served

	mu     sync.Mutex // guards what follows
	uses   []PowerUse
	delay  time.Duration
	refuse string
}

// PowerUse is one request, and what became of it.
type PowerUse struct {
	Action, Node string
	By           string        // the host that asked
	At           probe.Instant // when it was served
	Error        string        // empty: done, and certain
}

// startPower starts the switch of a scenario's directors and writes the script to each.
func startPower(t TB, d *Directors) *Power {
	t.Helper()
	both := d.Both()
	p := &Power{nodes: both[:]}
	// In the lab's own directory, which goes with it.
	socket := filepath.Join(filepath.Dir(filepath.Clean(d.Director1.Path("/"))), "power.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatalf("scenario: power: %v", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{action}/{node}", p.handle)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(l) // until Close
	}()
	t.Cleanup(func() { server.Close(); <-ended })
	for _, h := range p.nodes {
		h.WriteFile(FenceScript, "#!/bin/sh\n# ACTION NODE: the lab's power switch; exit status 0 when it is certain.\n"+
			"read -r by </proc/sys/kernel/hostname\n"+
			"exec /usr/bin/curl -sS --fail-with-body --unix-socket "+socket+` "http://power/${1:-none}/${2:-none}?by=$by"`+"\n", 0o755)
	}
	return p
}

// Refuse makes the switch refuse everything, with these words; empty: it works again.
func (p *Power) Refuse(why string) { p.mu.Lock(); defer p.mu.Unlock(); p.refuse = why }

// Delay makes the switch wait before it serves a request.
func (p *Power) Delay(d time.Duration) { p.mu.Lock(); defer p.mu.Unlock(); p.delay = d }

// Uses are all requests so far, in the order in which they were served; looks
// whether the switch answers are none.
func (p *Power) Uses() []PowerUse { p.mu.Lock(); defer p.mu.Unlock(); return slices.Clone(p.uses) }

func (p *Power) handle(w http.ResponseWriter, r *http.Request) {
	p.serving.Lock()
	defer p.serving.Unlock()
	p.mu.Lock()
	delay, refuse := p.delay, p.refuse
	p.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-r.Context().Done(): // who asked is gone
		return
	}
	use := PowerUse{Action: r.PathValue("action"), Node: r.PathValue("node"), By: r.URL.Query().Get("by"), At: probe.Now()}
	err := errors.New(refuse)
	if refuse == "" {
		err = p.do(use)
	}
	if err != nil {
		use.Error = err.Error()
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	} else {
		fmt.Fprintln(w, "done")
	}
	if use.Action == "monitor" || use.Action == "status" {
		return
	}
	p.mu.Lock()
	p.uses = append(p.uses, use)
	p.mu.Unlock()
}

func (p *Power) do(use PowerUse) error {
	host := func(name string) *lab.Host {
		if i := slices.IndexFunc(p.nodes, func(h *lab.Host) bool { return h.Name == name }); i >= 0 {
			return p.nodes[i]
		}
		return nil
	}
	if by := host(use.By); by != nil && by.Dead() {
		return fmt.Errorf("%s asks and is off", use.By)
	}
	switch use.Action {
	case "monitor", "status":
		return nil
	case "off", "reboot", "on":
	default:
		return fmt.Errorf("%q: there are off, reboot, on, monitor", use.Action)
	}
	h := host(use.Node)
	if h == nil {
		return fmt.Errorf("no machine %q", use.Node)
	}
	if use.Action == "on" {
		return nil // it starts when the test revives it, as after a reboot
	}
	return h.PowerOff()
}

// PowerDevices is a fencing section whose one device is Power, for both directors.
const PowerDevices = "  devices:\n    power: {script: " + FenceScript + ", targets: [director1, director2], timeout: 5s}\n"

// StartPower gives directors that are no Pair the switch.
func (d *Directors) StartPower() *Power { d.t.Helper(); return startPower(d.t, d) }
