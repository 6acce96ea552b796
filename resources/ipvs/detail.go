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
	Services   []ServiceDetail `json:"services"`         // in the order of the file
}

// ServiceDetail is what status shows of a virtual service.
type ServiceDetail struct {
	Name       string        `json:"name"`     // "192.168.56.200:80 tcp", "fwmark 5"
	Protocol   string        `json:"protocol"` // tcp, udp, fwm
	Comment    string        `json:"comment,omitempty"`
	Scheduler  string        `json:"scheduler"`
	Flags      []string      `json:"schedflags,omitempty"`
	Persistent int           `json:"persistent,omitempty"` // seconds
	Netmask    int           `json:"netmask,omitempty"`    // prefix length, with Persistent
	Quiescent  bool          `json:"quiescent"`
	Up         int           `json:"up"`       // real servers that are up
	InKernel   bool          `json:"in_table"` // the kernel has the service
	Reals      []RealDetail  `json:"reals"`    // in the order of the file
	Fallback   *FallbackInfo `json:"fallback,omitempty"`
}

// FallbackInfo is what status shows of the fallback.
type FallbackInfo struct {
	Address string    `json:"address"`
	Forward string    `json:"forward"`
	Active  bool      `json:"active"` // no real server is up
	Traffic *Counters `json:"traffic,omitempty"`
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
	Since     time.Time `json:"since,omitzero"`      // of State
	Overdue   bool      `json:"overdue,omitempty"`   // the last result is older than the check's schedule allows
	Trouble   string    `json:"trouble,omitempty"`   // why the kernel does not take it
	Traffic   *Counters `json:"traffic,omitempty"`   // when it is in the table
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
		Pool: p.name, Started: p.started, Repairs: p.repairs, LastRepair: p.repaired,
		Services: make([]ServiceDetail, 0, len(p.content.Virtuals)),
	}
	d.Kernel = p.maker.shared.detail()
	if p.failure != nil {
		d.Trouble = p.failure.Error()
	}
	wanted := byKey(Wanted(p.content.Virtuals, p.up))
	for _, v := range p.content.Virtuals {
		d.Services = append(d.Services, p.serviceDetail(v, wanted[KeyOf(v)]))
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

func (p *pool) serviceDetail(v conf.Virtual, wanted Entry) ServiceDetail {
	k := KeyOf(v)
	actual, there := p.actual[k]
	s := ServiceDetail{
		Name: v.String(), Protocol: v.Protocol.String(), Comment: v.Comment,
		Scheduler: v.Scheduler, Flags: v.Flags, Quiescent: v.Quiescent,
		InKernel: there,
		Reals:    make([]RealDetail, 0, len(v.Reals)),
	}
	if v.Persistent > 0 {
		s.Persistent, s.Netmask = int(v.Persistent/time.Second), wanted.Service.Netmask
	}
	in := make(map[netip.AddrPort]int, len(actual.Dests))
	for i, d := range actual.Dests {
		in[d.Address] = i
	}
	want := make(map[netip.AddrPort]Dest, len(wanted.Dests))
	for _, d := range wanted.Dests {
		want[d.Address] = d
	}
	for _, r := range v.Reals {
		d := p.realDetail(k, r)
		if w, found := want[plain(r.Address)]; found {
			d.Wanted = int(w.Weight)
		}
		if i, found := in[plain(r.Address)]; found {
			weight := int(actual.Dests[i].Weight)
			d.InKernel = &weight
			d.Traffic = counters(actual, i)
		}
		if p.up(k, r) {
			s.Up++
		}
		s.Reals = append(s.Reals, d)
	}
	if len(v.Fallbacks) > 0 {
		f := v.Fallbacks[0]
		s.Fallback = &FallbackInfo{Address: f.Address.String(), Forward: f.Forward.String(), Active: s.Up == 0}
		if i, found := in[plain(f.Address)]; found && s.Up == 0 {
			s.Fallback.Traffic = counters(actual, i)
		}
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

func (p *pool) realDetail(k Key, r conf.Real) RealDetail {
	d := RealDetail{
		Address: r.Address.String(), Forward: r.Forward.String(), Weight: r.Weight, Wanted: -1,
		Check: checkName(r.Check), State: StateUnknown,
	}
	if r.Check.Target.IsValid() && r.Check.Target != r.Address {
		d.Target = r.Check.Target.String()
	}
	for line, err := range p.refused {
		if op := " " + k.option() + " -r " + plain(r.Address).String(); strings.Contains(line+" ", op+" ") {
			d.Trouble = err.Error()
		}
	}
	switch r.Check.Type {
	case conf.On:
		d.State, d.OK, d.Answer = StateUp, true, "not checked: checktype on"
		return d
	case conf.Off:
		d.State, d.Answer = StateDown, "not checked: checktype off"
		return d
	}
	var h checks.Status
	if w := p.watched[r.Check]; w != nil {
		h = w.health
	}
	if now, found := p.maker.cfg.Checks.Status(r.Check); found && (now.Known || !h.Known) {
		h = now
	}
	d.Answer, d.OK, d.LastCheck, d.Since, d.Overdue = h.Detail, h.OK, h.Last, h.Since, h.Overdue
	d.TookMS = float64(h.Duration.Microseconds()) / 1000
	switch {
	case h.Known && h.Up:
		d.State = StateUp
	case h.Known:
		d.State = StateDown
	case d.Answer == "" && p.up(k, r):
		d.Answer = "not checked yet: it goes on as it was found"
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
