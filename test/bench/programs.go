package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/keepbeat/keepbeat/test/lab"
)

// programs are the processes of a host, whoever started them, without the lab's
// own: its first process and the responder. Numbers are this machine's. of is any process of the host.
func programs(of *lab.Process) ([]int, error) {
	host, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", of.PID()))
	if err != nil {
		return nil, err
	}
	entries, err := filepath.Glob("/proc/[0-9]*/ns/pid")
	if err != nil {
		return nil, err
	}
	var all []int
	for _, e := range entries {
		// A process that ends meanwhile is none.
		if ns, err := os.Readlink(e); err != nil || ns != host {
			continue
		}
		dir := filepath.Dir(filepath.Dir(e))
		exe, err := os.Readlink(filepath.Join(dir, "exe"))
		if err != nil || filepath.Base(exe) == "labtool" {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return nil, err
		}
		all = append(all, pid)
	}
	return all, nil
}

// signalAll sends each the signal; who has ended meanwhile needs none.
func signalAll(pids []int, s syscall.Signal) error {
	var errs []error
	for _, pid := range pids {
		if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("%v to process %d: %w", s, pid, err))
		}
	}
	return errors.Join(errs...)
}
