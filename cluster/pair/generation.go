// Package pair decides for a cluster of two, where neither node is a majority:
// when one may go on without the other, when it may take the other's groups,
// and which history counts when they meet again. Decide is pure; the store
// keeps what must outlive the process.
package pair

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/cluster/checksum"
	"github.com/keepbeat/keepbeat/conf"
)

// Generation tells the histories of a pair apart. A survivor opens a new one:
// the counter grows and the id is random, so that two nodes which both survived
// the same generation can be told apart too. The zero value is the first.
type Generation struct {
	Counter uint64 `json:"counter"`
	ID      string `json:"id,omitempty"` // 8 hex digits; empty: of the first
}

// Next returns the generation that a survivor of g and other opens.
func (g Generation) Next(other Generation) (Generation, error) {
	var b [4]byte
	if _, err := rand.Read(b[:]); err != nil {
		return Generation{}, err
	}
	return Generation{max(g.Counter, other.Counter) + 1, hex.EncodeToString(b[:])}, nil
}

// Suffix is what a server id carries of the generation: empty for the first.
func (g Generation) Suffix() string {
	if g.Counter == 0 {
		return ""
	}
	return fmt.Sprintf("/%d.%s", g.Counter, g.ID)
}

// Rival says whether both have been opened over the same one: neither knows more.
func (g Generation) Rival(other Generation) bool { return g.Counter == other.Counter && g != other }

func (g Generation) String() string {
	if g.Counter == 0 {
		return "0"
	}
	return fmt.Sprintf("%d.%s", g.Counter, g.ID)
}

// Record is what a node of a pair keeps on disk.
type Record struct {
	Current Generation `json:"current"`
	// Contested names the peer that this node survived, as long as that has not
	// come back into this generation: it may believe in an older one and, where
	// the rule lets it, act.
	Contested string `json:"contested,omitempty"`
	// Rule is the one by which it was survived. It holds as long as Contested does,
	// whatever the log says: that may have come to hold another with the generation, of
	// which the peer knows nothing. Empty in a record of an earlier version: the log's.
	Rule string `json:"rule,omitempty"`
	// Force says that the log still has to be given the configuration of the
	// generation: this node alone.
	Force bool `json:"force,omitempty"`
	// Forced says that the generation was opened by a node that did not vote: by all that
	// the survived peer knows it is the only voter, so it would act when it is started and
	// does not hear this node. It is switched off, and never on, until it has come back.
	Forced bool `json:"forced,omitempty"`
	// Discard says that the log belongs to an older generation and is to be put aside.
	Discard bool `json:"discard,omitempty"`
	// RuleEnded says that a third node has been let in: until the log says otherwise
	// no rule of a pair is in force, whatever ha.yaml has.
	RuleEnded bool `json:"rule_ended,omitempty"`
	// RuleBegan says that this node has applied a change of nodes after which only two
	// vote. With neither, ha.yaml says whether there is a rule: what stands in the log
	// and may never be committed does not.
	RuleBegan bool `json:"rule_began,omitempty"`
	// Intent is the generation that this node is about to open: recorded before a
	// fencing device is asked. One that is found at a start was not completed.
	Intent *Intent `json:"intent,omitempty"`
	// How says in words how the current generation came about.
	How string `json:"how,omitempty"`
}

// Intent is a survival that is under way.
type Intent struct {
	Generation Generation `json:"generation"`
	Peer       string     `json:"peer"`
	At         time.Time  `json:"at"` // wall clock, for people
}

// Store keeps a Record. Save returns only when it is on disk.
type Store interface{ Save(Record) error }

// File is a Store in one file, replaced atomically.
type File struct{ Path string }

const maxRecord = 64 << 10

// Load reads the record; one of an earlier version gets its checksum at once. A
// missing file is the first generation.
func (f File) Load() (Record, error) {
	b, err := os.ReadFile(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, nil
	}
	if err != nil {
		return Record{}, err
	}
	r, sealed, err := decode(b)
	if err != nil {
		return r, fmt.Errorf("%s: damaged: %w; move the data directory away and start again: the node then rejoins as a new one", f.Path, err)
	}
	if !sealed {
		return r, f.Save(r)
	}
	return r, nil
}

func decode(b []byte) (r Record, sealed bool, err error) {
	if len(b) > maxRecord {
		return r, false, errors.New("too large")
	}
	if b, sealed, err = checksum.Open(b); err != nil {
		return r, sealed, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return Record{}, sealed, err
	}
	if d.More() {
		return Record{}, sealed, errors.New("something follows the record")
	}
	gens := []Generation{r.Current}
	if r.Intent != nil {
		gens = append(gens, r.Intent.Generation)
	}
	for _, g := range gens {
		if !g.valid() {
			return Record{}, sealed, fmt.Errorf("%q is no generation", g.String())
		}
	}
	if _, known := r.rule(); !known {
		return Record{}, sealed, fmt.Errorf("%q is no rule of a pair", r.Rule)
	}
	return r, sealed, nil
}

// Survived returns the peer that this node has survived and that has not come
// back, and the rule by which that was, 0 when the record does not say; empty: there is none.
func (r Record) Survived() (peer string, rule conf.Quorum) {
	rule, _ = r.rule()
	return r.Contested, rule
}

func (r Record) rule() (rule conf.Quorum, known bool) {
	for _, q := range []conf.Quorum{conf.QuorumFencing, conf.QuorumPing, conf.QuorumUnsafe} {
		if q.String() == r.Rule {
			return q, true
		}
	}
	return 0, r.Rule == ""
}

func (g Generation) valid() bool {
	if g.Counter == 0 {
		return g.ID == ""
	}
	return len(g.ID) == 8 && strings.Trim(g.ID, "0123456789abcdef") == ""
}

// Valid says whether a generation that another node told is one.
func (g Generation) Valid() bool { return g.valid() }

// Save implements Store: write beside, fsync, rename, fsync the directory.
func (f File) Save(r Record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	tmp := f.Path + ".new"
	w, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = w.Write(checksum.Seal(b)); err == nil {
		err = w.Sync()
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, f.Path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(f.Path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Memory is a Store for simulations: it outlives the node that writes it.
type Memory struct{ Record Record }

// Save implements Store.
func (m *Memory) Save(r Record) error {
	if r.Intent != nil {
		i := *r.Intent
		r.Intent = &i
	}
	m.Record = r
	return nil
}
