package program

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// User is whom a program runs as.
type User struct {
	Credential *syscall.Credential // nil: the daemon's own user
	Env        []string            // HOME, and who it is
}

// UID is the number of the user.
func (r User) UID() uint32 {
	if r.Credential == nil {
		return uint32(os.Geteuid())
	}
	return r.Credential.Uid
}

// FindUser looks a user up, by name or number, with all groups of it. Empty
// is the daemon's user.
func FindUser(name string) (User, error) {
	if name == "" {
		return User{Env: []string{"HOME=/"}}, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		if _, bad := strconv.ParseUint(name, 10, 32); bad == nil {
			u, err = user.LookupId(name)
		}
	}
	var unknown user.UnknownUserError
	var unknownID user.UnknownUserIdError
	switch {
	case errors.As(err, &unknown), errors.As(err, &unknownID):
		return User{}, fmt.Errorf("user %s: there is none in /etc/passwd of this node", name)
	case err != nil:
		return User{}, fmt.Errorf("user %s: %w", name, err)
	}
	r := User{Env: []string{"HOME=" + u.HomeDir, "USER=" + u.Username, "LOGNAME=" + u.Username}}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return User{}, fmt.Errorf("user %s: uid %s: %w", name, u.Uid, err)
	}
	if int(uid) == os.Geteuid() {
		return r, nil
	}
	if os.Geteuid() != 0 {
		return User{}, fmt.Errorf("user %s: only root can run a program as somebody else", name)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return User{}, fmt.Errorf("user %s: gid %s: %w", name, u.Gid, err)
	}
	r.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	groups, err := u.GroupIds()
	if err != nil {
		return User{}, fmt.Errorf("groups of user %s: %w", name, err)
	}
	for _, g := range groups {
		n, err := strconv.ParseUint(g, 10, 32)
		if err != nil {
			return User{}, fmt.Errorf("user %s: gid %s: %w", name, g, err)
		}
		r.Credential.Groups = append(r.Credential.Groups, uint32(n))
	}
	return r, nil
}
