package watchdog

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const good = unix.WDIOF_SETTIMEOUT | unix.WDIOF_KEEPALIVEPING | unix.WDIOF_MAGICCLOSE

// fakeDevice bites as a real one would: when it has not been fed for its timeout.
type fakeDevice struct {
	options  uint32
	makes    func(time.Duration) (time.Duration, error) // of SETTIMEOUT; nil: what is asked for
	noWayOut bool
	stopErr  error
	fd       int

	mu      sync.Mutex    // guards the rest
	stuck   chan struct{} // feeding waits for it
	fedErr  error
	limit   time.Duration
	timer   *time.Timer
	fed     int
	bitten  bool
	stopped bool
	closed  bool
}

func newFake() *fakeDevice { return &fakeDevice{options: good, limit: time.Minute} }

// kick starts the time anew, with mu held.
func (f *fakeDevice) kick() {
	if f.timer != nil {
		f.timer.Stop()
	}
	f.timer = time.AfterFunc(f.limit, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.bitten = true
	})
}

func (f *fakeDevice) support() (support, error) { return support{"Fake", f.options}, nil }
func (f *fakeDevice) number() int               { return f.fd }

func (f *fakeDevice) setTimeout(d time.Duration) (time.Duration, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var err error
	if f.makes != nil {
		d, err = f.makes(d)
	}
	if err == nil {
		f.limit = d
		f.kick()
	}
	return d, err
}

func (f *fakeDevice) timeout() (time.Duration, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.limit, nil
}

func (f *fakeDevice) left() (time.Duration, error) { return 0, errors.ErrUnsupported }

func (f *fakeDevice) feed() error {
	f.mu.Lock()
	stuck := f.stuck
	f.mu.Unlock()
	if stuck != nil {
		<-stuck
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fedErr != nil {
		return f.fedErr
	}
	f.fed++
	f.kick()
	return nil
}

func (f *fakeDevice) stop() error {
	if f.noWayOut {
		return errNoWayOut
	}
	if f.stopErr != nil {
		return f.stopErr
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
	f.timer.Stop()
	return nil
}

func (f *fakeDevice) release(magic bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	if magic && !f.noWayOut {
		f.stopped = true
		f.timer.Stop()
	}
	return nil
}

func (f *fakeDevice) setFedErr(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fedErr = err
}

// hang makes feeding wait until stuck is closed.
func (f *fakeDevice) hang(stuck chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stuck = stuck
}

type fakeState struct{ bitten, stopped, closed bool }

func (f *fakeDevice) state() fakeState {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fakeState{f.bitten, f.stopped, f.closed}
}

// logLines are looked at by tests.
type logLines struct {
	mu   sync.Mutex // guards b and wait
	b    bytes.Buffer
	wait chan struct{} // writing waits until it is closed; nil: it does not
}

// unread makes writing wait until read is closed.
func (l *logLines) unread(read chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wait = read
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	wait := l.wait
	l.mu.Unlock()
	if wait != nil {
		<-wait
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logLines) has(t *testing.T, want string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !strings.Contains(l.b.String(), want) {
		t.Errorf("no %q in the log:\n%s", want, l.b.String())
	}
}

// dog is a Watchdog on a fake device.
type dog struct {
	*Watchdog
	t    *testing.T
	dev  *fakeDevice
	log  *logLines
	exec func() error // what happens at Exec
}

func newDog(t *testing.T, cfg Config, dev *fakeDevice) *dog {
	t.Helper()
	d := &dog{t: t, dev: dev, log: &logLines{}}
	start := time.Now()
	sys := system{
		look:      func(string) (Driver, error) { return Driver{Identity: "Fake", NoWayOut: dev.noWayOut}, nil },
		open:      func(string) (device, error) { dev.mu.Lock(); defer dev.mu.Unlock(); dev.kick(); return dev, nil },
		exec:      func(string, []string, []string) error { return d.exec() },
		inherit:   func(int, string) (device, bool, error) { return dev, cfg.Device != "", nil },
		monotonic: func() time.Duration { return time.Since(start) },
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * s
	}
	cfg.Logger = slog.New(slog.NewTextHandler(d.log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	w, err := newWatchdog(cfg, sys)
	if err != nil {
		t.Fatal(err)
	}
	d.Watchdog = w
	return d
}

func (d *dog) arm() {
	d.t.Helper()
	if err := d.Arm(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
}

// turns turns a loop every half second until the test ends or stop is called.
func (d *dog) turns(b *Beat) (stop func()) {
	quit := make(chan struct{})
	go func() {
		for {
			select {
			case <-quit:
				return
			case <-time.After(500 * ms):
				b.Turn()
			}
		}
	}()
	return sync.OnceFunc(func() { close(quit) })
}

// bitten fails unless the device has bitten, or has not.
func (d *dog) bitten(want bool) {
	d.t.Helper()
	if got := d.dev.state().bitten; got != want {
		d.t.Fatalf("reset: %v, want %v; %+v", got, want, d.Status())
	}
}

// end lets nothing run on when the test ends.
func (d *dog) end() {
	d.t.Helper()
	if err := d.Abandon(d.t.Context()); err != nil {
		d.t.Error(err)
	}
	d.dying.Wait()
	d.dev.mu.Lock()
	defer d.dev.mu.Unlock()
	if d.dev.timer != nil {
		d.dev.timer.Stop()
	}
}
