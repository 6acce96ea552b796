package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// serverAddress is that of server i: all of 127.0.0.0/8 is this machine.
func serverAddress(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)})
}

// servers is the process that answers for all real servers.
type servers struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	port uint16
}

func startServers() (*servers, error) {
	s := &servers{cmd: exec.Command("/proc/self/exe", "httpd")}
	s.cmd.Stderr = os.Stderr
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.out = bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	var port int
	if port, err = s.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("the real servers have not started: %w", err), s.stop())
	}
	s.port = uint16(port)
	return s, nil
}

func (s *servers) read() (int, error) {
	line, err := s.out.ReadString('\n')
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(line))
}

// fail makes the first n servers answer 500, and returns when they do.
func (s *servers) fail(n int) error {
	_, err := s.order("fail", n)
	return err
}

// answered is how many requests were answered until now.
func (s *servers) answered() (int, error) { return s.order("answered", 0) }

func (s *servers) order(what string, n int) (int, error) {
	if _, err := fmt.Fprintln(s.in, what, n); err != nil {
		return 0, err
	}
	return s.read()
}

func (s *servers) stop() error {
	s.in.Close() // it ends with its input
	return s.cmd.Wait()
}

// httpd is the real servers: one process that answers on all of 127.0.0.0/8. It
// prints its port, then obeys "fail N" and "answered 0", until its input ends.
func httpd(context.Context, []string) (any, error) {
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex // guards failed
	failed := map[netip.Addr]bool{}
	var answered atomic.Int64
	answer := func(status string) []byte {
		return []byte("HTTP/1.1 " + status + "\r\nServer: bench\r\nContent-Type: text/html\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")
	}
	good, bad := answer("200 OK"), answer("500 Internal Server Error")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
					return
				}
				mu.Lock()
				sick := failed[c.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()]
				mu.Unlock()
				what := good
				if sick {
					what = bad
				}
				if _, err := c.Write(what); err == nil {
					answered.Add(1)
				}
			}()
		}
	}()
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var what string
		var n int
		if _, err := fmt.Sscan(in.Text(), &what, &n); err != nil {
			return nil, err
		}
		if what == "answered" {
			fmt.Println(answered.Load())
			continue
		}
		mu.Lock()
		for i := range n {
			failed[serverAddress(i)] = true
		}
		mu.Unlock()
		fmt.Println(n)
	}
	return nil, l.Close()
}
