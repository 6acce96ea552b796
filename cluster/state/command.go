package state

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// ID names a command, so that it is applied once however often it is sent.
type ID struct {
	Node string `json:"node"`
	Boot uint64 `json:"boot"`
	N    uint64 `json:"n"` // grows with each command of that boot, from 1
}

// Command is one entry of the log. Exactly one of the pointers is set.
type Command struct {
	ID ID        `json:"id"`
	At time.Time `json:"at"` // proposer's wall clock: for people, never compared

	Admit     *Admit     `json:"admit,omitempty"`
	Leave     *Leave     `json:"leave,omitempty"`
	Revoke    *Revoke    `json:"revoke,omitempty"`
	Assign    *Assign    `json:"assign,omitempty"`
	Hand      *Hand      `json:"hand,omitempty"`
	Started   *Started   `json:"started,omitempty"`
	Stopped   *Stopped   `json:"stopped,omitempty"`
	Blocked   *Blocked   `json:"blocked,omitempty"`
	Problems  *Problems  `json:"problems,omitempty"`
	Forgive   *Forgive   `json:"forgive,omitempty"`
	LongLease *LongLease `json:"long_lease,omitempty"`
	Armed     *Armed     `json:"armed,omitempty"`
	Spec      *SetSpec   `json:"spec,omitempty"`
	Reals     *SetReals  `json:"reals,omitempty"`
	Fence     *Fence     `json:"fence,omitempty"`
	Fenced    *Fenced    `json:"fenced,omitempty"`
	Members   *Members   `json:"members,omitempty"`
	Upgrade   *Upgrade   `json:"upgrade,omitempty"`
	Note      *Note      `json:"note,omitempty"`
	Probe     *struct{}  `json:"probe,omitempty"` // changes nothing: shows that the disk of a majority works
}

// Admit asks for a new incarnation: at each start of a daemon, and when a
// minority has revoked the present one.
type Admit struct {
	Node     string `json:"node"`
	ID       string `json:"id"` // server id with the data directory's UUID
	Boot     uint64 `json:"boot"`
	Director bool   `json:"director"`
	// After is the incarnation that the node had when it asked (0 at its
	// start): a repeated request does not raise it twice.
	After uint64 `json:"after"`
	// Running says that the node has not stopped what it runs: then it gets a
	// new incarnation only while the one it has still counts (rule 8).
	Running bool `json:"running,omitempty"`
	// Clean says that nothing runs on the node, whatever daemon started it.
	Clean bool `json:"clean,omitempty"`
	// Format is the newest that its program knows; 0: 1.
	Format int `json:"format,omitempty"`
}

// Leave ends an incarnation whose groups have all been reported stopped: a clean stop.
type Leave struct {
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
}

// Revoke ends an incarnation that a majority of voters has revoked and moves its groups.
type Revoke struct {
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	Why         string `json:"why"`
	// Voters is the index of the configuration whose majority has revoked; it
	// must still be in force: a deposed leader may not know the newest. 0: not compared.
	Voters uint64 `json:"voters,omitempty"`
	Moves  []Move `json:"moves"` // where its groups go; those not named have no owner
}

// Move is a change of a group's owner. It applies only if owner, epoch and
// incarnations are still what the proposer saw.
type Move struct {
	Group         string `json:"group"`
	Owner         string `json:"owner"`       // seen
	Epoch         uint64 `json:"epoch"`       // seen
	Incarnation   uint64 `json:"incarnation"` // of Owner, seen
	To            string `json:"to"`
	ToIncarnation uint64 `json:"to_incarnation"`
	Reason        string `json:"reason"`
	Manual        bool   `json:"manual,omitempty"` // an operator's choice
}

// Assign names owners for groups that have none.
type Assign struct {
	Moves []Move `json:"moves"`
}

// Hand begins planned moves: the owner stops, reports, and the target starts.
type Hand struct {
	Moves []Move `json:"moves"`
}

// Started reports that every resource of the group runs on its owner.
type Started struct {
	Group       string `json:"group"`
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	Epoch       uint64 `json:"epoch"`
	// Version is that of the specification beyond which nothing of the group
	// runs there any more; 0: something of an earlier one may.
	Version uint64 `json:"version,omitempty"`
}

// Stopped reports that the owner has stopped the group and will not act under that epoch again.
type Stopped struct {
	Group       string `json:"group"`
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	Epoch       uint64 `json:"epoch"`
	// Failure, when a failed start or monitor was the reason; Count is ignored.
	Failure *Failure `json:"failure,omitempty"`
}

// Blocked reports a stop that failed.
type Blocked struct {
	Group       string `json:"group"`
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	Epoch       uint64 `json:"epoch"`
	Why         string `json:"why"`
}

// Problems reports for which groups a node is not ready; it replaces the report before.
type Problems struct {
	Node        string            `json:"node"`
	Incarnation uint64            `json:"incarnation"`
	Problems    map[string]string `json:"problems"`
	Unsettled   map[string]string `json:"unsettled,omitempty"` // see Node.Unsettled
}

// Forgive lets a node that failed a group be tried again.
type Forgive struct {
	Group string    `json:"group"`
	Node  string    `json:"node"`
	Until time.Time `json:"until"` // of the failure that is meant
	Why   string    `json:"why"`
}

// Armed says that the daemon of a boot has armed the node's watchdog, and that it
// resets the machine within Timeout of being fed last; 0: it is not armed.
type Armed struct {
	Node    string        `json:"node"`
	Boot    uint64        `json:"boot"`
	Timeout time.Duration `json:"timeout"`
	Within  time.Duration `json:"within"` // of the node's last sign of life, by the specification that it follows
}

// LongLease announces the lease before a planned restart, so that the leader changes
// no voter meanwhile. Length 0 takes that back, when the lease is the usual one again.
type LongLease struct {
	Node        string        `json:"node"`
	Incarnation uint64        `json:"incarnation"`
	Length      time.Duration `json:"length"`
}

// SetSpec makes a specification the next version if the present one is Base.
type SetSpec struct {
	Base  uint64            `json:"base"`
	From  string            `json:"from"`
	By    string            `json:"by,omitempty"` // user who applied it; empty: the daemon by itself
	Spec  *conf.Spec        `json:"spec"`
	Files map[string][]byte `json:"files"`
}

// Result is what a command came to.
type Result struct {
	// Refused says why nothing (or, with several moves, nothing at all of one
	// move) was changed; empty: done.
	Refused string `json:"refused,omitempty"`
	// Number is the new incarnation (Admit), the new version (SetSpec), the moves applied (Assign, Hand, Revoke).
	Number uint64 `json:"number,omitempty"`
	// Index is where the command stands in the log: who waits for its effect
	// waits until its own state has come there.
	Index uint64 `json:"index,omitempty"`
}

// Err returns Refused as an error, nil when it is empty.
func (r Result) Err() error {
	if r.Refused == "" {
		return nil
	}
	return &RefusedError{Why: r.Refused}
}

// RefusedError is a command that was applied and refused: repeating it does not help.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return e.Why }

// compressAbove is the size from which a command is compressed in the log.
const compressAbove = 512 << 10

// maxCommand bounds a decoded command: a specification of 37,000 real servers is about 20 MiB.
const maxCommand = 128 << 20

// Encode returns the command as it stands in the log.
func (c Command) Encode() ([]byte, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	if len(b) < compressAbove {
		return b, nil
	}
	var z bytes.Buffer
	w, _ := gzip.NewWriterLevel(&z, gzip.BestSpeed)
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return z.Bytes(), nil
}

// Decode reads what Encode wrote.
func Decode(b []byte) (Command, error) {
	var c Command
	if len(b) > 1 && b[0] == 0x1f && b[1] == 0x8b {
		r, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return c, fmt.Errorf("compressed command: %w", err)
		}
		if b, err = io.ReadAll(io.LimitReader(r, maxCommand+1)); err != nil {
			return c, fmt.Errorf("compressed command: %w", err)
		}
		if len(b) > maxCommand {
			return c, errors.New("command is too large")
		}
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("command: %w", err)
	}
	return c, nil
}
