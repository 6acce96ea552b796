package track

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

const (
	nonBlocking = unix.O_NONBLOCK // a FIFO under the name of a file would hang the watcher

	// processLook is how often new processes are looked for while their number
	// could change the verdict. The end of one is told by the kernel at once.
	processLook = time.Second
	// commLen is how much of a name the kernel keeps in comm, TASK_COMM_LEN without its 0 (proc(5)).
	commLen = 15
	// cmdlineMost is what is read of a command line.
	cmdlineMost = 64 << 10
)

// process watches the number of processes that match. The kernel's process
// connector would tell of each start as well, but only in the first network
// namespace and to root, and it is woken by every fork of the machine.
func (t *Tracker) process(ctx context.Context, p conf.VRRPProcess, last *verdict) {
	known, well := last.get()
	pids, err := newPids()
	if err != nil {
		t.cfg.Logger.Error("vrrp_track_process "+p.Name+" cannot be watched", "err", err)
		t.report(ctx, Process, p.Name, Result{})
		return
	}
	defer pids.close()
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		pids.wake()
		close(woken)
	})
	defer func() {
		if !stop() {
			<-woken // its descriptor is closed next
		}
	}()
	var since time.Time // of a verdict that differs from the one reported; zero: none
	for ctx.Err() == nil {
		n := pids.renew(matching(t.cfg.Proc, p))
		now := time.Now()
		verdict := n >= max(1, p.Quorum) && (p.Most == 0 || n <= p.Most)
		wait := time.Duration(-1) // until one ends
		if !verdict || p.Most > 0 || pids.blind {
			wait = processLook
		}
		switch {
		case known && verdict == well:
			since = time.Time{}
		case since.IsZero() && known && p.Delay > 0:
			since = now
			wait = p.Delay
		case known && now.Sub(since) < p.Delay:
			wait = p.Delay - now.Sub(since)
		default:
			known, well, since = true, verdict, time.Time{}
			last.set(verdict)
			t.cfg.Logger.Info("vrrp_track_process "+p.Name, "running", n, "well", well)
			t.report(ctx, Process, p.Name, Result{Well: well})
		}
		pids.wait(wait)
	}
}

// matching returns the processes that a description matches.
func matching(proc string, p conf.VRRPProcess) []int {
	dir, err := os.Open(proc)
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1) // what was read counts
	var pids []int
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		comm, err := os.ReadFile(filepath.Join(proc, name, "comm"))
		if err != nil {
			continue // it has ended
		}
		line, err := readSome(filepath.Join(proc, name, "cmdline"), cmdlineMost)
		if err == nil && matches(p, string(bytes.TrimSuffix(comm, []byte("\n"))), line) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func readSome(path string, most int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, most)
	n, err := f.Read(b)
	if n > 0 {
		return b[:n], nil
	}
	return nil, err
}

// matches says whether a process is meant: by the name of its program, or, with
// full_command, by its path as it was called; and by its first arguments, when
// there are some. Kernel threads and zombies have no command line and never are.
func matches(p conf.VRRPProcess, comm string, cmdline []byte) bool {
	if len(cmdline) == 0 || len(p.Process) == 0 {
		return false
	}
	args := bytes.Split(bytes.TrimSuffix(cmdline, []byte{0}), []byte{0})
	want := p.Process[0]
	called := string(args[0])
	switch {
	case p.Full:
		if called != want {
			return false
		}
	case comm != want[:min(len(want), commLen)] && filepath.Base(called) != want:
		return false
	case len(want) > commLen && filepath.Base(called) != want && !argumentIs(args, want):
		return false // only its first characters are the same
	}
	if len(args)-1 < len(p.Process)-1 {
		return false
	}
	for i, a := range p.Process[1:] {
		if string(args[1+i]) != a {
			return false
		}
	}
	return true
}

// argumentIs says whether a script is meant: its interpreter's first argument.
func argumentIs(args [][]byte, want string) bool {
	return len(args) > 1 && filepath.Base(string(args[1])) == want
}

// pids are processes whose end wakes the watcher (pidfd_open(2)).
type pids struct {
	event int         // eventfd(2), to end a wait
	fds   map[int]int // by pid
	blind bool        // one could not be watched: it is looked for instead
}

func newPids() (*pids, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return &pids{event: fd, fds: map[int]int{}}, err
}

// wake ends a wait, and every one after it.
func (p *pids) wake() {
	_, _ = unix.Write(p.event, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // full: then it is awake
}

func (p *pids) close() {
	for _, fd := range p.fds {
		unix.Close(fd)
	}
	unix.Close(p.event)
}

// renew watches these processes and returns how many of them still run.
func (p *pids) renew(now []int) int {
	seen := map[int]bool{}
	p.blind = false
	for _, pid := range now {
		seen[pid] = true
		if _, is := p.fds[pid]; is {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		switch err {
		case nil:
			p.fds[pid] = fd
		case unix.ESRCH:
			delete(seen, pid)
		default:
			p.blind = true
		}
	}
	for pid, fd := range p.fds {
		if !seen[pid] {
			unix.Close(fd)
			delete(p.fds, pid)
		}
	}
	return len(seen)
}

// wait returns when a process ends, when it is woken, or after d; negative: never.
func (p *pids) wait(d time.Duration) {
	fds := []unix.PollFd{{Fd: int32(p.event), Events: unix.POLLIN}}
	of := []int{0}
	for pid, fd := range p.fds {
		fds, of = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}), append(of, pid)
	}
	ms := -1
	if d >= 0 {
		ms = int((d + time.Millisecond - 1) / time.Millisecond)
	}
	if _, err := unix.Poll(fds, ms); err != nil {
		return // interrupted: it looks once more
	}
	for i, f := range fds[1:] {
		if f.Revents != 0 {
			// Its number may be another's soon.
			unix.Close(int(f.Fd))
			delete(p.fds, of[1+i])
		}
	}
}
