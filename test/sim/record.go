package sim

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/lease"
	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/cluster/state"
)

// recording is what went into the pure cores of one daemon, and what came out.
type recording struct {
	Node  string `json:"node"`
	Start int    `json:"start"` // which of its daemons

	w    *world
	disk *disk // of this daemon

	mu       sync.Mutex // guards what follows
	calls    []call
	log      logged
	phase    pair.Phase // decided last
	halted   bool       // so it was when it decided last, with an intent
	survives string     // the peer that may get no promise now
	instant  time.Time  // when a command was applied last
	many     int        // how many were, at that instant
}

// call is one entry of a recording. Exactly one of these is there.
type call struct {
	Lease   *lease.Call `json:"lease,omitempty"`
	Applied *applied    `json:"applied,omitempty"`
	Voters  *voters     `json:"voters,omitempty"`
	// Restored is the state that a snapshot had: it goes on from there.
	Restored json.RawMessage `json:"restored,omitempty"`
	Decided  *decided        `json:"decided,omitempty"`
	State    *looked         `json:"state,omitempty"`
}

type applied struct {
	Index  uint64       `json:"index"`
	Cmd    []byte       `json:"cmd"`
	Result state.Result `json:"result"`
}

type voters struct {
	Index uint64   `json:"index"`
	IDs   []string `json:"ids"`
}

type decided struct {
	Facts    pair.Facts    `json:"facts"`
	Decision pair.Decision `json:"decision"`
}

// looked is what the state was when the simulation looked at it.
type looked struct {
	Index uint64 `json:"index"`
	Sum   string `json:"sum"`

	st *state.State // what Sum is made of, when it is written
}

var _ cluster.Recorder = (*recording)(nil)

// recorded begins the recording of a daemon.
func (w *world) recorded(m *machine) *recording {
	r := &recording{Node: m.name, Start: m.starts, w: w, disk: m.diskNow()}
	r.log = r.disk.logged(logged{})
	r.log.at = time.Time{}
	w.recordings = append(w.recordings, r)
	return r
}

func (r *recording) add(c call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, c)
}

// Called implements lease.Recorder.
func (r *recording) Called(c lease.Call) {
	r.mu.Lock()
	r.calls = append(r.calls, call{Lease: &c})
	peer := r.survives
	r.mu.Unlock()
	r.judgeNamed(c)
	if peer != "" && c.Promise() == peer {
		r.w.violate("%s promises to %s, which it is surviving", r.Node, peer)
	}
}

// Applied implements consensus.Recorder.
func (r *recording) Applied(index uint64, cmd []byte, res state.Result) {
	r.add(call{Applied: &applied{index, cmd, res}})
	r.w.air.applied(cmd, res)
	r.w.mu.Lock()
	told, first := r.w.applied, index > r.w.newest
	r.w.newest = max(r.w.newest, index)
	r.w.mu.Unlock()
	if !first {
		return // somebody has applied it before, or it is read again
	}
	r.busy(cmd)
	if told == nil {
		return
	}
	if c, err := state.Decode(cmd); err == nil {
		told(r.Node, c)
	}
}

// tooMany commands at one instant are a loop that nothing slows down: it would
// fill a real disk, and virtual time would stand still.
const tooMany = 1000

func (r *recording) busy(cmd []byte) {
	r.mu.Lock()
	if now := time.Now(); !now.Equal(r.instant) {
		r.instant, r.many = now, 0
	}
	r.many++
	many := r.many
	r.mu.Unlock()
	if many == tooMany {
		r.w.violate("%s applies command after command without a pause, the last of them %s", r.Node, cmd)
		r.w.machine(r.Node).strike(false, nil, dead)
	}
}

// Configured implements consensus.Recorder.
func (r *recording) Configured(index uint64, ids []string) {
	r.add(call{Voters: &voters{index, ids}})
}

// Restored implements consensus.Recorder.
func (r *recording) Restored(st *state.State) { r.add(call{Restored: canonical(st)}) }

// Decided implements cluster.Recorder.
func (r *recording) Decided(f pair.Facts, d pair.Decision) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// Between two decisions the intent is recorded and the log is left: from then on the peer gets nothing.
	r.phase, r.survives = d.Phase, ""
	if f.Record.Intent != nil && f.Halted && r.halted {
		r.survives = f.Peer
	}
	r.halted = f.Record.Intent != nil && f.Halted
	r.calls = append(r.calls, call{Decided: &decided{f, d}})
}

// at notes what the state was at an index.
func (r *recording) at(st *state.State) { r.add(call{State: &looked{Index: st.Index, st: st}}) }

// phaseNow returns what pair.Decide said last; 0: nothing.
func (r *recording) phaseNow() pair.Phase {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.phase
}

func sum(st *state.State) string {
	h := sha256.Sum256(canonical(st))
	return hex.EncodeToString(h[:8])
}

// writeRecordings writes all of them, a line of JSON each call.
func writeRecordings(to io.Writer, rs []*recording) error {
	b := bufio.NewWriter(to)
	e := json.NewEncoder(b)
	for _, r := range rs {
		r.mu.Lock()
		calls := r.calls
		r.mu.Unlock()
		if err := e.Encode(r); err != nil {
			return err
		}
		for _, c := range calls {
			if c.Lease != nil {
				l := c.Lease.Render()
				c.Lease = &l
			}
			if c.State != nil && c.State.st != nil {
				c.State = &looked{Index: c.State.Index, Sum: sum(c.State.st)}
			}
			if err := e.Encode(c); err != nil {
				return err
			}
		}
	}
	return b.Flush()
}

// replay makes recorded calls again, by the present code, and says what comes
// out otherwise than it was. It returns how many calls it made.
func replay(from io.Reader) (calls int, err error) {
	d := json.NewDecoder(bufio.NewReader(from))
	var of recording
	var leases []lease.Call
	st := state.New()
	states := map[uint64]*state.State{0: st}
	end := func() error {
		if err := lease.Replay(leases); err != nil {
			return fmt.Errorf("%s, daemon %d: lease: %w", of.Node, of.Start, err)
		}
		leases = nil
		return nil
	}
	for {
		var line struct {
			recordingName
			call
		}
		switch err := d.Decode(&line); {
		case err == io.EOF:
			return calls, end()
		case err != nil:
			return calls, err
		}
		if line.Node != "" {
			if err := end(); err != nil {
				return calls, err
			}
			of.Node, of.Start = line.Node, line.Start
			st = state.New()
			states = map[uint64]*state.State{0: st}
			continue
		}
		calls++
		wrong := ""
		switch c := line.call; {
		case c.Lease != nil:
			leases = append(leases, *c.Lease)
		case c.Applied != nil:
			cmd, err := state.Decode(c.Applied.Cmd)
			if err != nil {
				return calls, fmt.Errorf("%s, daemon %d: index %d: %w", of.Node, of.Start, c.Applied.Index, err)
			}
			var r state.Result
			if st, r = st.Apply(c.Applied.Index, cmd); r != c.Applied.Result {
				wrong = fmt.Sprintf("the command at index %d comes to %+v, it was %+v", c.Applied.Index, r, c.Applied.Result)
			}
			states[st.Index] = st
		case c.Voters != nil:
			st = st.SetVoters(c.Voters.Index, c.Voters.IDs)
			states[st.Index] = st
		case c.Restored != nil:
			st = state.New()
			if err := json.Unmarshal(c.Restored, st); err != nil {
				return calls, fmt.Errorf("%s, daemon %d: a snapshot: %w", of.Node, of.Start, err)
			}
			states[st.Index] = st
		case c.Decided != nil:
			if now := pair.Decide(c.Decided.Facts); now != c.Decided.Decision {
				wrong = fmt.Sprintf("pair: decides %+v, it was %+v", now, c.Decided.Decision)
			}
		case c.State != nil:
			if s := states[c.State.Index]; s == nil || sum(s) != c.State.Sum {
				wrong = fmt.Sprintf("the state at index %d differs", c.State.Index)
			}
		}
		if wrong != "" {
			return calls, fmt.Errorf("%s, daemon %d, call %d: %s", of.Node, of.Start, calls, wrong)
		}
	}
}

// recordingName is the line that begins a recording.
type recordingName struct {
	Node  string `json:"node"`
	Start int    `json:"start"`
}
