package guard

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// BootNow returns CLOCK_BOOTTIME, the clock of deadlines: time since the
// machine started, with the time it was suspended. It panics never and is 0
// only on a kernel without that clock, on which Open has failed.
func BootNow() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// clockTolerance covers that the kernel's program reads the clock by a faster way than the system call.
const clockTolerance = time.Millisecond

// checkClock runs a program that reads the clock as the guard's will, and
// compares. In a time namespace this process sees another CLOCK_BOOTTIME than
// the kernel, and every deadline would be off by the difference.
func checkClock() error {
	out, err := ebpf.NewMap(&ebpf.MapSpec{Name: "kbguard_clock", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return fmt.Errorf("making map kbguard_clock: %w", err)
	}
	defer out.Close()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "kbguard_clock", Type: ebpf.SchedCLS, License: "Apache-2.0",
		Instructions: asm.Instructions{
			asm.StoreImm(asm.RFP, fpScratch, 0, asm.Word),
			asm.LoadMapPtr(asm.R1, out.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, fpScratch),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "end"),
			asm.Mov.Reg(asm.R6, asm.R0),
			asm.FnKtimeGetBootNs.Call(),
			asm.StoreMem(asm.R6, 0, asm.R0, asm.DWord),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("end"),
			asm.Return(),
		},
	})
	if err != nil {
		return fmt.Errorf("loading program kbguard_clock: %w", err)
	}
	defer p.Close()

	before := BootNow()
	if _, err := p.Run(&ebpf.RunOptions{Data: make([]byte, 64)}); err != nil {
		return fmt.Errorf("running program kbguard_clock: %w", err)
	}
	after := BootNow()
	var v uint64
	if err := out.Lookup(uint32(0), &v); err != nil {
		return fmt.Errorf("reading map kbguard_clock: %w", err)
	}
	if k := time.Duration(v); k < before-clockTolerance || k > after+clockTolerance {
		return fmt.Errorf("%w: here CLOCK_BOOTTIME is %v, the kernel's is %v; run outside of a time namespace", ErrClock, after, k)
	}
	return nil
}

var (
	// ErrUnsupported says that this kernel cannot do what the guard needs, or
	// that this process may not. The text around it says what.
	ErrUnsupported = errors.New("the kernel's guard cannot be had here")
	// ErrClock says that deadlines of this process would mean nothing to the kernel.
	ErrClock = errors.New("the clock of this process is not the kernel's")
	// ErrClosed is returned by a Guard after Close.
	ErrClosed = errors.New("the guard is closed")
)

// explain adds what an administrator can do when the kernel refuses.
func explain(err error) error {
	if (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)) && !errors.Is(err, ErrUnsupported) {
		return fmt.Errorf("%w: root is needed, with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN, and a kernel whose lockdown is not \"confidentiality\": %w", ErrUnsupported, err)
	}
	return err
}

// explainBPF is explain for making maps and loading programs, where the kernel
// says EINVAL to what it is too old for.
func explainBPF(err error) error {
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%w: Linux 5.10 or later with CONFIG_BPF_SYSCALL is needed: %w", ErrUnsupported, err)
	}
	return err
}
