// Package watchdog makes a node reset itself when its daemon does not work any
// more: self-fencing by Linux's watchdog device (/dev/watchdog: softdog, hardware).
// The device resets the machine unless it is fed, and it is fed only while every
// registered loop turns.
package watchdog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultTimeout is Config.Timeout's default; MinTimeout and MaxTimeout bound it.
const (
	DefaultTimeout = 10 * time.Second
	MinTimeout     = time.Second
	MaxTimeout     = 10 * time.Minute
)

// Config says what to feed.
type Config struct {
	// Device is a path, such as /dev/watchdog. Empty: no self-fencing; then Arm stops a device that
	// a daemon before a re-exec had, and every other method does nothing.
	Device string
	// Timeout from the last feeding to the reset; 0 is DefaultTimeout. Parts of a second are rounded up.
	Timeout time.Duration
	// Reset asks the kernel to reset the machine at once, when the device is starved; left is the time until the
	// device bites, 0 if it does not run. It returns only if that failed. nil: the device alone does it. The daemon passes ResetNow.
	Reset func(why string, left time.Duration) error
	// Logger; nil discards.
	Logger *slog.Logger
}

// Errors of Arm, Disarm and Exec, to be found by errors.Is.
var (
	// ErrStarved: this machine is to be reset, and nothing changes that any more.
	ErrStarved = errors.New("the watchdog is starved and this machine is about to be reset")
	// ErrNoWayOut: the device goes on after Disarm, and bites unless keepbeat arms it again in time.
	ErrNoWayOut = errors.New("the watchdog does not stop (nowayout)")
)

// Watchdog feeds one device. Its methods may be called from any goroutine.
type Watchdog struct {
	cfg   Config
	log   *slog.Logger
	sys   system
	beats beats

	starved atomic.Pointer[string] // why; set once
	missed  atomic.Bool            // Starve found no device configured, and said so
	dying   sync.WaitGroup         // what Starve began
	wake    chan struct{}

	op sync.Mutex // held by Arm, Disarm, Exec and Abandon: one at a time

	mu       sync.Mutex // guards the rest; never held over anything that may wait
	dev      device     // nil: not open
	support  support
	noWayOut bool
	state    state
	armedAt  time.Duration
	former   bool          // dev is one that was taken over and is not Config.Device
	trouble  error         // of the last feeding; while the device is not open, of the last Arm
	told     time.Duration // what the driver said was left, when it was not fed; 0: it does not know
	stop     context.CancelFunc
	stopped  chan struct{} // closed when the feeding goroutine has ended
}

// New makes a Watchdog that is not armed. If this process was a daemon that has
// replaced itself by Exec, its device is taken over: it is fed from here on, for as long as Exec said.
func New(cfg Config) (*Watchdog, error) { return newWatchdog(cfg, linux) }

func newWatchdog(cfg Config, sys system) (*Watchdog, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Timeout < MinTimeout || cfg.Timeout > MaxTimeout {
		return nil, fmt.Errorf("watchdog: timeout %v: want %v to %v", cfg.Timeout, MinTimeout, MaxTimeout)
	}
	if part := cfg.Timeout % time.Second; part > 0 {
		cfg.Timeout += time.Second - part
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	w := &Watchdog{cfg: cfg, log: cfg.Logger, sys: sys, wake: make(chan struct{}, 1)}
	w.beats.base = time.Now()
	w.takeOver()
	return w, nil
}

// Register adds a loop, which has turned just now. It holds the feeding back
// when it has not turned for longer than maxAge; 0 is the timeout. The machine is reset
// at the latest maxAge and one timeout after a loop turned last.
func (w *Watchdog) Register(name string, maxAge time.Duration) *Beat {
	return w.beats.add(name, maxAge)
}

// Running says whether the device runs: it is armed, or taken over from a
// daemon that has replaced itself. Then Arm is better called at once than after the node has joined.
func (w *Watchdog) Running() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dev != nil
}

// Arm opens the device, which starts it, and begins to feed. Call it when the
// configuration is valid, what an earlier daemon left behind is stopped, the node
// has joined, and the loops are registered: a node that cannot get that far would reset itself
// again and again. An error names the device and what to do; then nothing is armed. A second call does nothing.
func (w *Watchdog) Arm(ctx context.Context) error {
	w.op.Lock()
	defer w.op.Unlock()
	if err := w.letFormerGo(ctx); err != nil {
		return err
	}
	switch {
	case w.cfg.Device == "":
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("watchdog %s: %w", w.cfg.Device, context.Cause(ctx))
	case w.starved.Load() != nil:
		return fmt.Errorf("watchdog %s: %w", w.cfg.Device, ErrStarved)
	case len(w.beats.read(0, 0)) == 0:
		return fmt.Errorf("watchdog %s: no loop is registered that would feed it", w.cfg.Device)
	}
	w.mu.Lock()
	dev, armed := w.dev, w.state.armed
	w.mu.Unlock()
	switch {
	case armed:
		return nil
	case dev != nil:
		w.armRunning(dev)
		return nil
	}
	err := w.armNew()
	if err != nil {
		w.mu.Lock()
		w.trouble = err
		w.mu.Unlock()
	}
	return err
}

// letFormerGo stops a device that was taken over and is not configured any more.
func (w *Watchdog) letFormerGo(ctx context.Context) error {
	w.mu.Lock()
	dev, former := w.dev, w.former
	w.mu.Unlock()
	if !former || w.starved.Load() != nil {
		return nil
	}
	if err := w.end(ctx); err != nil {
		return err
	}
	if err := w.closeDevice(dev); err != nil {
		w.log.Error("the watchdog that was configured before does not stop", "err", err)
	} else {
		w.log.Info("the watchdog that was configured before is stopped")
	}
	w.closed()
	return nil
}

// closed notes that no device is open any more.
func (w *Watchdog) closed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dev, w.stop, w.state, w.former = nil, nil, state{}, false
}

// armNew opens the device and starts the feeding.
func (w *Watchdog) armNew() error {
	dev, sup, driver, timeout, err := w.openDevice()
	if err != nil {
		return err
	}
	now := w.beats.now()
	if err := dev.feed(); err != nil {
		return errors.Join(fmt.Errorf("watchdog %s (%s): feeding it: %w", w.cfg.Device, sup.identity, err), w.closeDevice(dev))
	}
	w.mu.Lock()
	w.dev, w.support, w.noWayOut, w.armedAt, w.trouble = dev, sup, driver.NoWayOut, now, nil
	w.state = state{timeout: timeout, fed: now, armed: true}
	w.mu.Unlock()
	w.start()
	w.sayArmed(dev, "watchdog armed")
	return nil
}

// openDevice opens the device and sets its timeout. What can be known to go wrong is found before it is open.
func (w *Watchdog) openDevice() (dev device, sup support, driver Driver, timeout time.Duration, err error) {
	path := w.cfg.Device
	if driver, err = w.sys.look(path); err != nil {
		return
	}
	if err = driver.holds(path, w.cfg.Timeout); err != nil {
		return
	}
	if dev, err = w.sys.open(path); err != nil {
		return
	}
	if sup, err = dev.support(); err != nil {
		err = fmt.Errorf("watchdog %s: %w", path, err)
	} else if err = sup.usable(path, driver.NoWayOut); err == nil {
		timeout, err = w.setTimeout(dev, sup)
	}
	if err != nil {
		err = errors.Join(err, w.closeDevice(dev))
	}
	return
}

func (w *Watchdog) setTimeout(dev device, sup support) (time.Duration, error) {
	path, wanted := w.cfg.Device, w.cfg.Timeout
	got, err := dev.setTimeout(wanted)
	if errors.Is(err, errors.ErrUnsupported) {
		got, err = dev.timeout() // it has one that cannot be changed
	}
	if err != nil {
		return 0, fmt.Errorf("watchdog %s (%s): a timeout of %v: %w", path, sup.identity, wanted, err)
	}
	return got, fits(path, sup.identity, wanted, got)
}

// armRunning arms a device that was taken over. Whatever the configuration now says of
// it, it goes on: a healthy node is not reset for a timeout that the driver does not like.
func (w *Watchdog) armRunning(dev device) {
	w.mu.Lock()
	sup := w.support
	w.mu.Unlock()
	timeout, err := w.setTimeout(dev, sup)
	if err != nil {
		w.log.Error("the watchdog goes on with the timeout that it had", "err", err)
		timeout, err = dev.timeout()
	}
	now := w.beats.now()
	w.mu.Lock()
	if err == nil {
		w.state.timeout = timeout
	}
	w.state.armed = true
	w.armedAt = now
	w.mu.Unlock()
	w.nudge()
	w.sayArmed(dev, "watchdog armed again after the restart; it was fed all the time")
}

func (w *Watchdog) sayArmed(dev device, msg string) {
	_, err := dev.left()
	st := w.Status()
	w.log.Info(msg, "device", st.Device, "driver", st.Identity, "timeout", st.Timeout, "tells time left", err == nil)
	if st.NoWayOut {
		w.log.Warn("the watchdog's driver has nowayout: stopping keepbeat resets this machine unless it is started again in time", "device", st.Device, "timeout", st.Timeout)
	}
}

// start begins the feeding. It ends with stop, not with anybody's context: what
// decides is whether the loops turn.
func (w *Watchdog) start() {
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	w.mu.Lock()
	w.stop, w.stopped = cancel, stopped
	w.mu.Unlock()
	go func() {
		defer close(stopped)
		w.feed(ctx)
	}()
}

// end ends the feeding. The device may hang in the driver: ctx bounds the wait.
func (w *Watchdog) end(ctx context.Context) error {
	w.mu.Lock()
	stop, stopped := w.stop, w.stopped
	w.mu.Unlock()
	if stop == nil {
		return nil
	}
	stop()
	select {
	case <-stopped:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("watchdog %s: the feeding does not end: %w", w.cfg.Device, context.Cause(ctx))
	}
}

// Disarm stops the device and closes it. Call it when nothing of ours runs on
// this machine any more, and only then: a daemon that ends otherwise leaves the device running.
// ErrNoWayOut in the error: it bites after one timeout. ErrStarved: it is too late; better not end
// the process then, whose end would feed it once more.
func (w *Watchdog) Disarm(ctx context.Context) error {
	w.op.Lock()
	defer w.op.Unlock()
	w.mu.Lock()
	dev := w.dev
	w.mu.Unlock()
	if dev == nil {
		return nil
	}
	if why := w.starved.Load(); why != nil {
		return fmt.Errorf("watchdog %s: %w: %s", w.cfg.Device, ErrStarved, *why)
	}
	if err := w.end(ctx); err != nil {
		return err
	}
	err := w.closeDevice(dev)
	w.closed()
	if why := w.starved.Load(); why != nil {
		// Starve came while the device was being stopped.
		_, again := w.openStarved()
		return errors.Join(fmt.Errorf("watchdog %s: %w: %s", w.cfg.Device, ErrStarved, *why), again)
	}
	if err == nil {
		w.log.Info("watchdog stopped", "device", w.cfg.Device)
	}
	return err
}

// closeDevice stops a device and closes it.
func (w *Watchdog) closeDevice(dev device) error {
	timeout, timeoutErr := dev.timeout()
	err := dev.stop()
	if errors.Is(err, errors.ErrUnsupported) {
		err = nil // the magic character does it
	}
	closing := dev.release(true)
	switch {
	case errors.Is(err, errNoWayOut) && timeoutErr == nil:
		err = fmt.Errorf("watchdog %s: %w: it resets this machine in %v unless keepbeat is started again before", w.cfg.Device, ErrNoWayOut, timeout)
	case errors.Is(err, errNoWayOut):
		err = fmt.Errorf("watchdog %s: %w: it resets this machine unless keepbeat is started again at once", w.cfg.Device, ErrNoWayOut)
	case err != nil:
		err = fmt.Errorf("watchdog %s: stopping it: %w", w.cfg.Device, err)
	}
	if closing != nil {
		err = errors.Join(err, fmt.Errorf("watchdog %s: closing it: %w", w.cfg.Device, closing))
	}
	return err
}

// Abandon ends the feeding and closes the device without stopping it: what
// the end of the process does as well. It bites one timeout later.
func (w *Watchdog) Abandon(ctx context.Context) error {
	w.op.Lock()
	defer w.op.Unlock()
	if err := w.end(ctx); err != nil {
		return err
	}
	w.mu.Lock()
	dev := w.dev
	w.mu.Unlock()
	w.closed()
	if dev == nil {
		return nil
	}
	return dev.release(false)
}

func (w *Watchdog) nudge() {
	select {
	case w.wake <- struct{}{}:
	default: // it is awake
	}
}
