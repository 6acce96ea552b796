package program

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// await returns when the process has ended and is a zombie; at the end of ctx it is made to.
func await(ctx context.Context, pid, pidfd int) (late bool) {
	if pidfd < 0 { // a kernel before 5.4
		return awaitBlocking(ctx, pid)
	}
	_ = unix.SetNonblock(pidfd, true) // lets the poller wait: no thread for a sleeping check
	f := os.NewFile(uintptr(pidfd), "pidfd")
	defer f.Close()
	rc, err := f.SyscallConn()
	if err != nil || f.SetReadDeadline(time.Time{}) != nil {
		return awaitBlocking(ctx, pid)
	}
	ended := func() bool { return rc.Read(func(uintptr) bool { return exited(pid, unix.WNOHANG) }) == nil }
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if ended() {
		return false
	}
	_ = unix.Kill(-pid, unix.SIGTERM)
	_ = f.SetReadDeadline(time.Now().Add(termGrace))
	if !ended() {
		_ = unix.Kill(-pid, unix.SIGKILL)
		// Nothing but the end is waited for now, long for a program that the
		// kernel holds: cmd.Wait shares the pidfd, which no longer blocks, and
		// would leave a zombie if it came first.
		_ = f.SetReadDeadline(time.Time{})
		ended()
	}
	return true
}

func awaitBlocking(ctx context.Context, pid int) (late bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		exited(pid, 0)
	}()
	select {
	case <-done:
		return false
	case <-ctx.Done():
	}
	_ = unix.Kill(-pid, unix.SIGTERM)
	select {
	case <-done:
	case <-time.After(termGrace):
		_ = unix.Kill(-pid, unix.SIGKILL)
		<-done
	}
	return true
}

// exited says whether the process has ended; it stays a zombie.
func exited(pid, flags int) bool {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT|flags, nil)
		if err == unix.EINTR {
			continue
		}
		return err != nil || info.Signo != 0
	}
}
