package api

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Groups name who may use the socket besides root; empty: nobody.
type Groups struct {
	Read  string // socket_group: may look
	Admin string // admin_group: may also give orders
}

// right is what somebody may do at the socket.
type right uint8

// Rights. A request that is neither GET nor HEAD is an order, whatever its path.
const (
	nothing right = iota
	look
	order
)

// access decides who may do what. Nothing else does: the mode of the socket
// only spares the daemon some of those that it would refuse.
type access struct {
	groups      Groups
	self        int // the user of the daemon
	read, admin int // group ids; -1: none
}

// Check says whether this machine has the groups.
func (g Groups) Check() error {
	_, err := newAccess(g)
	return err
}

func newAccess(g Groups) (access, error) {
	a := access{groups: g, self: os.Geteuid(), read: -1, admin: -1}
	for _, x := range []struct {
		key, name string
		id        *int
	}{{"socket_group", g.Read, &a.read}, {"admin_group", g.Admin, &a.admin}} {
		if x.name == "" {
			continue
		}
		found, err := user.LookupGroup(x.name)
		if errors.As(err, new(user.UnknownGroupError)) {
			return a, fmt.Errorf("%s: this machine has no group %q: make it (groupadd --system %s), or name one that is there", x.key, x.name, x.name)
		}
		if err != nil {
			return a, fmt.Errorf("%s %s: %w", x.key, x.name, err)
		}
		if *x.id, err = strconv.Atoi(found.Gid); err != nil {
			return a, fmt.Errorf("%s %s: %w", x.key, x.name, err)
		}
	}
	return a, nil
}

// mode returns the socket's mode and group (-1: as it is). With two groups the
// kernel cannot tell strangers from members without an ACL, so everybody may connect.
func (a access) mode() (os.FileMode, int) {
	switch {
	case a.read < 0 && a.admin < 0:
		return 0o600, -1
	case a.read < 0 || a.admin < 0 || a.read == a.admin:
		return 0o660, max(a.read, a.admin)
	}
	return 0o666, -1
}

// peer is who is at the other end of a connection, as it was when he connected.
type peer struct {
	uid  int   // -1: the kernel does not say; he may do nothing
	gids []int // also supplementary ones
}

func (a access) of(p peer) right {
	in := func(gid int) bool { return gid >= 0 && slices.Contains(p.gids, gid) }
	switch {
	case p.uid < 0:
		return nothing
	case p.uid == 0 || p.uid == a.self || in(a.admin):
		return order
	case in(a.read):
		return look
	}
	return nothing
}

// refusal says in words who may do what p may not.
func (a access) refusal(p peer, need right) string {
	who := []string{"root"}
	if a.groups.Admin != "" {
		who = append(who, "members of group "+a.groups.Admin+" (admin_group)")
	}
	if need == look && a.groups.Read != "" {
		who = append(who, "members of group "+a.groups.Read+" (socket_group)")
	}
	if need == look {
		return fmt.Sprintf("only %s may look here; this is %s (a group counts from the next login on)", strings.Join(who, " and "), userName(p.uid))
	}
	hint := ""
	if a.groups.Admin == "" {
		hint = "; admin_group: in ha.yaml names a group that may, too"
	}
	return fmt.Sprintf("only %s may give orders; this is %s%s", strings.Join(who, " and "), userName(p.uid), hint)
}

// userName is how decisions name a user: "alice", or "user 1000" when the
// system has no name, or an odd one, for him.
func userName(uid int) string {
	if uid < 0 {
		return "nobody that the kernel knows"
	}
	odd := func(c rune) bool { return c <= ' ' || c > '~' }
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil || u.Username == "" || len(u.Username) > 64 || strings.ContainsFunc(u.Username, odd) {
		return "user " + strconv.Itoa(uid)
	}
	return u.Username
}

// peerOf asks the kernel who connected (unix(7), SO_PEERCRED and SO_PEERGROUPS).
func peerOf(c net.Conn) peer {
	p := peer{uid: -1}
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return p
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return p
	}
	_ = raw.Control(func(fd uintptr) { // an error leaves nobody
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return
		}
		p = peer{int(cred.Uid), []int{int(cred.Gid)}}
		more, err := peerGroups(int(fd))
		if errors.Is(err, unix.ENOPROTOOPT) { // before Linux 4.13
			more = groupsOf(p.uid)
		}
		p.gids = append(p.gids, more...)
	})
	return p
}

// peerGroups returns the supplementary groups of the other end.
func peerGroups(fd int) ([]int, error) {
	buf := make([]uint32, 64)
	for {
		size := uint32(4 * len(buf))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == unix.ERANGE && int(size) > 4*len(buf) && size <= 4*65536: // NGROUPS_MAX
			buf = make([]uint32, size/4)
			continue
		case errno != 0:
			return nil, errno
		}
		var all []int
		for _, g := range buf[:min(int(size/4), len(buf))] {
			all = append(all, int(g))
		}
		return all, nil
	}
}

// groupsOf reads the groups of a user from the system's files.
func groupsOf(uid int) []int {
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return nil
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil
	}
	var all []int
	for _, id := range ids {
		if g, err := strconv.Atoi(id); err == nil {
			all = append(all, g)
		}
	}
	return all
}
