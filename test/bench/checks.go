package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/keepbeat/keepbeat/checks"
	"github.com/keepbeat/keepbeat/conf"
)

// checkInterval and checkTimeout are of every check; fall is 1.
const (
	checkInterval = time.Second
	checkTimeout  = 3 * time.Second
)

// Checks is what checking some number of real servers costs.
type Checks struct {
	Servers  int          `json:"servers"`
	Seconds  float64      `json:"seconds"`
	Due      uint64       `json:"due"`
	Done     uint64       `json:"done"`
	Missed   uint64       `json:"missed"` // left out because this process was starved
	CPU1000  float64      `json:"cpu_s_per_1000_checks"`
	CPU      float64      `json:"cpu_percent"`
	RSS      float64      `json:"rss_mib"`
	LateP50  float64      `json:"late_p50_ms_below"` // of the start of a run behind its time
	LateP99  float64      `json:"late_p99_ms_below"`
	LateMax  float64      `json:"late_max_ms_below"`
	Failed   int          `json:"failed"`       // servers that were told to answer 500, a twentieth of all
	Noticed  Distribution `json:"fail_to_down"` // from the telling until the check is down
	Budget   Budget       `json:"budget"`       // checkinterval x fall + checktimeout
	OnTime   bool         `json:"on_time"`      // nothing late by more than a tenth of the interval
	OneCore  bool         `json:"one_core"`
	FailsMet bool         `json:"fail_to_down_met"`
}

func checking(ctx context.Context, args []string) (any, error) {
	flags := flag.NewFlagSet("checks", flag.ContinueOnError)
	list := flags.String("servers", "10,100,1000,5000", "numbers of real servers, with commas between")
	d := flags.Duration("for", 10*time.Second, "how long each number is watched")
	if err := parse(flags, args); err != nil {
		return nil, err
	}
	var all []*Checks
	for s := range strings.SplitSeq(*list, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 50000 {
			return all, fmt.Errorf("-servers %q: want numbers from 1 to 50000", s)
		}
		c, err := checkServers(ctx, n, *d)
		if err != nil {
			return all, err
		}
		say("%d servers: %d of %d checks, %.2f CPU s per 1000, %.0f MiB, late p99 < %.1f ms max < %.1f ms, noticed in %.0f ms (median)",
			n, c.Done, c.Due, c.CPU1000, c.RSS, c.LateP99, c.LateMax, c.Noticed.Median)
		all = append(all, c)
	}
	return all, nil
}

func checkServers(ctx context.Context, n int, d time.Duration) (_ *Checks, err error) {
	servers, err := startServers()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, servers.stop()) }()
	ctx, cancel := context.WithCancel(ctx)
	scheduler := checks.NewScheduler(checks.Config{})
	done := make(chan error, 1)
	go func() { done <- scheduler.Run(ctx) }()
	defer func() { cancel(); err = errors.Join(err, <-done) }()

	w := &downs{at: map[int]time.Time{}}
	all := make([]conf.Check, n)
	for i := range all {
		all[i] = conf.Check{
			Type: conf.Negotiate, Service: "http", Target: netip.AddrPortFrom(serverAddress(i), servers.port),
			Request: "/", Receive: "ok", HTTPMethod: "GET", Interval: checkInterval, Timeout: checkTimeout, Fall: 1, Rise: 1,
		}
		defer scheduler.Subscribe(all[i], func(st checks.Status) { w.note(i, st) })()
	}
	// The first round comes within a tenth of the interval, then each has its phase.
	if err := sleep(ctx, 2*checkInterval); err != nil {
		return nil, err
	}
	for i, c := range all {
		if st, _ := scheduler.Status(c); !st.Up {
			return nil, fmt.Errorf("server %d of %d is not up before anything has happened: %s", i, n, st.Detail)
		}
	}
	self := os.Getpid()
	before, began := scheduler.Stats(), time.Now()
	usedBefore, err := usageOf(self)
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, d); err != nil {
		return nil, err
	}
	after, took := scheduler.Stats(), time.Since(began)
	used, err := usageOf(self)
	if err != nil {
		return nil, err
	}
	cpu := (used.cpu - usedBefore.cpu).Seconds()
	runs := after.Runs - before.Runs
	c := &Checks{
		Servers: n, Seconds: round(took.Seconds()), Due: uint64(float64(n)*took.Seconds()/checkInterval.Seconds() + 0.5), Done: runs,
		Missed: after.Missed - before.Missed, CPU1000: round(cpu * 1000 / float64(max(1, runs))), CPU: round(100 * cpu / took.Seconds()),
		RSS:     round(float64(used.rss) / (1 << 20)),
		LateP50: late(before, after, 0.5), LateP99: late(before, after, 0.99), LateMax: late(before, after, 1),
		Budget: Budget{Max: limit(ms(checkInterval + checkTimeout))},
	}
	// A tenth of the interval, 100 ms, falls into a class that ends at 131.
	tenth := checkInterval / 10
	c.OnTime = c.Missed == 0 && (c.LateMax <= ms(tenth) || after.MaxLate <= tenth)
	c.OneCore = c.CPU <= 100

	c.Failed = max(1, n/20)
	w.watch()
	told := time.Now()
	if err := servers.fail(c.Failed); err != nil {
		return nil, err
	}
	var noticed []time.Duration
	for deadline := time.Now().Add(2 * (checkInterval + checkTimeout)); len(noticed) < c.Failed && time.Now().Before(deadline); {
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return nil, err
		}
		noticed = w.since(told)
	}
	if len(noticed) < c.Failed {
		return nil, fmt.Errorf("%d of %d failed servers were noticed", len(noticed), c.Failed)
	}
	c.Noticed = distribution(noticed)
	c.FailsMet = c.Budget.met(c.Noticed)
	return c, nil
}

// downs notes when each check went down.
type downs struct {
	mu       sync.Mutex // guards the rest
	watching bool
	at       map[int]time.Time
}

func (w *downs) note(i int, st checks.Status) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watching && st.Known && !st.Up && w.at[i].IsZero() {
		w.at[i] = time.Now()
	}
}

func (w *downs) watch() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watching = true
}

func (w *downs) since(t time.Time) (all []time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, at := range w.at {
		all = append(all, at.Sub(t))
	}
	return all
}

// late is below how much the share p of the runs between two countings started late.
func late(before, after checks.Stats, p float64) float64 {
	total := after.Runs - before.Runs
	var sum uint64
	for i := range after.Late {
		if sum += after.Late[i] - before.Late[i]; float64(sum) >= p*float64(total) {
			return round((64 * time.Microsecond << i).Seconds() * 1000)
		}
	}
	return -1
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// serverAddress is that of server i: all of 127.0.0.0/8 is this machine.
func serverAddress(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)})
}

// servers is the process that answers for all real servers.
type servers struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	port uint16
}

func startServers() (*servers, error) {
	s := &servers{cmd: exec.Command("/proc/self/exe", "httpd")}
	s.cmd.Stderr = os.Stderr
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.out = bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	var port int
	if port, err = s.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("the real servers have not started: %w", err), s.stop())
	}
	s.port = uint16(port)
	return s, nil
}

func (s *servers) read() (int, error) {
	line, err := s.out.ReadString('\n')
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(line))
}

// fail makes the first n servers answer 500, and returns when they do.
func (s *servers) fail(n int) error {
	if _, err := fmt.Fprintln(s.in, n); err != nil {
		return err
	}
	_, err := s.read()
	return err
}

func (s *servers) stop() error {
	s.in.Close() // it ends with its input
	return s.cmd.Wait()
}

// httpd is the real servers: one process that answers on all of 127.0.0.0/8. It
// prints its port, then reads how many of them are to fail, until its input ends.
func httpd(context.Context, []string) (any, error) {
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex // guards failed
	failed := map[netip.Addr]bool{}
	answer := func(status string) []byte {
		return []byte("HTTP/1.1 " + status + "\r\nServer: bench\r\nContent-Type: text/html\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")
	}
	good, bad := answer("200 OK"), answer("500 Internal Server Error")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
					return
				}
				mu.Lock()
				sick := failed[c.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()]
				mu.Unlock()
				if sick {
					c.Write(bad)
				} else {
					c.Write(good)
				}
			}()
		}
	}()
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		n, err := strconv.Atoi(in.Text())
		if err != nil {
			return nil, err
		}
		mu.Lock()
		for i := range n {
			failed[serverAddress(i)] = true
		}
		mu.Unlock()
		fmt.Println(n)
	}
	return nil, l.Close()
}
