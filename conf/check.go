package conf

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"gopkg.in/yaml.v3"
)

// Limits of the checks of one server and of one pool.
const (
	maxMore   = 32
	maxChecks = 2 * maxReals
)

// planned is a check before its server is known.
type planned struct {
	Check
	port uint16 // 0: the real server's, or the service's
}

// checkPlan are the checks of a server, the first one of Real.Check.
type checkPlan struct {
	checks []*planned
	ok     bool // false: what is wrong has been said
}

// plan works out how a server of v is checked. Values that do not matter to
// the type are left out, so that checks that do the same are equal.
func (p *poolReader) plan(c *checkFields, v *Virtual) *checkPlan {
	if c.here("urls") == nil && (c.here("request") != nil || c.here("receive") != nil || c.here("service") != nil) {
		c.urls = nil
	}
	c.parted(v)
	plan := &checkPlan{ok: true}
	p.asks(plan, c, v)
	if c.checks != nil {
		p.list(c.checks, "checks", func(_ int, n *yaml.Node) {
			more := c.inherit(n)
			more.urls, more.checks, more.beside = nil, nil, true
			if plan.ok = p.checkMapping(more, "a check", nil) && plan.ok; !plan.ok {
				return
			}
			if more.here("service") != nil && more.here("checktype") == nil {
				more.check.Type = Negotiate // who names a service wants it asked
			}
			if more.parted(v) && more.here("checkport") == nil {
				more.port = servicePort(more.check.Service)
			}
			p.asks(plan, more, v)
		})
	}
	if len(plan.checks) > maxMore && plan.ok {
		p.errorf(c.place(c.at, "checks", "urls"), "one server has %d checks; the limit is %d", len(plan.checks), maxMore)
		plan.ok = false
	}
	return plan
}

// planFor is the plan of one entry of `real:` or `fallback:`: that of its
// virtual service, unless it has settings of its own.
func (p *poolReader) planFor(e *serverEntry, above *checkFields, common *checkPlan, v *Virtual) *checkPlan {
	if len(e.checks) == 0 {
		return common
	}
	own := above.inherit(e.at)
	for _, g := range e.checks {
		own.read(p, g.key, g.at)
	}
	return p.plan(own, v)
}

// checkMapping reads an entry of checks or urls; names are its keys, nil: all
// but checks itself.
func (p *poolReader) checkMapping(c *checkFields, what string, names []string) bool {
	before := len(p.errs)
	fields, elsewhere := c.fields(p, names...), maps.Clone(poolElsewhere())
	if len(names) == 0 {
		fields = slices.DeleteFunc(fields, func(f field) bool { return f.name == "checks" })
		elsewhere["checks"] = "checks within checks; list them all side by side"
	} else {
		for i := range checkKeys {
			if k := checkKeys[i].name; !slices.Contains(names, k) {
				elsewhere[k] = fmt.Sprintf("%q is no matter of a single URL; write it for the server, or an entry of checks", k)
			}
		}
	}
	return p.mapping(c.at, what, fields, elsewhere) && len(p.errs) == before
}

// parted drops what was meant for another service. It reports whether c is
// about another one than the level above.
func (c *checkFields) parted(v *Virtual) bool {
	if c.up == nil || c.here("service") == nil {
		return false
	}
	above := c.up.check.Service
	if s := serviceOf(v); above == "" && c.up.up != nil && s != nil {
		above = s.name
	}
	if above == "" || alike(above, c.check.Service) {
		return false
	}
	if c.here("request") == nil {
		c.check.Request = ""
	}
	if c.here("receive") == nil {
		c.check.Receive = ""
	}
	return true
}

// asks appends the check, or one for each of its URLs.
func (p *poolReader) asks(plan *checkPlan, c *checkFields, v *Virtual) {
	if s := c.service(v); c.urls == nil || c.check.Type != Negotiate || s == nil || s.takes&takesHTTP == 0 {
		p.one(plan, c, v)
		return
	}
	n := 0
	ok := p.list(c.urls, "urls", func(_ int, at *yaml.Node) {
		n++
		url := c.inherit(at)
		if plan.ok = p.checkMapping(url, "a URL", urlKeys) && plan.ok; plan.ok {
			p.one(plan, url, v)
		}
	})
	if ok && n == 0 {
		p.errorf(c.urls, "urls is empty; list at least one: \"urls: [{request: /}]\"")
	}
	plan.ok = plan.ok && ok && n > 0
}

// service is what is asked for, or nil when nobody said so.
func (c *checkFields) service(v *Virtual) *service {
	if s := serviceNamed(c.check.Service); s != nil {
		return s
	}
	return serviceOf(v)
}

// limit is the time-out. ldirectord(8): each of the two stands in for the
// other, those of a level before those above it.
func (c *checkFields) limit(t CheckType) time.Duration {
	for l := c; l != nil; l = l.up {
		own := []opt[time.Duration]{l.timeout, l.negotiation}
		if t == Negotiate {
			slices.Reverse(own)
		}
		if d := first(0, own...); d > 0 {
			return d
		}
	}
	if t == Negotiate {
		return DefaultNegotiateTimeout
	}
	return DefaultCheckTimeout
}

// one appends a single check.
func (p *poolReader) one(plan *checkPlan, c *checkFields, v *Virtual) {
	if plan.ok = plan.ok && !c.faulty("checktype") && !c.faulty("service"); !plan.ok {
		return
	}
	before := len(p.errs)
	from := &c.check
	out := &planned{port: c.port}
	out.Type, out.Interval, out.Jitter, out.Fall, out.Rise = from.Type, from.Interval, from.Jitter, from.Fall, from.Rise
	if from.IntervalDown != from.Interval {
		out.IntervalDown = from.IntervalDown
	}
	if out.Jitter > out.Interval {
		p.errorf(c.place(c.at, "jitter", "checkinterval"), "jitter %s is longer than checkinterval, %s; write at most that", brief(out.Jitter), brief(out.Interval))
	}
	switch out.Type {
	case Negotiate:
		plan.ok = p.negotiate(c, v, out)
	case Connect:
		switch {
		case v.Protocol == UDP && !c.beside:
			out.Type = Ping // as in ldirectord: there is nothing to connect to
		case v.Protocol == SCTP:
			out.Service = "sctp"
		}
	case External:
		out.Command, out.Perl, out.User, out.Dynamic = from.Command, from.Perl, from.User, from.Dynamic
		who := "checktype external of virtual "
		if out.Perl {
			who = "checktype external-perl of virtual "
		}
		plan.ok = p.needs(c, who+v.String(), "the path of a program", "checkcommand")
	case File:
		out.Path, out.Dynamic = from.Path, from.Dynamic
		plan.ok = p.needs(c, "checktype file of virtual "+v.String(), "the path of the file", "path")
	}
	if out.Type == Ping && from.Count != defaultPingCount {
		out.Count = from.Count
	}
	switch out.Type {
	case Negotiate, Connect, Ping:
		out.Source, out.Interface, out.Mark = from.Source, from.Interface, from.Mark
	}
	out.Timeout = c.limit(out.Type)
	p.programs(c)
	if plan.ok = plan.ok && len(p.errs) == before; plan.ok {
		plan.checks = append(plan.checks, out)
	}
}

// needs reports a key that is missing at every level.
func (p *poolReader) needs(c *checkFields, who, what, name string, or ...string) bool {
	if c.gave(append(or, name)...) {
		return !slices.ContainsFunc(append(or, name), c.faulty)
	}
	for l := c; l != nil; l = l.up {
		if l.odd {
			return false // it may be the key that was not understood
		}
	}
	p.errorf(c.at, "%s needs %q, %s", who, name, what)
	return false
}

// programs refuses what is for another type of check when none was named: it
// would be forgotten silently. Who names a type may leave things for another one.
func (p *poolReader) programs(c *checkFields) {
	if c.gave("checktype") {
		return
	}
	for _, w := range c.written {
		switch w.name {
		case "checkcommand", "user":
			p.errorf(w.at, "%s is for \"checktype: external\"; add that, or take it out", w.name)
		case "path":
			p.errorf(w.at, "path is for \"checktype: file\"; add that, or take it out")
		case "dynamic":
			p.errorf(w.at, "dynamic is for \"checktype: external\" and file; add that, or take it out")
		}
	}
}

// checkServer completes the checks of a real server; at is where it was written.
func (p *poolReader) checkServer(at *yaml.Node, plan *checkPlan, v *Virtual, r *Real) error {
	if !plan.ok {
		return nil
	}
	for i, k := range plan.checks {
		c, err := complete(k, v, r)
		if err != nil {
			return err
		}
		if *p.checks++; *p.checks == maxChecks+1 {
			p.errorf(at, "more than %d checks in one pool; make two of it", maxChecks)
		}
		if *p.checks > maxChecks {
			return nil
		}
		if p.try != nil {
			if err := p.try(c); err != nil {
				return fmt.Errorf("the check of %s: %s", ServerName(r.Address), oneLine(err.Error()))
			}
		}
		switch {
		case i == 0:
			r.Check = c
		case c != r.Check && !slices.Contains(r.Also, c):
			r.Also = append(r.Also, c)
		}
	}
	return nil
}

// tryOnce is Files.Try without repetition, of checks that are alike and of what
// is wrong in one file; nil: there is none.
func (s *specReader) tryOnce() func(Check) error {
	if s.files.Try == nil {
		return nil
	}
	if s.tried == nil {
		s.tried = map[Check]bool{}
	}
	said := map[string]bool{}
	return func(c Check) error {
		like := c
		like.Target, like.Args = netip.AddrPortFrom(netip.Addr{}, c.Target.Port()), ""
		if s.tried[like] {
			return nil
		}
		s.tried[like] = true
		err := s.files.Try(c)
		if err == nil || said[err.Error()] {
			return nil
		}
		said[err.Error()] = true
		return err
	}
}

func complete(k *planned, v *Virtual, r *Real) (Check, error) {
	c := k.Check
	addr := r.Address.Addr()
	port := cmp.Or(k.port, r.Address.Port())
	if port == 0 && c.Type == Negotiate {
		port = servicePort(c.Service)
	}
	switch c.Type {
	case Ping, On, Off, File:
		port = 0
	case Connect, Negotiate:
		if port == 0 {
			return c, fmt.Errorf("real server %s has no port to check; write \"checkport\" for the virtual service", addr)
		}
	case External:
		host, vport := "", "0"
		if v.Protocol == FWM {
			host = utoa(v.FWMark)
		} else {
			host, vport = v.Address.Addr().String(), utoa(v.Address.Port())
		}
		c.Args = host + " " + vport + " " + addr.String() + " " + strconv.Itoa(int(port))
	}
	if c.Source.IsValid() && c.Source.Is6() != addr.Is6() {
		return c, fmt.Errorf("checksource %s is of the other family than real server %s; a probe cannot cross", c.Source, addr)
	}
	c.Target = netip.AddrPortFrom(addr, port)
	return c, nil
}

// String names the check, without what it sends: that may be a secret.
func (c Check) String() string { return c.kind() + " " + c.Target.String() }

// GoString is String: %#v must not show secrets either.
func (c Check) GoString() string { return c.String() }

// LogValue is String, so that no log shows more.
func (c Check) LogValue() slog.Value { return slog.StringValue(c.String()) }
