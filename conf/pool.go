package conf

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Defaults of ldirectord.yaml, ldirectord's.
const (
	DefaultCheckTimeout     = 5 * time.Second
	DefaultNegotiateTimeout = 30 * time.Second
	DefaultCheckInterval    = 10 * time.Second
	DefaultScheduler        = "wrr"
)

// Limits of one pool.
const (
	maxVirtuals = 20_000
	maxReals    = 200_000 // five times what DESIGN section 5 promises; ranges count expanded
	maxRange    = 4096    // servers of one range
	// maxPersistent is the kernel tool's limit, 31 days.
	maxPersistent = 31 * 24 * time.Hour
)

// services are those that ldirectord checks, with the ports from which it
// concludes them. Those that are built have a true in the last field.
var services = []struct {
	name  string
	port  uint16
	built bool
}{
	{"http", 80, true}, {"https", 443, true},
	{"ftp", 21, false}, {"smtp", 25, false}, {"dns", 53, false}, {"pop", 110, false},
	{"nntp", 119, false}, {"imap", 143, false}, {"ldap", 389, false}, {"submission", 587, false},
	{"ldaps", 636, false}, {"imaps", 993, false}, {"pops", 995, false}, {"oracle", 1521, false},
	{"radius", 1812, false}, {"http_proxy", 3128, false}, {"mysql", 3306, false}, {"sip", 5060, false},
	{"pgsql", 5432, false}, {"simpletcp", 0, false},
}

// Schedulers returns the schedulers of the Linux kernel.
func Schedulers() []string {
	return []string{"rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "fo", "ovf", "twos"}
}

// checkSettings are the values that are global and may be overridden for a virtual service.
type checkSettings struct {
	checktimeout, negotiatetimeout, checkinterval opt[time.Duration]
	failurecount, rise                            opt[int]
}

func (c *checkSettings) fields(r *reader) []field {
	const day = 24 * time.Hour
	timeout := r.duration(10*time.Millisecond, day)
	return []field{
		{"checktimeout", "How long a check of type connect, ping or external may take, 10ms to 24h. Default: negotiatetimeout, or 5s.", into(&c.checktimeout, timeout)},
		{"negotiatetimeout", "How long a check of type negotiate may take as a whole, 10ms to 24h. Default: checktimeout, or 30s.", into(&c.negotiatetimeout, timeout)},
		{"checkinterval", "Time from the start of a check to the start of the next, 10ms to 24h. Default 10s.", into(&c.checkinterval, timeout)},
		{"failurecount", "Failures in a row until a real server is down, 1 to 1000. Default 1.", into(&c.failurecount, r.integer(1, 1000))},
		{"rise", "Successes in a row until it is up again, 1 to 1000. Default 1.", into(&c.rise, r.integer(1, 1000))},
	}
}

// poolReader reads one ldirectord.yaml.
type poolReader struct {
	*reader
	global     checkSettings
	settings   serviceSettings
	autoreload opt[bool]
	fallback   [2]opt[realText] // for IPv4, for IPv6
	at         []*yaml.Node     // of Pool.Virtuals
	reals      int
	firstAt    map[string]*yaml.Node // virtual services by Virtual.String
	regexps    map[string]error
}

// realText is a real server's line and where it stands.
type realText struct {
	text string
	at   *yaml.Node
}

func newPoolReader(file string) *poolReader {
	return &poolReader{reader: &reader{file: file}, firstAt: map[string]*yaml.Node{}, regexps: map[string]error{}}
}

func (p *poolReader) fields(virtuals **yaml.Node) []field {
	line := func(n *yaml.Node) (realText, bool) {
		s, ok := p.scalar(n, "a server, \"127.0.0.1:80 gate\"")
		return realText{s, n}, ok
	}
	return append(append(p.global.fields(p.reader), p.settings.fields(p.reader)...),
		field{"autoreload", "Whether an edited file is applied without `keepbeat apply`. Default no.", into(&p.autoreload, p.boolean)},
		field{"fallback", "Server for IPv4 virtual services that have no real server up and no fallback of their own: ADDRESS[:PORT] [gate|masq|ipip]. Default: none.", into(&p.fallback[0], line)},
		field{"fallback6", "The same for IPv6.", into(&p.fallback[1], line)},
		field{"virtual", "The virtual services, a list. Required.", func(n *yaml.Node) { *virtuals = n }},
	)
}

// poolElsewhere are the words of ldirectord.cf that keepbeat does not have, or not yet.
func poolElsewhere() map[string]string {
	m := map[string]string{}
	for _, w := range strings.Fields("callback execute maintenancedir checkcount ops monitorfile servicename login passwd database secret") {
		m[w] = fmt.Sprintf("%q is not built yet; take it out", w)
	}
	for _, w := range strings.Fields("fork supervised") {
		m[w] = fmt.Sprintf("%q has no use here: checks never wait for each other; take it out", w)
	}
	m["logfile"] = "\"logfile\" has no use here: logs go to the journal, journalctl -u keepbeat; take it out"
	m["load"] = "\"load\" has no use here (ldirectord read it and did nothing with it); take it out"
	m["timeout"] = "\"timeout\" is \"checktimeout\" or \"negotiatetimeout\""
	m["connecttimeout"] = "\"connecttimeout\" is \"checktimeout\""
	m["virtual6"] = "\"virtual6\" is \"virtual\" here; the family follows from the address: \"[2001:db8::1]:80\""
	m["real6"] = "\"real6\" is \"real\" here; the family follows from the address: \"[2001:db8::2]:80 gate\""
	return m
}

// read parses the file. What is faulty is left out of the result, and in errs.
func (p *poolReader) read(data []byte) Pool {
	var pool Pool
	root := p.document(data)
	if root == nil {
		return pool
	}
	var virtuals *yaml.Node
	if !p.mapping(root, "a pool", p.fields(&virtuals), poolElsewhere()) {
		return pool
	}
	pool.Autoreload = p.autoreload.or(false)
	pool.Email = p.settings.email.over(emailSettings{})
	switch {
	case virtuals == nil && p.odd > 0:
	case virtuals == nil:
		p.errorf(root, "\"virtual\" is missing; list the virtual services: \"virtual: [{address: ..., real: [...]}]\"")
	case virtuals.Kind == yaml.SequenceNode && len(virtuals.Content) == 0:
		p.errorf(virtuals, "\"virtual\" is empty; list at least one virtual service")
	default:
		p.list(virtuals, "virtual", func(i int, n *yaml.Node) {
			if i == maxVirtuals {
				p.errorf(n, "more than %d virtual services in one pool; make two of it", maxVirtuals)
			}
			if i >= maxVirtuals {
				return
			}
			if v, ok := p.virtual(n); ok {
				pool.Virtuals = append(pool.Virtuals, v)
			}
		})
	}
	if told := func(v Virtual) bool { return v.Email.To != "" }; pool.Email.To == "" && !slices.ContainsFunc(pool.Virtuals, told) && p.odd == 0 {
		p.settings.email.useless(p.reader)
	}
	for i, family := range []string{"fallback", "fallback6"} {
		if f := p.fallback[i]; f.ok {
			if _, _, err := p.globalFallback(i == 1, 0, netip.AddrPort{}); err != nil {
				p.errorf(f.at, "%s: %s", family, err)
			}
		}
	}
	return pool
}

// globalFallback returns the fallback for a virtual service that has none of
// its own. As in ldirectord a forward method that cannot change the port gets
// the port of the service; forced tells when that is another than was written.
func (p *poolReader) globalFallback(six bool, protocol Protocol, virtual netip.AddrPort) (f *Real, forced bool, err error) {
	i := 0
	if six {
		i = 1
	}
	if !p.fallback[i].ok {
		return nil, false, nil
	}
	servers, _, err := parseReal(p.fallback[i].v.text, true)
	if err != nil {
		return nil, false, err
	}
	r := servers[0]
	if r.Address.Addr().Is6() != six {
		return nil, false, fmt.Errorf("%s is of the other family; fallback is for IPv4, fallback6 for IPv6", r.Address.Addr())
	}
	port := r.Address.Port()
	switch {
	case protocol == FWM && r.Forward != Masq:
		port = 0
	case port == 0 || protocol != 0 && r.Forward != Masq:
		port = virtual.Port()
	}
	forced = r.Address.Port() != 0 && port != r.Address.Port() && protocol != FWM && protocol != 0
	r.Address = netip.AddrPortFrom(r.Address.Addr(), port)
	return &r, forced, nil
}

// regexp compiles every distinct expression once.
func (p *poolReader) regexp(s string) error {
	err, known := p.regexps[s]
	if !known {
		if len(s) > 4096 {
			err = fmt.Errorf("receive is longer than 4096 characters")
		} else if _, e := regexp.Compile(s); e != nil {
			err = fmt.Errorf("receive %s is not a regular expression (RE2: no look-around, no back-references): %s",
				quote(s), oneLine(strings.TrimPrefix(e.Error(), "error parsing regexp: ")))
		}
		p.regexps[s] = err
	}
	return err
}

// netmask reads a dotted netmask or a prefix length for persistence.
func (p *poolReader) netmask(bits int) func(*yaml.Node) (int, bool) {
	return func(n *yaml.Node) (int, bool) {
		s, ok := p.scalar(n, "a netmask or the length of a prefix")
		if !ok {
			return 0, false
		}
		v, err := parsePrefixLength(s, bits)
		if err != nil {
			p.errorf(n, "netmask %s: write 255.255.255.0 or the length of the prefix, 1 to %s", quote(s), strconv.Itoa(bits))
			return 0, false
		}
		return v, true
	}
}
