// Package notify tells people and programs what has become of a pool: it runs
// hooks, sends mail and writes monitor files, and never holds up who tells it.
package notify

import "os"

// PID is this process, as ldirectord writes it into monitor files.
var PID = os.Getpid()
