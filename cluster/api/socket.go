package api

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// SocketName is the socket's name in the run directory.
const SocketName = "control.sock"

// Bounds on connections that are open at once: who may connect cannot keep
// others out, or make the daemon run out of descriptors.
const (
	maxOfUser    = 32  // of one user who is not root
	maxOfGroups  = 128 // of all members of the two groups
	maxStrangers = 16  // of all who may do nothing: they are told so and let go
	maxOfRoot    = 512
)

// Socket is the control socket.
type Socket struct {
	net.Listener
	access access

	mu    sync.Mutex // guards what follows
	users map[int]int
	total map[string]int
}

// Listen makes the socket. A stale one is removed; one that answers belongs to a daemon that runs.
func Listen(dir string, groups Groups) (*Socket, error) {
	a, err := newAccess(groups)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, SocketName)
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("%s answers: another keepbeat runs here; stop it first", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	mode, gid := a.mode()
	if gid >= 0 {
		err = os.Chown(path, -1, gid)
	}
	if err = errors.Join(err, os.Chmod(path, mode)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &Socket{Listener: l, access: a, users: map[int]int{}, total: map[string]int{}}, nil
}

// conn is a connection whose other end is known.
type conn struct {
	net.Conn
	peer peer
	free func()
}

func (c *conn) Close() error {
	c.free()
	return c.Conn.Close()
}

// Accept waits for somebody who has not too many connections already.
func (s *Socket) Accept() (net.Conn, error) {
	for {
		c, err := s.Listener.Accept()
		if err != nil {
			return nil, err
		}
		p := peerOf(c)
		class, ok := s.take(p)
		if !ok {
			// One small write that cannot block; whether it is still read is the other's affair.
			_ = c.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = fmt.Fprint(c, tooMany)
			c.Close()
			continue
		}
		return &conn{c, p, sync.OnceFunc(func() { s.give(p, class) })}, nil
	}
}

const (
	tooManyBody = `{"error":"too many connections to the control socket are open: end some of those commands"}`
	tooMany     = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + tooManyBody
)

func (s *Socket) take(p peer) (class string, ok bool) {
	limit, ofUser := 0, maxOfUser
	switch s.access.of(p) {
	case nothing:
		class, limit = "stranger", maxStrangers
	default:
		class, limit = "group", maxOfGroups
		if p.uid == 0 || p.uid == s.access.self {
			class, limit, ofUser = "root", maxOfRoot, maxOfRoot
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total[class] >= limit || s.users[p.uid] >= ofUser {
		return class, false
	}
	s.total[class]++
	s.users[p.uid]++
	return class, true
}

func (s *Socket) give(p peer, class string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total[class]--
	if s.users[p.uid]--; s.users[p.uid] == 0 {
		delete(s.users, p.uid)
	}
}
