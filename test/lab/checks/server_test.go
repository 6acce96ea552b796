package checks

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// startLimit is how long a server may take until it listens. Databases on a
// busy machine take most of it.
const startLimit = 2 * time.Minute

// program is how a server is started.
type program struct {
	args []string // the first is looked up in PATH and the sbin directories; it has to stay in the foreground
	env  []string // NAME=value, beside PATH and LANG
	user string   // whom it runs as; empty: root
	port uint16   // TCP port on 127.0.0.1 that it listens on when it is ready; 0: see ready
	// ready says whether it serves; nil: when port accepts connections. Called until it returns nil.
	ready func() error
}

// server is a running program with all its children.
type server struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended; err is set before
	err  error
}

// startServer starts a program and waits until it serves. It ends with the
// test, children and all: they share a process namespace, and its first process
// dies with the test.
func startServer(t *testing.T, p program) *server {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatalf("servers are started in namespaces and as their own users, which needs root; this is user %d", os.Geteuid())
	}
	s := &server{t: t, name: filepath.Base(p.args[0]), done: make(chan struct{})}
	path, err := lookPath(p.args[0])
	if err != nil {
		t.Fatalf("%v; test/lab/deps.sh checks installs what these tests need", err)
	}
	// A shell is the namespace's first process. A server in its place would lose
	// Pdeathsig as soon as it changes its user, and be handed orphans, of which
	// some servers die.
	s.cmd = exec.Command("/bin/sh", append([]string{"-c", `"$@" & wait "$!"`, "sh", path}, p.args[1:]...)...)
	s.cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}, p.env...)
	s.cmd.Dir = "/"
	s.cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, Pdeathsig: syscall.SIGKILL,
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWIPC,
	}
	if p.user != "" {
		s.cmd.SysProcAttr.Credential = credential(t, p.user)
	}
	log, err := os.Create(filepath.Join(directory(t), s.name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s.log, s.cmd.Stdout, s.cmd.Stderr = log.Name(), log, log
	started := make(chan error)
	go func() {
		// Pdeathsig is sent when the thread that started the child ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			s.err = s.cmd.Wait()
			close(s.done)
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("starting %s: %v", s.name, err)
	}
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("the end of what %s said:\n%s", s.name, s.said())
		}
	})
	if p.ready == nil {
		p.ready = listening(p.port)
	}
	s.waitUntil(p.ready)
	return s
}

// lookPath finds a program also where only root looks.
func lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if p := filepath.Join(dir, name); unix.Access(p, unix.X_OK) == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s is not installed", name)
}

func credential(t *testing.T, name string) *syscall.Credential {
	t.Helper()
	uid, gid := ids(t, name)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// ids are the user and the group of a name in the user database.
func ids(t *testing.T, name string) (uid, gid int) {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	if uid, err = strconv.Atoi(u.Uid); err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	if err != nil {
		t.Fatal(err)
	}
	return uid, gid
}

func listensAt(a netip.AddrPort) error {
	c, err := net.DialTimeout("tcp", a.String(), time.Second)
	if err == nil {
		c.Close()
	}
	return err
}

// listening is ready when all of the ports are.
func listening(ports ...uint16) (ready func() error) {
	return func() error {
		for _, port := range ports {
			if err := listensAt(local(port)); err != nil {
				return err
			}
		}
		return nil
	}
}

// waitUntil asks until the server is ready.
func (s *server) waitUntil(ready func() error) {
	s.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(startLimit)
	for {
		err := ready()
		if err == nil {
			return
		}
		select {
		case <-s.done:
			s.t.Fatalf("%s ended instead of serving: %v", s.name, s.err)
		case <-limit:
			s.t.Fatalf("%s does not serve after %v: %v", s.name, startLimit, err)
		case <-tick.C:
		}
	}
}

// said is the end of its standard output and error.
func (s *server) said() string {
	b, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-8<<10):])
}

// kill ends the server and everything that it has started, and waits for that.
func (s *server) kill() {
	// The kernel kills a process namespace with its first process, and only
	// when all are gone does Wait return.
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Errorf("ending %s: %v", s.name, err)
	}
	<-s.done
}

// freeze stops the server and everything that it has started, as a hang: the
// kernel goes on accepting connections for it.
func (s *server) freeze() {
	s.t.Helper()
	own := s.namespace(s.cmd.Process.Pid)
	if own == "" {
		s.t.Fatalf("%s has ended", s.name)
	}
	for running := true; running; { // until a round finds none that had been started since
		running = false
		for _, pid := range processes(s.t) {
			if s.namespace(pid) == own && !stopped(pid) {
				running = true
				if err := unix.Kill(pid, unix.SIGSTOP); err != nil && err != unix.ESRCH {
					s.t.Fatalf("stopping %d of %s: %v", pid, s.name, err)
				}
			}
		}
	}
}

// namespace is the process namespace of a process, or empty when it is gone.
func (s *server) namespace(pid int) string {
	n, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		return ""
	}
	return n
}

func processes(t *testing.T) (pids []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// stopped says whether a process is stopped, or dead.
func stopped(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	// proc(5): the state follows the name in brackets, which may hold brackets.
	state := b[bytes.LastIndexByte(b, ')')+2:]
	return state[0] == 'T' || state[0] == 'Z' || state[0] == 'X'
}
