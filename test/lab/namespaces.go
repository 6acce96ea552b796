package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespaces are those of one host, held by its first process: network, name,
// mounts, processes.
type namespaces struct {
	name   string
	holder *exec.Cmd
	stdin  io.Closer
	files  []nsFile
	net    *os.File
	nl     *netlink.Handle
}

type nsFile struct {
	*os.File
	kind int
}

// startNamespaces starts the first process of a host. Each mount is DIRECTORY=PLACE.
func startNamespaces(tool, name string, mounts []string) (_ *namespaces, err error) {
	n := &namespaces{name: name, holder: exec.Command(tool, append([]string{"hold", name}, mounts...)...)}
	n.holder.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Setsid:     true,
	}
	var said safeBuffer
	n.holder.Stderr = &said
	if n.stdin, err = n.holder.StdinPipe(); err != nil {
		return nil, fmt.Errorf("host %s: %w", name, err)
	}
	stdout, err := n.holder.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", name, err)
	}
	if err := n.holder.Start(); err != nil {
		return nil, fmt.Errorf("host %s: starting in new namespaces: %w", name, err)
	}
	defer func() {
		if err != nil {
			n.end()
		}
	}()
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		_ = n.holder.Wait() // it says itself why
		return nil, fmt.Errorf("host %s: its first process did not get ready (%v): %s", name, err, said.String())
	}
	// The mounts last: /proc changes with them.
	for _, k := range []struct {
		file string
		kind int
	}{{"net", unix.CLONE_NEWNET}, {"uts", unix.CLONE_NEWUTS}, {"pid", unix.CLONE_NEWPID}, {"mnt", unix.CLONE_NEWNS}} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", n.holder.Process.Pid, k.file))
		if err != nil {
			return nil, fmt.Errorf("host %s: %w", name, err)
		}
		n.files = append(n.files, nsFile{f, k.kind})
	}
	n.net = n.files[0].File
	if n.nl, err = netlink.NewHandleAt(netns.NsHandle(n.net.Fd()), unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("host %s: netlink: %w", name, err)
	}
	lo, err := n.nl.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("host %s: lo: %w", name, err)
	}
	if err := n.nl.LinkSetUp(lo); err != nil {
		return nil, fmt.Errorf("host %s: lo: %w", name, err)
	}
	return n, nil
}

// do runs f in the namespaces; processes that f starts belong to the host.
func (n *namespaces) do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with this goroutine, and nobody else gets it.
		runtime.LockOSThread()
		done <- func() error {
			// A thread that shares its root and working directory with others cannot change mounts.
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("host %s: unshare: %w", n.name, err)
			}
			for _, file := range n.files {
				if err := unix.Setns(int(file.Fd()), file.kind); err != nil {
					return fmt.Errorf("host %s: entering %s: %w", n.name, file.Name(), err)
				}
			}
			return f()
		}()
	}()
	return <-done
}

// kill ends every process of the host at once: the kernel does that when the
// first process of a PID namespace dies.
func (n *namespaces) kill() error {
	if err := n.holder.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// end kills, waits, and lets go of everything. A host that has ended has no namespaces.
func (n *namespaces) end() {
	_ = n.kill() // it may be gone already
	n.stdin.Close()
	_ = n.holder.Wait() // killed: that is its status
	if n.nl != nil {
		n.nl.Close()
	}
	for _, f := range n.files {
		f.Close()
	}
	n.files = nil
}
