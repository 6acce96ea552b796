package checks

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// runner is whom a program runs as.
type runner struct {
	credential *syscall.Credential // nil: the daemon's own user
	env        []string
}

func (r runner) uid() uint32 {
	if r.credential == nil {
		return uint32(os.Geteuid())
	}
	return r.credential.Uid
}

// findRunner looks a user up, by name or number, with all groups of it. Empty
// is the daemon's user.
func findRunner(name string) (runner, error) {
	if name == "" {
		return runner{env: []string{"HOME=/"}}, nil
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
		return runner{}, fmt.Errorf("user %s: there is none in /etc/passwd of this node", name)
	case err != nil:
		return runner{}, fmt.Errorf("user %s: %w", name, err)
	}
	r := runner{env: []string{"HOME=" + u.HomeDir, "USER=" + u.Username, "LOGNAME=" + u.Username}}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return runner{}, fmt.Errorf("user %s: uid %s: %w", name, u.Uid, err)
	}
	if int(uid) == os.Geteuid() {
		return r, nil
	}
	if os.Geteuid() != 0 {
		return runner{}, fmt.Errorf("user %s: only root can run a program as somebody else", name)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return runner{}, fmt.Errorf("user %s: gid %s: %w", name, u.Gid, err)
	}
	r.credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	groups, err := u.GroupIds()
	if err != nil {
		return runner{}, fmt.Errorf("groups of user %s: %w", name, err)
	}
	for _, g := range groups {
		n, err := strconv.ParseUint(g, 10, 32)
		if err != nil {
			return runner{}, fmt.Errorf("user %s: gid %s: %w", name, g, err)
		}
		r.credential.Groups = append(r.credential.Groups, uint32(n))
	}
	return r, nil
}
