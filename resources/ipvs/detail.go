package ipvs

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/checks"
	"github.com/keepbeat/keepbeat/conf"
)

// Detail is what status shows of a pool.
type Detail struct {
	Pool       string          `json:"pool"`
	Started    bool            `json:"started"`
	Trouble    string          `json:"trouble,omitempty"` // why the table is not as it ought to be
	Repairs    uint64          `json:"repairs"`           // how often somebody else's changes were undone
	LastRepair time.Time       `json:"last_repair,omitzero"`
	Kernel     *SharedDetail   `json:"kernel,omitempty"` // what all pools of the node share there
	Blind      string          `json:"blind,omitempty"`  // why maintenancedir is not seen
	Services   []ServiceDetail `json:"services"`         // in the order of the file
}

// ServiceDetail is what status shows of a virtual service.
type ServiceDetail struct {
	Name       string         `json:"name"`                  // "192.168.56.200:80 tcp", "fwmark 5"
	Title      string         `json:"servicename,omitempty"` // what the administrator calls it
	Protocol   string         `json:"protocol"`              // tcp, udp, sctp, fwm
	Comment    string         `json:"comment,omitempty"`
	Scheduler  string         `json:"scheduler"`
	Flags      []string       `json:"schedflags,omitempty"`
	Persistent int            `json:"persistent,omitempty"` // seconds
	Netmask    int            `json:"netmask,omitempty"`    // prefix length, with Persistent
	Quiescent  bool           `json:"quiescent"`
	Up         int            `json:"up"`                   // real servers that are up
	Quorum     string         `json:"quorum"`               // met, lost, undecided
	Needed     int            `json:"needed"`               // weight that quorum needs
	Hysteresis int            `json:"hysteresis,omitempty"` // how far beyond Needed it is gained and lost
	Sum        int            `json:"sum"`                  // weight of the servers that serve
	InKernel   bool           `json:"in_table"`             // the kernel has the service
	Reals      []RealDetail   `json:"reals"`                // in the order of the file
	Fallbacks  []FallbackInfo `json:"fallbacks,omitempty"`  // the first that is up answers without quorum
}

// FallbackInfo is what status shows of a fallback.
type FallbackInfo struct {
	Address string    `json:"address"`
	Forward string    `json:"forward"`
	Weight  int       `json:"weight"`
	Active  bool      `json:"active"`           // it answers
	State   string    `json:"state"`            // up, down, unknown
	Check   string    `json:"check,omitempty"`  // absent: not checked, always up
	Answer  string    `json:"answer,omitempty"` // of the last check, or why it is not up
	Traffic *Counters `json:"traffic,omitempty"`
}

// Active returns the fallback that answers, or nil.
func (s ServiceDetail) Active() *FallbackInfo {
	for i := range s.Fallbacks {
		if s.Fallbacks[i].Active {
			return &s.Fallbacks[i]
		}
	}
	return nil
}

// State of a real server.
const (
	StateUp      = "up"
	StateDown    = "down"
	StateUnknown = "unknown" // not checked yet
)

// RealDetail is what status shows of a real server.
type RealDetail struct {
	Address   string    `json:"address"`
	Forward   string    `json:"forward"`
	Weight    int       `json:"weight"`              // as configured
	Wanted    int       `json:"wanted"`              // that it ought to have now; -1: not in the table
	InKernel  *int      `json:"in_table,omitempty"`  // that it has in the kernel; absent: not there
	State     string    `json:"state"`               // up, down, unknown
	Check     string    `json:"check"`               // "negotiate http", "connect", ...
	Target    string    `json:"target,omitempty"`    // what is checked, when another address or port
	Answer    string    `json:"answer,omitempty"`    // of the last check
	OK        bool      `json:"ok"`                  // the last check alone; State heeds fall and rise
	LastCheck time.Time `json:"last_check,omitzero"` // when it ended
	TookMS    float64   `json:"took_ms"`             // how long it took
	Overdue   bool      `json:"overdue,omitempty"`   // the last check is longer ago than it may be
	Since     time.Time `json:"since,omitzero"`      // of State
	Trouble   string    `json:"trouble,omitempty"`   // why the kernel does not take it
	Traffic   *Counters `json:"traffic,omitempty"`   // when it is in the table

	Host    string        `json:"host,omitempty"`    // the name that Address was resolved from
	Reason  string        `json:"reason,omitempty"`  // why it is down or has another weight, where Answer does not say it
	Order   *Order        `json:"order,omitempty"`   // what an operator wants of it
	File    string        `json:"file,omitempty"`    // in maintenancedir, that takes it out
	Rising  bool          `json:"rising,omitempty"`  // slow start: Wanted grows
	Removed bool          `json:"removed,omitempty"` // somebody took it out of the table: weight 0 until its next check
	Checks  []CheckDetail `json:"checks,omitempty"`  // each of several; Check, Answer and the rest are those of the worst
}

// Held tells whether somebody wants the server to be down.
func (r RealDetail) Held() bool {
	return r.File != "" || r.Order != nil && r.Order.Action == Disable
}

// CheckDetail is what status shows of one of several checks.
type CheckDetail struct {
	Check     string    `json:"check"`
	Target    string    `json:"target,omitempty"`
	State     string    `json:"state"` // up, down, unknown
	Answer    string    `json:"answer,omitempty"`
	OK        bool      `json:"ok"`
	LastCheck time.Time `json:"last_check,omitzero"`
	TookMS    float64   `json:"took_ms"`
	Overdue   bool      `json:"overdue,omitempty"`
	Since     time.Time `json:"since,omitzero"`
}

// How long Detail waits for the kernel, and how old what it shows may be
// without asking: several readers of status share one look.
const (
	detailWait = 500 * time.Millisecond
	detailAge  = time.Second
)

// Detail implements resources.Detailer; the value is a Detail.
func (p *pool) Detail() any {
	p.refresh()

	p.mu.Lock()
	defer p.mu.Unlock()
	d := Detail{
		Pool: p.name, Started: p.started, Repairs: p.repairs, LastRepair: p.repaired, Blind: p.blind,
		Services: make([]ServiceDetail, 0, len(p.content.Virtuals)),
	}
	d.Kernel = p.maker.shared.detail()
	if p.failure != nil {
		d.Trouble = p.failure.Error()
	}
	now := time.Now()
	for _, v := range p.content.Virtuals {
		// What a step would give now, for show: nothing of it is kept.
		var s service
		if known := p.services[KeyOf(v)]; known != nil {
			s = *known
		}
		d.Services = append(d.Services, p.serviceDetail(v, s.step(v, p.input(KeyOf(v), now))))
	}
	return d
}

// refresh reads the counters, when the pool is started.
func (p *pool) refresh() {
	p.mu.Lock()
	fresh := !p.started || time.Since(p.read) < detailAge
	keys := make([]Key, 0, len(p.content.Virtuals))
	for _, v := range p.content.Virtuals {
		keys = append(keys, KeyOf(v))
	}
	p.mu.Unlock()
	if fresh {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), detailWait)
	defer cancel()
	entries, err := p.maker.cfg.Table.List(ctx, keys)
	if err != nil {
		return // the former figures are shown; Monitor tells of the error
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.started {
		p.actual, p.read = byKey(entries), time.Now()
	}
}

func (p *pool) serviceDetail(v conf.Virtual, now decision) ServiceDetail {
	k := KeyOf(v)
	actual, there := p.actual[k]
	s := ServiceDetail{
		Name: v.String(), Title: v.Name, Protocol: v.Protocol.String(), Comment: v.Comment,
		Scheduler: v.Scheduler, Flags: v.Flags, Quiescent: v.Quiescent,
		Up: now.up, Quorum: now.quorum.String(), Needed: max(v.Quorum, 1), Hysteresis: v.Hysteresis, Sum: now.sum,
		InKernel: there,
		Reals:    make([]RealDetail, 0, len(v.Reals)),
	}
	if v.Persistent > 0 {
		s.Persistent, s.Netmask = int(v.Persistent/time.Second), now.entry.Service.Netmask
	}
	in := make(map[netip.AddrPort]int, len(actual.Dests))
	for i, d := range actual.Dests {
		in[d.Address] = i
	}
	want := make(map[netip.AddrPort]Dest, len(now.entry.Dests))
	for _, d := range now.entry.Dests {
		want[d.Address] = d
	}
	for i, r := range v.Reals {
		d := p.realDetail(k, r, now.reals[i])
		if w, found := want[plain(r.Address)]; found {
			d.Wanted = int(w.Weight)
		}
		if i, found := in[plain(r.Address)]; found {
			weight := int(actual.Dests[i].Weight)
			d.InKernel = &weight
			d.Traffic = counters(actual, i)
		}
		s.Reals = append(s.Reals, d)
	}
	for i, f := range v.Fallbacks {
		d := p.realDetail(k, f, standing{verdict: now.backups[i]})
		b := FallbackInfo{Address: d.Address, Forward: d.Forward, Weight: now.backups[i].weight, Active: i == now.fallback, State: d.State, Answer: d.Answer}
		if d.Reason != "" {
			b.Answer = d.Reason
		}
		if asked(f.Check) {
			b.Check = d.Check
		} else if b.State == StateUp {
			b.Answer = ""
		}
		if i, found := in[plain(f.Address)]; found && b.Active {
			b.Traffic = counters(actual, i)
		}
		s.Fallbacks = append(s.Fallbacks, b)
	}
	return s
}

func counters(e Entry, i int) *Counters {
	if i >= len(e.Counters) {
		return nil
	}
	c := e.Counters[i]
	return &c
}

func (p *pool) realDetail(k Key, r conf.Real, now standing) RealDetail {
	d := RealDetail{
		Address: conf.ServerName(r.Address), Host: r.Host, Forward: r.Forward.String(), Weight: r.Weight, Wanted: -1,
		Check: checkName(r.Check), State: now.state, Rising: now.rising, Removed: now.held, File: fileFor(p.files, r),
	}
	if o, found := orderFor(p.orders, plain(r.Address)); found {
		d.Order = &o
	}
	if err := p.refusal(k, plain(r.Address)); err != nil {
		d.Trouble = err.Error()
	}
	worst := p.checkDetail(r.Check, r)
	if len(r.Also) > 0 {
		for c := range checksOf(r) {
			one := p.checkDetail(c, r)
			d.Checks = append(d.Checks, one)
			d.Overdue = d.Overdue || one.Overdue
			if rank(one.State) > rank(worst.State) {
				worst = one
			}
		}
	}
	d.Check, d.Target, d.Answer, d.OK = worst.Check, worst.Target, worst.Answer, worst.OK
	d.LastCheck, d.TookMS, d.Overdue, d.Since = worst.LastCheck, worst.TookMS, d.Overdue || worst.Overdue, worst.Since
	if now.why != worst.Answer {
		d.Reason = now.why
	}
	if d.State == StateUnknown && d.Answer == "" && now.serves {
		d.Answer = "not checked yet: it goes on as it was found"
	}
	return d
}

// rank says which of several checks is the one to show.
func rank(state string) int {
	switch state {
	case StateDown:
		return 2
	case StateUnknown:
		return 1
	}
	return 0
}

// refusal is why the kernel does not take a server; nil: it does. p.mu is held.
func (p *pool) refusal(k Key, a netip.AddrPort) error {
	for line, err := range p.refused {
		if op := " " + k.option() + " -r " + a.String(); strings.Contains(line+" ", op+" ") {
			return err
		}
	}
	return nil
}

func (p *pool) checkDetail(c conf.Check, r conf.Real) CheckDetail {
	d := CheckDetail{Check: checkName(c), State: StateUnknown}
	if c.Target.IsValid() && c.Target != r.Address {
		d.Target = conf.ServerName(c.Target)
	}
	h := statusOf(c, func(c conf.Check) checks.Status {
		var h checks.Status
		if w := p.watched[c]; w != nil {
			h = w.health
		}
		if now, found := p.maker.cfg.Checks.Status(c); found && (now.Known || !h.Known) {
			h = now
		}
		return h
	})
	d.Answer, d.OK, d.LastCheck, d.Since, d.Overdue = h.Detail, h.OK, h.Last, h.Since, h.Overdue
	d.TookMS = float64(h.Duration.Microseconds()) / 1000
	switch {
	case h.Known && h.Up:
		d.State = StateUp
	case h.Known:
		d.State = StateDown
	}
	return d
}

func checkName(c conf.Check) string {
	name := c.Type.String()
	if c.Type == conf.Negotiate && c.Service != "" {
		name += " " + c.Service
	}
	return name
}
