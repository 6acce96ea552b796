package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// checkSystem is a program that keeps a table of real servers by checking them.
type checkSystem struct {
	name  string
	ours  bool
	needs string // a program that has to be installed; empty: it is ours
	// command makes the program's configuration, of n servers that are checked
	// every so often (whole seconds), and says how it is run.
	command func(t *lookout, n int, port uint16, every time.Duration) (*exec.Cmd, error)
}

// checkProcess is one that runs.
type checkProcess struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	log   *os.File
	ended chan error
}

func (s checkSystem) start(t *lookout, n int, port uint16, every time.Duration) (*checkProcess, error) {
	if s.needs != "" {
		if _, err := os.Stat(s.needs); err != nil {
			return nil, fmt.Errorf("%w; test/lab/deps.sh peers installs it", err)
		}
	}
	cmd, err := s.command(t, n, port, every)
	if err != nil {
		return nil, err
	}
	p := &checkProcess{cmd: cmd, ended: make(chan error, 1)}
	// In memory: a slow disk is not what is measured.
	log, err := unix.MemfdCreate("log", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	p.log = os.NewFile(uintptr(log), "log")
	cmd.Dir, cmd.Stdout, cmd.Stderr = t.dir, p.log, p.log
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, tableSocket+"="+t.socket())
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pdeathsig = true, syscall.SIGTERM
	if s.ours {
		cmd.Stdout = nil
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		p.out = bufio.NewReader(out)
		if p.in, err = cmd.StdinPipe(); err != nil {
			return nil, err
		}
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() { p.ended <- cmd.Wait() }()
	return p, nil
}

// alive is an error when the program has ended by itself.
func (p *checkProcess) alive() error {
	select {
	case err := <-p.ended:
		p.ended <- err
		return fmt.Errorf("it has ended: %v: %s", err, p.said())
	default:
		return nil
	}
}

// said is the end of what it has printed.
func (p *checkProcess) said() string {
	fi, err := p.log.Stat()
	if err != nil {
		return err.Error()
	}
	b := make([]byte, min(fi.Size(), 1000))
	n, _ := p.log.ReadAt(b, fi.Size()-int64(len(b)))
	return strings.TrimSpace(string(b[:n]))
}

// stop ends it as its service manager does.
func (p *checkProcess) stop() error {
	defer p.log.Close()
	group := -p.cmd.Process.Pid
	if p.in != nil {
		p.in.Close() // ours ends with its input
	} else if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.ended: // how is its own affair
	case <-time.After(patience):
		_ = syscall.Kill(group, syscall.SIGKILL)
		<-p.ended
	}
	// What it has left behind.
	if err := syscall.Kill(group, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

var keepbeatChecks = checkSystem{
	name: "keepbeat", ours: true,
	command: func(t *lookout, n int, port uint16, every time.Duration) (*exec.Cmd, error) {
		var b strings.Builder
		fmt.Fprintf(&b, "checkinterval: %v\nnegotiatetimeout: %v\nquiescent: no\nvirtual:\n  - address: %v\n    scheduler: wlc\n    service: http\n    request: /\n    receive: ok\n    real:\n",
			every, checkTimeout, service)
		for i := range n {
			fmt.Fprintf(&b, "      - %v:%d masq\n", serverAddress(i), port)
		}
		if err := os.WriteFile(filepath.Join(t.dir, poolFile), []byte(b.String()), 0o600); err != nil {
			return nil, err
		}
		args := []string{"pool", "-dir", t.dir}
		if t.kernel {
			args = append(args, "-kernel")
		}
		return exec.Command("/proc/self/exe", args...), nil
	},
}

var keepalivedChecks = checkSystem{
	name: "keepalived", needs: "/usr/sbin/keepalived",
	command: func(t *lookout, n int, port uint16, every time.Duration) (*exec.Cmd, error) {
		var b strings.Builder
		fmt.Fprintf(&b, "global_defs {\n\trouter_id bench\n}\nvirtual_server %v %d {\n\tdelay_loop %d\n\tlvs_sched wlc\n\tlvs_method NAT\n\tprotocol TCP\n",
			service.Addr(), service.Port(), every/time.Second)
		for i := range n {
			fmt.Fprintf(&b, `	real_server %v %d {
		weight 1
		HTTP_GET {
			url {
				path /
				status_code 200
				regex ok
			}
			connect_timeout %d
			retry 0
			delay_before_retry 1
		}
	}
`, serverAddress(i), port, checkTimeout/time.Second)
		}
		b.WriteString("}\n")
		path := filepath.Join(t.dir, "keepalived.conf")
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			return nil, err
		}
		cmd := exec.Command("/usr/sbin/keepalived", "--dont-fork", "--log-console", "--check", "--use-file", path,
			"--pid", filepath.Join(t.dir, "pid"), "--checkers_pid", filepath.Join(t.dir, "checkers.pid"))
		if !t.kernel {
			library, err := t.compile("preload.so", preloadSource, "-shared", "-fPIC")
			if err != nil {
				return nil, err
			}
			cmd.Env = append(os.Environ(), "LD_PRELOAD="+library)
		}
		return cmd, nil
	},
}

var ldirectordChecks = checkSystem{
	name: "ldirectord", needs: "/usr/sbin/ldirectord",
	command: func(t *lookout, n int, port uint16, every time.Duration) (*exec.Cmd, error) {
		var b strings.Builder
		fmt.Fprintf(&b, "checktimeout=%d\nnegotiatetimeout=%d\ncheckinterval=%d\nautoreload=no\nquiescent=no\nsupervised=yes\nlogfile=\"%s/ldirectord.log\"\nvirtual=%v\n",
			checkTimeout/time.Second, checkTimeout/time.Second, every/time.Second, t.dir, service)
		for i := range n {
			fmt.Fprintf(&b, "\treal=%v:%d masq\n", serverAddress(i), port)
		}
		b.WriteString("\tservice=http\n\trequest=\"/\"\n\treceive=\"ok\"\n\tscheduler=wlc\n\tprotocol=tcp\n\tchecktype=negotiate\n")
		path := filepath.Join(t.dir, "ldirectord.cf")
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			return nil, err
		}
		// It keeps a file in /run, which it gets to itself, and has ipvsadm by its path.
		script := "mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir -p /run/lock/subsys && "
		if !t.kernel {
			program, err := t.compile("ipvsadm", ipvsadmSource)
			if err != nil {
				return nil, err
			}
			script += "mount --bind " + program + " /usr/sbin/ipvsadm && "
		}
		cmd := exec.Command("sh", "-c", script+`exec /usr/sbin/ldirectord "$0" start`, path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		return cmd, nil
	},
}
