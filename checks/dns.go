package checks

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/keepbeat/keepbeat/conf"
)

// recordTypes are those that a check may ask for.
var recordTypes = []uint16{
	dns.TypeA, dns.TypeAAAA, dns.TypeNS, dns.TypeCNAME, dns.TypeSOA, dns.TypeMX, dns.TypeTXT, dns.TypePTR, dns.TypeSRV,
}

// dnsCheck is checktype negotiate for dns: one question (RFC 1035), by TCP, or
// by UDP and again by TCP when the answer was cut. The answer has to have RCODE 0 and hold
// a record of the type; with receive the expression has to match what one of
// its records says. A server that knows nothing of the name is as useless as
// one that is dead, so that "no error" alone, keepalived's rule, is not enough.
type dnsCheck struct {
	c        conf.Check
	question dns.Question
	receive  *regexp.Regexp // nil: any record of the type
	env      *env
}

func newDNS(c conf.Check, e *env) (Checker, error) {
	d := &dnsCheck{c: c, env: e}
	if err := needTCPPort(c); err != nil {
		return nil, err
	}
	name := strings.TrimPrefix(c.Request, "/") // ldirectord put one before every request
	if name == "" {
		return nil, fmt.Errorf(`service dns needs "request", the name or address to ask for`)
	}
	d.question = dns.Question{Qtype: dns.TypeA, Qclass: dns.ClassINET}
	if c.RecordType != "" {
		d.question.Qtype = dns.StringToType[c.RecordType]
		if !slices.Contains(recordTypes, d.question.Qtype) {
			return nil, fmt.Errorf("record_type %q is not known; A, AAAA, NS, CNAME, SOA, MX, TXT, PTR and SRV are", c.RecordType)
		}
	}
	if a, err := netip.ParseAddr(name); err == nil && (c.RecordType == "" || d.question.Qtype == dns.TypePTR) {
		d.question.Qtype = dns.TypePTR
		if name, err = dns.ReverseAddr(a.Unmap().WithZone("").String()); err != nil {
			return nil, fmt.Errorf("request %q: %w", c.Request, err)
		}
	}
	d.question.Name = dns.Fqdn(name)
	if _, err := d.query(); err != nil {
		return nil, fmt.Errorf("request %q is not a name that can be asked for: %w", c.Request, err)
	}
	if err := sameFamily(c); err != nil {
		return nil, err
	}
	var err error
	d.receive, err = e.wanted(c)
	return d, err
}

// query makes the question with a new random ID.
func (d *dnsCheck) query() ([]byte, error) {
	m := dns.Msg{Question: []dns.Question{d.question}}
	m.Id, m.RecursionDesired = dns.Id(), true
	return m.Pack()
}

func (d *dnsCheck) Check(ctx context.Context) (string, error) {
	query, err := d.query()
	if err != nil {
		return "", err
	}
	if d.c.UDP {
		if detail, cut, err := d.askUDP(ctx, query); !cut {
			return detail, err
		}
	}
	return d.askTCP(ctx, query)
}

func (d *dnsCheck) askUDP(ctx context.Context, query []byte) (detail string, cut bool, err error) {
	conn, err := dialUDPCheck(ctx, d.c)
	if err != nil {
		return "", false, err
	}
	defer conn.Close()
	buf := d.env.buffers.Get().(*[bufSize]byte)
	defer d.env.buffers.Put(buf)
	err = conn.ask(query, buf[:], func(answer []byte) error {
		var err error
		detail, cut, err = d.judge(query, answer)
		return err
	})
	return detail, cut, err
}

// askTCP asks with the length before each message (RFC 1035, 4.2.2).
func (d *dnsCheck) askTCP(ctx context.Context, query []byte) (string, error) {
	s, err := openStream(ctx, d.c, nil)
	if err != nil {
		return "", err
	}
	defer s.Close()
	if err := s.write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
		return "", err
	}
	n, err := s.read(2)
	if err != nil {
		return "", err
	}
	answer, err := s.read(int(binary.BigEndian.Uint16(n)))
	if err != nil {
		return "", err
	}
	detail, cut, err := d.judge(query, answer)
	if cut {
		return "", fmt.Errorf("the answer by TCP is cut, too")
	}
	return detail, err
}

// judge looks at an answer. cut: there is more of it, by TCP. An error that is
// foreign says that it answers something else.
func (d *dnsCheck) judge(query, p []byte) (detail string, cut bool, err error) {
	const headerSize, response, truncated = 12, 0x80, 0x02
	switch {
	case len(p) < headerSize || p[2]&response == 0:
		return "", false, foreign("not a DNS answer: " + quote(p))
	case p[0] != query[0] || p[1] != query[1]:
		return "", false, foreign("an answer with another ID")
	case p[2]&truncated != 0:
		return "", true, nil // what a cut answer holds need not even be well-formed
	}
	var m dns.Msg
	if err := m.Unpack(p); err != nil {
		return "", false, fmt.Errorf("not a DNS answer: %w", err)
	}
	if len(m.Question) == 0 && m.Rcode != dns.RcodeSuccess {
		return "", false, rcodeError(m.Rcode) // some servers do not repeat what they refuse
	}
	if len(m.Question) != 1 || m.Question[0].Qtype != d.question.Qtype || m.Question[0].Qclass != d.question.Qclass ||
		!strings.EqualFold(m.Question[0].Name, d.question.Name) {
		return "", false, foreign("an answer to another question")
	}
	if m.Rcode != dns.RcodeSuccess {
		return "", false, rcodeError(m.Rcode)
	}
	wanted := dns.TypeToString[d.question.Qtype]
	if d.receive == nil {
		for _, rr := range m.Answer {
			if rr.Header().Rrtype == d.question.Qtype {
				return fmt.Sprintf("%s %s%s", wanted, recordText(rr), andMore(len(m.Answer)-1)), false, nil
			}
		}
		return "", false, fmt.Errorf("no %s record in %d answers", wanted, len(m.Answer))
	}
	for _, rr := range m.Answer {
		text := recordText(rr)
		if d.receive.MatchString(text) || d.receive.MatchString(strings.TrimSuffix(text, ".")) {
			return fmt.Sprintf("%s %s, match for %q", dns.TypeToString[rr.Header().Rrtype], text, d.c.Receive), false, nil
		}
	}
	first := ""
	if len(m.Answer) > 0 {
		first = ", the first: " + recordText(m.Answer[0])
	}
	return "", false, fmt.Errorf("no match for %q in %d answers%s", d.c.Receive, len(m.Answer), first)
}

func rcodeError(rcode int) error {
	name := dns.RcodeToString[rcode]
	if name == "" {
		name = fmt.Sprint(rcode)
	}
	return fmt.Errorf("RCODE %s", name)
}

// andMore counts what is not shown.
func andMore(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", n)
}

// recordText is what a record says, as in a zone file; of TXT the strings put
// together without quotes.
func recordText(rr dns.RR) string {
	if txt, ok := rr.(*dns.TXT); ok {
		return strings.Join(txt.Txt, "")
	}
	return strings.TrimPrefix(rr.String(), rr.Header().String())
}
