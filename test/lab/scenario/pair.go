package scenario

import (
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab"
)

// Rule is what decides in a Pair, as ha.yaml has it.
type Rule string

// The rules for two.
const (
	Fencing Rule = "fencing"
	Ping    Rule = "ping"
	Unsafe  Rule = "unsafe"
)

// TieBreaker is the address on the service network that rule Ping asks.
const TieBreaker = "192.168.56.254"

// Pair is two directors alone, under a rule.
type Pair struct {
	*Directors
	Rule    Rule
	Gateway *lab.Host // has the address TieBreaker
	Power   *Power    // switches either director off; rule Fencing uses it
}

// NewPair makes the machines, writes their files and starts no daemon. Under
// rule Fencing the device is Power, with no delay before it, unless o.Fencing
// says otherwise; under each rule the script FenceScript is there.
func NewPair(t TB, rule Rule, o Options) *Pair {
	t.Helper()
	p := &Pair{Directors: NewDirectors(t), Rule: rule}
	p.Gateway = p.Lab.Host("gateway")
	p.Gateway.Attach(p.Service, "eth0", TieBreaker+"/24")
	p.Power = startPower(t, p.Directors)
	p.WriteFiles(o)
	return p
}

// WriteFiles writes both nodes' configuration.
func (p *Pair) WriteFiles(o Options) {
	if p.Rule == Fencing && o.Fencing == "" {
		o.Fencing = "  devices:\n    power: {script: " + FenceScript + ", targets: [director1, director2], timeout: 5s}\n  priority_fencing_delay: 0s\n"
	}
	rule := "quorum: " + string(p.Rule) + "\n"
	if p.Rule == Ping {
		rule += "ping_group: [" + TieBreaker + "]\n"
	}
	o.Extra = rule + o.Extra
	for _, h := range p.Both() {
		p.writeLocal(h, "  director1: {}\n  director2: {}\n", o)
		p.WriteSpec(h, o)
	}
}

// Revive switches a director on that has died or was fenced, and starts its daemon.
func (p *Pair) Revive(h *lab.Host) *lab.Process {
	h.Revive()
	return p.Start(h)
}

// Living are the directors that are not dead and whose daemon has not ended.
func (p *Pair) Living() []*lab.Host {
	var living []*lab.Host
	for _, h := range p.Both() {
		if d := p.Daemons[h.Name]; !h.Dead() && d != nil && !d.Ended() {
			living = append(living, h)
		}
	}
	return living
}

// Look is the status as a director sees it that is alive, if possible one that
// may decide; ok is false when none answers.
func (p *Pair) Look() (s cluster.Status, ok bool) {
	for _, h := range p.Living() {
		if seen, answered := p.Status(h); answered && (!ok || seen.Quorum) {
			s, ok = seen, true
		}
	}
	return s, ok
}

// StartAll starts both daemons and waits until every group is active.
func (p *Pair) StartAll(limit time.Duration) {
	for _, h := range p.Both() {
		p.Start(h)
	}
	p.WaitActive(limit)
}

// WaitActive waits until every group is active; a daemon that ends before ends the wait.
func (p *Pair) WaitActive(limit time.Duration) { p.waitOwner("", limit) }

// WaitOwner waits until every group is active and the first is on a host.
func (p *Pair) WaitOwner(h *lab.Host, limit time.Duration) { p.waitOwner(h.Name, limit) }

func (p *Pair) waitOwner(name string, limit time.Duration) {
	deadline := time.Now().Add(limit)
	for {
		if s, ok := p.Look(); ok {
			if owner, active := activeIn(s); active && (name == "" || owner == name) {
				return
			}
		}
		if len(p.Living()) == 0 || time.Now().After(deadline) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	var seen []string
	for _, h := range p.Both() {
		s, ok := p.Status(h)
		words := strings.Join(s.Trouble, "; ")
		if d := p.Daemons[h.Name]; !ok && d != nil {
			lines := strings.Split(strings.TrimSpace(d.Log()), "\n")
			words = "no answer; its log ends with: " + lines[len(lines)-1]
		}
		seen = append(seen, h.Name+": "+words)
	}
	p.t.Fatalf("scenario: quorum %s: not every group is active %s after %v; %s", p.Rule, name, limit, strings.Join(seen, "; "))
}
