package checks

import (
	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

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

// cost is how many descriptors one run of a check needs at once.
func cost(c conf.Check) int {
	switch {
	case c.Type == conf.On, c.Type == conf.Off:
		return 0
	case c.Type == conf.External:
		return externalFDs
	case c.Type == conf.Negotiate && c.Service == "ftp":
		return 2 // the file comes over a connection of its own
	}
	return 1
}

// Need returns how many descriptors the checks of a configuration need at once
// at worst: when no server answers, every distinct check waits for its time-out
// at the same time, since the first round comes within a tenth of the interval.
// With less than that (see Descriptors) checks wait for each other just when
// many servers have failed, and failures are found late.
func Need(all []conf.Check) int {
	n, seen := 0, make(map[conf.Check]bool, len(all))
	for _, c := range all {
		if !seen[c] {
			seen[c] = true
			n += cost(c)
		}
	}
	return n
}
