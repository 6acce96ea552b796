package ipvs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

func closeKernel(t *testing.T, k *Kernel) {
	t.Helper()
	if err := k.Close(); err != nil {
		t.Error(err)
	}
}

func TestSettleProgramsInBatchesAndReadsBack(t *testing.T) {
	defer goleak.VerifyNone(t)
	fake := newFakeKernel()
	k := fake.table(0, nil)
	defer closeKernel(t, k)
	var reals []conf.Real
	for i := range 1000 {
		reals = append(reals, real(fmt.Sprintf("10.1.0.5:%d", i+1), conf.Masq, 1))
	}
	wanted := Wanted([]conf.Virtual{virtual("10.0.0.1:80", reals...)}, func(Key, conf.Real) bool { return true })
	got, err := settle(t.Context(), k, wanted, keysOfEntries(wanted), true)
	if err != nil || len(got.Left) != 0 || len(got.Before) != 1001 {
		t.Fatalf("%v, %d left, %d before", err, len(got.Left), len(got.Before))
	}
	if d := cmp.Diff(Text(wanted), fake.text()); d != "" {
		t.Error(d)
	}
	// Asking for the family, reading, 8 batches, reading again: services and servers.
	if fake.sends > 15 {
		t.Errorf("%d datagrams for 1,001 changes", fake.sends)
	}
}

func keysOfEntries(entries []Entry) []Key {
	var ks []Key
	for _, e := range entries {
		ks = append(ks, e.Service.Key)
	}
	return ks
}

func TestRefusedOperationsAreNamedAndTheOthersDone(t *testing.T) {
	fake := newFakeKernel()
	fake.refuse = func(op Op) unix.Errno {
		if op.Dest.Address == ap("10.0.0.6:80") {
			return unix.EINVAL
		}
		return 0
	}
	k := fake.table(0, nil)
	defer closeKernel(t, k)
	wanted := Wanted([]conf.Virtual{web()}, upIf("10.0.0.5:80", "10.0.0.6:80"))
	got, err := settle(t.Context(), k, wanted, keysOfEntries(wanted), true)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Left) != 1 || !strings.Contains(got.Left[0].Err.Error(), "-a -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 2") || !errors.Is(got.Left[0].Err, unix.EINVAL) {
		t.Errorf("%v", got.Left)
	}
	if err := got.serious(wanted); err != nil {
		t.Errorf("one server of two: %v", err)
	}
	want := "-A -t 10.0.0.1:80 -s wlc\n-a -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 1\n"
	if d := cmp.Diff(want, fake.text()); d != "" {
		t.Error(d)
	}

	only := Wanted([]conf.Virtual{web()}, upIf("10.0.0.6:80"))
	if got, err = settle(t.Context(), k, only, keysOfEntries(only), true); err != nil {
		t.Fatal(err)
	}
	if got.serious(only) == nil {
		t.Error("no server is left and it is not serious")
	}
}

func TestAnUnknownSchedulerIsNamed(t *testing.T) {
	fake := newFakeKernel()
	fake.refuse = func(Op) unix.Errno { return unix.ENOENT }
	k := fake.table(0, nil)
	defer closeKernel(t, k)
	v := web()
	v.Scheduler = "twos"
	wanted := Wanted([]conf.Virtual{v}, upIf())
	got, err := settle(t.Context(), k, wanted, keysOfEntries(wanted), true)
	if err != nil {
		t.Fatal(err)
	}
	if err := got.serious(wanted); err == nil || !strings.Contains(err.Error(), `this kernel has no scheduler "twos" (module ip_vs_twos)`) {
		t.Errorf("%v", err)
	}
}

// Somebody adds what we are about to add, and removes what we are about to edit.
func TestSettleAgainstAnotherWriter(t *testing.T) {
	fake := newFakeKernel()
	wanted := Wanted([]conf.Virtual{web()}, upIf("10.0.0.5:80"))
	var once atomic.Bool
	fake.refuse = func(op Op) unix.Errno { // is called under the lock, before the operation
		if op.Verb == AddDest && once.CompareAndSwap(false, true) {
			fake.services[op.Service.Key].Dests = append(fake.services[op.Service.Key].Dests, Dest{Address: op.Dest.Address, Method: Masq, Weight: 7})
		}
		return 0
	}
	k := fake.table(0, nil)
	defer closeKernel(t, k)
	got, err := settle(t.Context(), k, wanted, keysOfEntries(wanted), true)
	if err != nil || len(got.Left) != 0 {
		t.Fatal(err, got.Left)
	}
	if d := cmp.Diff(Text(wanted), fake.text()); d != "" {
		t.Error(d)
	}
}

func TestSettleGivesUpAgainstAFighter(t *testing.T) {
	fake := newFakeKernel()
	v := virtual("10.0.0.1:80", real("10.0.0.5:80", conf.Gate, 1))
	fake.refuse = func(op Op) unix.Errno { // is called under the lock, before the operation
		if op.Verb == AddDest { // ours comes, and theirs is back
			fake.services[op.Service.Key].Dests = nil
			fake.services[op.Service.Key].Service.Scheduler = "rr"
		}
		if op.Verb == EditService {
			fake.services[op.Service.Key].Dests = nil
		}
		return 0
	}
	k := fake.table(0, nil)
	defer closeKernel(t, k)
	wanted := Wanted([]conf.Virtual{v}, upIf("10.0.0.5:80"))
	got, err := settle(t.Context(), k, wanted, keysOfEntries(wanted), true)
	if err == nil {
		err = got.serious(wanted)
	}
	if !errors.Is(err, errUndone) {
		t.Errorf("it never became right: %v", err)
	}
}

func TestAnInterruptedDumpIsRepeated(t *testing.T) {
	fake := newFakeKernel()
	wanted := Wanted([]conf.Virtual{web()}, upIf("10.0.0.5:80"))
	fake.put(wanted...)
	k := fake.table(0, nil)
	defer closeKernel(t, k)
	fake.interrupt = dumpTries - 1
	got, err := k.List(t.Context(), keysOfEntries(wanted))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(Text(wanted), Text(got)); d != "" {
		t.Error(d)
	}
	fake.interrupt = dumpTries
	if _, err = k.List(t.Context(), keysOfEntries(wanted)); !errors.Is(err, errInterrupted) {
		t.Errorf("%v", err)
	}
}

func TestAKernelWithoutIPVS(t *testing.T) {
	fake := newFakeKernel()
	fake.present = false
	k := fake.table(0, errNoModule)
	defer closeKernel(t, k)
	if err := k.Ready(); !errors.Is(err, ErrNoIPVS) {
		t.Errorf("Ready: %v", err)
	}
	err := k.Load(t.Context())
	if !errors.Is(err, ErrNoIPVS) || !strings.Contains(err.Error(), "Module ip_vs not found") {
		t.Errorf("Load: %v", err)
	}
	if _, err := k.Apply(t.Context(), []Op{{Verb: AddService, Service: Service{Key: KeyOf(web())}}}); !errors.Is(err, ErrNoIPVS) {
		t.Errorf("Apply: %v", err)
	}
	if err := remove(t.Context(), k, []Key{KeyOf(web())}, nil); err != nil {
		t.Errorf("there is nothing to remove: %v", err)
	}
}

// A failure is not remembered for ever: the module may be loaded at any time.
func TestAModuleLoadedLaterIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKernel()
		fake.present = false
		k := fake.table(0, errNoModule)
		defer closeKernel(t, k)
		if err := k.Ready(); !errors.Is(err, ErrNoIPVS) {
			t.Errorf("%v", err)
		}
		fake.present = true
		time.Sleep(askAgainAbsent)
		if err := k.Ready(); err != nil {
			t.Errorf("%v", err)
		}
		dials := fake.dials
		for range 1000 {
			_ = k.Ready()
		}
		if fake.dials != dials {
			t.Errorf("Ready is not cheap: %d sockets", fake.dials-dials)
		}
	})
}

func TestLoadLoadsTheModule(t *testing.T) {
	fake := newFakeKernel()
	fake.present = false
	k := NewKernel(KernelConfig{dial: fake.dial, modprobe: func(context.Context) error {
		fake.mu.Lock()
		defer fake.mu.Unlock()
		fake.present = true
		return nil
	}})
	defer closeKernel(t, k)
	if err := k.Load(t.Context()); err != nil {
		t.Error(err)
	}
}

// The kernel takes requests and does not answer: the call ends in time and the
// next one has a new socket.
func TestACallWithoutAnswerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKernel()
		k := fake.table(2*time.Second, nil)
		defer closeKernel(t, k)
		if err := k.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		fake.mute = true
		begin := time.Now()
		_, err := k.List(t.Context(), []Key{KeyOf(web())})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		begin = time.Now()
		if _, err = k.List(ctx, []Key{KeyOf(web())}); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 50*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		fake.mute = false
		if _, err := k.List(t.Context(), []Key{KeyOf(web())}); err != nil {
			t.Errorf("afterwards: %v", err)
		}
		if fake.dials != 3 {
			t.Errorf("%d sockets", fake.dials)
		}
	})
}

// A system call that never returns costs its goroutine; not the ones after it.
func TestACallThatHangsInTheKernelIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKernel()
		k := fake.table(time.Second, nil)
		defer closeKernel(t, k)
		hang := make(chan struct{})
		for i := range maxLost {
			fake.mu.Lock()
			fake.hang = hang
			fake.mu.Unlock()
			if _, err := k.List(t.Context(), []Key{KeyOf(web())}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%d: %v", i, err)
			}
			fake.mu.Lock()
			fake.hang = nil
			fake.mu.Unlock()
			if i < maxLost-1 {
				if _, err := k.List(t.Context(), []Key{KeyOf(web())}); err != nil {
					t.Errorf("after %d: %v", i, err)
				}
			}
		}
		if _, err := k.List(t.Context(), []Key{KeyOf(web())}); err == nil || !strings.Contains(err.Error(), "rebooted") {
			t.Errorf("%v", err)
		}
		close(hang)
		synctest.Wait()
		if _, err := k.List(t.Context(), []Key{KeyOf(web())}); err != nil {
			t.Errorf("when they have come back: %v", err)
		}
	})
}

// Whatever kernel this runs on: it has IPVS or it says that it has none.
func TestThisKernelAnswers(t *testing.T) {
	k := NewKernel(KernelConfig{})
	defer closeKernel(t, k)
	if err := k.Ready(); err != nil && !errors.Is(err, ErrNoIPVS) {
		t.Errorf("%v", err)
	}
}
