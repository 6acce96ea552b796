package checks

import "golang.org/x/sys/unix"

// reservedFDs are left to the rest of the daemon.
const reservedFDs = 256

// Descriptors returns how many descriptors checks may use at once: the
// process's limit (RLIMIT_NOFILE, which the Go runtime raises to the hard limit
// at start) without what the rest of the daemon needs, at least half of it.
func Descriptors() int {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 1024 - reservedFDs
	}
	n := int(min(r.Cur, 1<<24))
	return max(n-reservedFDs, n/2, 1)
}
