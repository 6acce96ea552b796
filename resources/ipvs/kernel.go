package ipvs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// KernelConfig is what Kernel needs.
type KernelConfig struct {
	Logger *slog.Logger
	// CallTimeout bounds one call, waiting for the ones before it included.
	// Default 10 s: programming 1,000 services takes one on a slow machine.
	CallTimeout time.Duration

	dial     func() (conn, error)
	modprobe func(ctx context.Context) error
	sysctls  sysctls
	index    func(name string) (int, error) // of an interface
}

// Kernel is the IPVS table of this process's network namespace. One goroutine
// owns the socket. When that goroutine does not come back from the kernel in
// time it is given up, and the next call has a new one with a new socket.
type Kernel struct {
	cfg KernelConfig

	mu     sync.Mutex // guards all below; never held while waiting
	cur    *owner     // nil: none yet, or the last one was given up
	lost   int        // owners that were given up and have not come back
	closed bool
	ready  error // the latest answer to whether there is IPVS
	asked  time.Time
}

var (
	_ Table = (*Kernel)(nil)
	_ Node  = (*Kernel)(nil)
)

// maxLost is how many goroutines (and threads) may hang in the kernel. More
// would not get further than these.
const maxLost = 4

var errClosed = errors.New("ipvs: closed")

// NewKernel makes a Kernel. It opens nothing before the first call.
func NewKernel(cfg KernelConfig) *Kernel {
	if cfg.CallTimeout <= 0 {
		cfg.CallTimeout = 10 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.dial == nil {
		cfg.dial = dial
	}
	if cfg.modprobe == nil {
		cfg.modprobe = modprobe
	}
	if cfg.sysctls == "" {
		cfg.sysctls = procSysctls
	}
	if cfg.index == nil {
		cfg.index = interfaceIndex
	}
	return &Kernel{cfg: cfg}
}

// Close ends the goroutine and the socket. The table stays as it is.
func (k *Kernel) Close() error {
	k.mu.Lock()
	o := k.cur
	k.cur, k.closed = nil, true
	k.mu.Unlock()
	if o == nil {
		return nil
	}
	close(o.quit)
	select {
	case <-o.done:
		return nil
	case <-time.After(time.Second): // a call that hangs cannot be waited for
		return errors.New("ipvs: a call to the kernel is still going on")
	}
}

type owner struct {
	calls chan *call
	quit  chan struct{} // closed: end after the present call
	done  chan struct{} // closed: ended
}

type call struct {
	ctx    context.Context
	do     func(*client) error
	result chan error // holds one
}

func (k *Kernel) owner() (*owner, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.closed:
		return nil, errClosed
	case k.cur != nil:
		return k.cur, nil
	case k.lost >= maxLost:
		return nil, fmt.Errorf("ipvs: %d calls hang in this kernel; it does not answer any more and has to be rebooted", k.lost)
	}
	o := &owner{calls: make(chan *call), quit: make(chan struct{}), done: make(chan struct{})}
	k.cur = o
	go k.own(o)
	return o, nil
}

// giveUp leaves an owner that hangs in the kernel to itself.
func (k *Kernel) giveUp(o *owner) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cur != o {
		return
	}
	k.cur = nil
	k.lost++
	close(o.quit)
	k.cfg.Logger.Error("a call to the kernel's IPVS hangs; opening it anew", "hanging", k.lost)
	go func() {
		<-o.done
		k.mu.Lock()
		defer k.mu.Unlock()
		k.lost--
	}()
}

// own is the owner's goroutine.
func (k *Kernel) own(o *owner) {
	defer close(o.done)
	var c *client
	closeClient := func() {
		if c != nil {
			_ = c.conn.close() // nothing is lost with it
			c = nil
		}
	}
	defer closeClient()
	for {
		select {
		case <-o.quit:
			return
		case job := <-o.calls:
			err := k.run(&c, job)
			if err != nil {
				closeClient()
			}
			job.result <- err
		}
	}
}

// run does one call with the client, which it opens if there is none.
func (k *Kernel) run(c **client, job *call) error {
	if err := job.ctx.Err(); err != nil {
		return err
	}
	fresh := *c == nil
	if fresh {
		cn, err := k.cfg.dial()
		if err != nil {
			return err
		}
		*c = &client{conn: cn}
	}
	cl := *c
	cl.stop = job.ctx.Err
	deadline, _ := job.ctx.Deadline() // it has one: call sees to that
	if err := cl.conn.setDeadline(deadline); err != nil {
		return err
	}
	// A call that is not wanted any more must not keep the next one waiting.
	spoilt := make(chan struct{})
	release := context.AfterFunc(job.ctx, func() {
		defer close(spoilt)
		_ = cl.conn.setDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !release() {
			<-spoilt // or it would spoil the next call's deadline
		}
	}()
	err := error(nil)
	if fresh {
		if err = cl.open(); err == nil || errors.Is(err, ErrNoIPVS) {
			k.remember(err)
		}
	}
	if err == nil {
		err = job.do(cl)
	}
	if isTimeout(err) { // the socket's clock may be ahead of the context's
		err = fmt.Errorf("ipvs: the kernel does not answer: %w", cmp.Or(job.ctx.Err(), context.DeadlineExceeded))
	}
	return err
}

// give hands a call to the owner, which it returns.
func (k *Kernel) give(job *call) (*owner, error) {
	for {
		o, err := k.owner()
		if err != nil {
			return nil, err
		}
		select {
		case o.calls <- job:
			return o, nil
		case <-o.quit: // given up while we waited for it: to the next
		case <-job.ctx.Done():
			return nil, fmt.Errorf("ipvs: waiting for an earlier call: %w", job.ctx.Err())
		}
	}
}

// grace is how long a call that was told to end has to come back before it
// is taken for hanging.
const grace = time.Second

func (k *Kernel) call(ctx context.Context, do func(*client) error) error {
	ctx, cancel := context.WithTimeout(ctx, k.cfg.CallTimeout)
	defer cancel()
	job := &call{ctx: ctx, do: do, result: make(chan error, 1)}
	o, err := k.give(job)
	if err != nil {
		return err
	}
	select {
	case err := <-job.result:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-job.result:
		return err
	case <-time.After(grace):
		k.giveUp(o)
		return fmt.Errorf("ipvs: the kernel does not answer: %w", ctx.Err())
	}
}

// List implements Table.
func (k *Kernel) List(ctx context.Context, keys []Key) ([]Entry, error) {
	return k.list(ctx, keys, true)
}

// Services implements Table.
func (k *Kernel) Services(ctx context.Context, keys []Key) ([]Entry, error) {
	return k.list(ctx, keys, false)
}

func (k *Kernel) list(ctx context.Context, keys []Key, dests bool) ([]Entry, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	var got []Entry
	if err := k.call(ctx, func(c *client) (err error) { got, err = c.list(keys, dests); return err }); err != nil {
		return nil, err
	}
	return got, nil
}

// Apply implements Table.
func (k *Kernel) Apply(ctx context.Context, ops []Op) ([]Refused, error) {
	if len(ops) == 0 {
		return nil, nil
	}
	var refused []Refused
	if err := k.call(ctx, func(c *client) (err error) { refused, err = c.apply(ops); return err }); err != nil {
		return nil, err
	}
	return refused, nil
}

func (k *Kernel) remember(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ready, k.asked = err, time.Now()
}

// Ready asks again after these times: a module may be loaded by hand any
// moment, and is unloaded hardly ever.
const (
	askAgainAbsent  = time.Second
	askAgainPresent = 30 * time.Second
)

// Ready implements Table.
func (k *Kernel) Ready() error {
	k.mu.Lock()
	known, age, err := !k.asked.IsZero(), time.Since(k.asked), k.ready
	k.mu.Unlock()
	if known && (err == nil && age < askAgainPresent || err != nil && age < askAgainAbsent) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	fresh := k.probe(ctx)
	if fresh != nil && !errors.Is(fresh, ErrNoIPVS) && known {
		return err // busy with a long call: what was known holds
	}
	return fresh
}

// probe asks the kernel whether it has the family.
func (k *Kernel) probe(ctx context.Context) error {
	return k.call(ctx, func(c *client) error {
		err := c.open()
		if err == nil || errors.Is(err, ErrNoIPVS) {
			k.remember(err)
		}
		return err
	})
}

// Load implements Table.
func (k *Kernel) Load(ctx context.Context) error {
	err := k.probe(ctx)
	if !errors.Is(err, ErrNoIPVS) {
		return err
	}
	loading := k.cfg.modprobe(ctx)
	if err = k.probe(ctx); errors.Is(err, ErrNoIPVS) && loading != nil {
		return fmt.Errorf("%w; `modprobe ip_vs` says: %w", err, loading)
	}
	return err
}

func modprobe(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "modprobe", "ip_vs")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		if line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n"); line != "" {
			return errors.New(line)
		}
	}
	return err
}
