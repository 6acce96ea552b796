package lease

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Recorder is told of every call that changes a Holder or a Voter, in the
// order of each, with what it returned: Replay makes the same calls again.
type Recorder interface{ Called(Call) }

// Call is one call of a method of Holder or Voter. Which fields count depends on Op.
type Call struct {
	Op      string        `json:"op"`
	Now     time.Duration `json:"now,omitempty"`
	Node    string        `json:"node,omitempty"`
	Boot    uint64        `json:"boot,omitempty"`
	Number  uint64        `json:"number,omitempty"`
	Flag    bool          `json:"flag,omitempty"`
	Length  time.Duration `json:"length,omitempty"`
	Voters  *Voters       `json:"voters,omitempty"`
	Stored  *Record       `json:"stored,omitempty"`
	Message []byte        `json:"message,omitempty"` // encoded
	Result  string        `json:"result,omitempty"`

	// What Render makes Message and Result of: most recordings are never looked at.
	m   Message
	out []any
}

// Promise says to whom the call was a promise of this voter; empty: to nobody.
func (c Call) Promise() string {
	if c.Op != "renew" || len(c.out) < 2 {
		return ""
	}
	if _, ok := c.out[1].(Ack); !ok {
		return ""
	}
	return c.Node
}

// Names returns the index of the configuration of voters that a promise names;
// false: the call was no promise.
func (c Call) Names() (config uint64, promised bool) {
	if c.Promise() == "" {
		return 0, false
	}
	return c.out[1].(Ack).Config.Index, true
}

// Render returns the call with all its fields filled in, for writing it down.
func (c Call) Render() Call {
	if c.m != nil {
		c.Message = Encode(c.m)
	}
	if c.out != nil {
		c.Result = text(c.out...)
	}
	return c
}

// text says what a call returned, the same for the same values.
func text(values ...any) string {
	var b []byte
	for _, v := range values {
		t, err := json.Marshal(v)
		if err != nil {
			t = []byte(err.Error())
		}
		b = append(append(b, t...), ' ')
	}
	return string(b)
}

// tracedHolder tells a Recorder, if there is one, of what it is asked.
type tracedHolder struct {
	*Holder
	to Recorder
}

func newTracedHolder(self string, to Recorder) tracedHolder {
	t := tracedHolder{NewHolder(self), to}
	t.told(Call{Op: "holder", Node: self})
	return t
}

func (t tracedHolder) told(c Call) {
	if t.to != nil {
		t.to.Called(c)
	}
}

func (t tracedHolder) Admit(incarnation uint64) {
	t.Holder.Admit(incarnation)
	t.told(Call{Op: "admit", Number: incarnation})
}

func (t tracedHolder) Configure(v Voters) {
	t.Holder.Configure(v)
	t.told(Call{Op: "configure", Voters: &v})
}

func (t tracedHolder) Latest(v Voters) {
	t.Holder.Latest(v)
	t.told(Call{Op: "latest", Voters: &v})
}

func (t tracedHolder) Pair(peer string, contested bool) {
	t.Holder.Pair(peer, contested)
	t.told(Call{Op: "pair", Node: peer, Flag: contested})
}

func (t tracedHolder) GoAlone(until time.Duration) {
	t.Holder.GoAlone(until)
	t.told(Call{Op: "go alone", Length: until})
}

func (t tracedHolder) Round(now, length time.Duration) {
	t.Holder.Round(now, length)
	t.told(Call{Op: "round", Now: now, Length: length})
}

func (t tracedHolder) Shorten(end time.Duration) {
	t.Holder.Shorten(end)
	t.told(Call{Op: "shorten", Length: end})
}

func (t tracedHolder) RenewFor(voter string, reset bool) Renew {
	r := t.Holder.RenewFor(voter, reset)
	t.told(Call{Op: "renew for", Node: voter, Flag: reset, out: []any{r}})
	return r
}

func (t tracedHolder) Ack(a Ack) {
	t.Holder.Ack(a)
	t.told(Call{Op: "ack", m: a})
}

func (t tracedHolder) Refuse(r Refuse) {
	t.Holder.Refuse(r)
	t.told(Call{Op: "refuse", m: r})
}

func (t tracedHolder) End() time.Duration {
	end := t.Holder.End()
	t.told(Call{Op: "end", out: []any{end}})
	return end
}

// tracedVoter is tracedHolder for a Voter.
type tracedVoter struct {
	*Voter
	to Recorder
}

func newTracedVoter(self string, stored Record, now time.Duration, to Recorder) tracedVoter {
	v := tracedVoter{NewVoter(self, stored, now), to}
	s := stored.clone()
	v.told(Call{Op: "voter", Node: self, Stored: &s, Now: now})
	return v
}

func (t tracedVoter) told(c Call) {
	if t.to != nil {
		t.to.Called(c)
	}
}

func (t tracedVoter) Configure(c Voters) {
	t.Voter.Configure(c)
	t.told(Call{Op: "voter configure", Voters: &c})
}

func (t tracedVoter) Rename(id string) {
	t.Voter.Rename(id)
	t.told(Call{Op: "rename", Node: id})
}

func (t tracedVoter) Renew(now time.Duration, node string, boot uint64, r Renew) (Message, *Record) {
	m, store := t.Voter.Renew(now, node, boot, r)
	t.told(Call{Op: "renew", Now: now, Node: node, Boot: boot, m: r, out: answered(m, store)})
	return m, store
}

func (t tracedVoter) Revoke(now time.Duration, from string, r Revoke) (Message, *Record) {
	m, store := t.Voter.Revoke(now, from, r)
	t.told(Call{Op: "revoke", Now: now, Node: from, m: r, out: answered(m, store)})
	return m, store
}

func (t tracedVoter) Due(now time.Duration) (Message, []string, *Record) {
	m, to, store := t.Voter.Due(now)
	t.told(Call{Op: "due", Now: now, out: due(m, to, store)})
	return m, to, store
}

func (t tracedVoter) Saved() {
	t.Voter.Saved()
	t.told(Call{Op: "saved"})
}

func answered(m Message, store *Record) []any {
	if m == nil {
		return []any{0, nil, store}
	}
	return []any{m.kind(), m, store}
}

func due(m Message, to []string, store *Record) []any {
	return append(answered(m, store), slices.Sorted(slices.Values(to)))
}

// Replay makes recorded calls again. The error names the first that returns
// something else now.
func Replay(calls []Call) error {
	var h *Holder
	var v *Voter
	for i, c := range calls {
		var m Message
		if c.Message != nil {
			var err error
			if m, err = Decode(c.Message); err != nil {
				return fmt.Errorf("call %d, %s: %w", i, c.Op, err)
			}
		}
		got := ""
		ofVoter := slices.Contains([]string{"voter configure", "rename", "renew", "revoke", "due", "saved"}, c.Op)
		switch {
		case ofVoter && v == nil, !ofVoter && h == nil && c.Op != "holder" && c.Op != "voter":
			return fmt.Errorf("call %d, %s: before there was anything to call", i, c.Op)
		}
		switch c.Op {
		case "holder":
			h = NewHolder(c.Node)
		case "voter":
			v = NewVoter(c.Node, *c.Stored, c.Now)
		case "admit":
			h.Admit(c.Number)
		case "configure":
			h.Configure(*c.Voters)
		case "latest":
			h.Latest(*c.Voters)
		case "pair":
			h.Pair(c.Node, c.Flag)
		case "go alone":
			h.GoAlone(c.Length)
		case "round":
			h.Round(c.Now, c.Length)
		case "shorten":
			h.Shorten(c.Length)
		case "renew for":
			got = text(h.RenewFor(c.Node, c.Flag))
		case "ack":
			h.Ack(m.(Ack))
		case "refuse":
			h.Refuse(m.(Refuse))
		case "end":
			got = text(h.End())
		case "voter configure":
			v.Configure(*c.Voters)
		case "rename":
			v.Rename(c.Node)
		case "renew":
			got = text(answered(v.Renew(c.Now, c.Node, c.Boot, m.(Renew)))...)
		case "revoke":
			got = text(answered(v.Revoke(c.Now, c.Node, m.(Revoke)))...)
		case "due":
			got = text(due(v.Due(c.Now))...)
		case "saved":
			v.Saved()
		default:
			return fmt.Errorf("call %d: no such call: %q", i, c.Op)
		}
		if got != c.Result {
			return fmt.Errorf("call %d, %s: returns %s now, it was %s", i, c.Op, got, c.Result)
		}
	}
	return nil
}
