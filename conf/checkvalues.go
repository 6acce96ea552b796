package conf

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"gopkg.in/yaml.v3"
)

// Limits of what a check sends.
const (
	maxRequest   = 8192
	maxSecret    = 512   // RADIUS has 128 for a password (RFC 2865, 5.2), and nobody types more
	maxHeaders   = 16384 // what servers commonly accept
	maxBody      = 65536
	maxDatagram  = 65507 // the payload of UDP over IPv4
	maxConnects  = 10_000
	maxPingCount = 100
	// defaultPingCount is left out of Check, which means the same.
	defaultPingCount = 3
)

// parseStatus makes "204,200-203" into the canonical "200-204"; the default, 200-299, into "".
func parseStatus(s string) (string, error) {
	type span struct{ from, to int }
	var spans []span
	for _, part := range strings.FieldsFunc(s, func(c rune) bool { return c == ',' || c == ' ' || c == '\t' }) {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		a, errA := strconv.Atoi(from)
		b, errB := strconv.Atoi(to)
		switch {
		case errA != nil || errB != nil || len(from) != 3 || len(to) != 3:
			return "", fmt.Errorf("status %s is not a code or a range of codes; write it like 200 or 200-299,401", quote(part))
		case a < 200 || b > 599:
			return "", fmt.Errorf("status %s is out of range: an answer ends with a code from 200 to 599", quote(part))
		case a > b:
			return "", fmt.Errorf("status %s runs backwards; the smaller code comes first", quote(part))
		}
		spans = append(spans, span{a, b})
	}
	if len(spans) == 0 {
		return "", errors.New("status is empty; write the codes that are fine, like 200-299,401")
	}
	slices.SortFunc(spans, func(x, y span) int { return cmp.Or(cmp.Compare(x.from, y.from), cmp.Compare(x.to, y.to)) })
	merged := spans[:1]
	for _, x := range spans[1:] {
		if last := &merged[len(merged)-1]; x.from <= last.to+1 {
			last.to = max(last.to, x.to)
		} else {
			merged = append(merged, x)
		}
	}
	words := make([]string, len(merged))
	for i, x := range merged {
		if words[i] = strconv.Itoa(x.from); x.to > x.from {
			words[i] += "-" + strconv.Itoa(x.to)
		}
	}
	if out := strings.Join(words, ","); out != "200-299" {
		return out, nil
	}
	return "", nil
}

// parseDigest reads md5:... or sha256:..., or the bare digits of one of them.
func parseDigest(s string) (string, error) {
	lower := strings.ToLower(s)
	kind, digits, named := strings.Cut(lower, ":")
	if !named {
		digits, kind = lower, map[int]string{32: "md5", 64: "sha256"}[len(lower)]
	}
	want, known := map[string]int{"md5": 32, "sha256": 64}[kind]
	if !known {
		return "", fmt.Errorf("digest %s is neither md5:... nor sha256:...; make one with sha256sum", quote(s))
	}
	if _, err := hex.DecodeString(digits); err != nil || len(digits) != want {
		return "", fmt.Errorf("digest %s: %s has %d hexadecimal digits", quote(s), kind, want)
	}
	return kind + ":" + digits, nil
}

// refusedHeaders are those that say how the message is sent, which is the check's business.
var refusedHeaders = map[string]string{
	"host":              "write virtualhost",
	"content-length":    "it follows from body",
	"transfer-encoding": "it follows from body",
	"connection":        "the check closes its connection",
	"upgrade":           "write http_version",
	"te":                "the check needs none",
	"trailer":           "the check sends none",
	"expect":            "the check sends its body at once",
}

// headerLine checks one field of a request (RFC 9110, 5) and brings it into its form. What is
// wrong with a value is said without it: it may be a key.
func headerLine(name, value string) (string, error) {
	const token = "!#$%&'*+-.^_`|~"
	if name == "" || strings.ContainsFunc(name, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(token, c))
	}) {
		return "", fmt.Errorf("%s is not the name of a header", quote(name))
	}
	if why, refused := refusedHeaders[strings.ToLower(name)]; refused {
		return "", fmt.Errorf("header %s cannot be given: %s", quote(name), why)
	}
	value = strings.Trim(value, " \t")
	if strings.ContainsFunc(value, func(c rune) bool { return unicode.IsControl(c) && c != '\t' }) {
		return "", fmt.Errorf("the value of header %s has a control character or a line break", quote(name))
	}
	return name + ": " + value, nil
}

// parsePayload reads text with \n, \r, \t, \0, \\ and \xNN, or hexadecimal digits after 0x, and returns hex.
func parsePayload(s string) (string, error) {
	if rest, isHex := strings.CutPrefix(strings.ToLower(s), "0x"); isHex {
		digits := strings.Join(strings.Fields(rest), "")
		if _, err := hex.DecodeString(digits); err != nil || digits == "" {
			return "", fmt.Errorf("payload %s: after 0x come pairs of hexadecimal digits", quote(s))
		}
		if len(digits) > 2*maxDatagram {
			return "", fmt.Errorf("the payload has %d bytes; a datagram holds %d", len(digits)/2, maxDatagram)
		}
		return digits, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b = append(b, s[i])
			continue
		}
		rest := s[i+1:]
		plain := strings.IndexByte("nrt0\\", append([]byte(rest), 'q')[0])
		switch {
		case plain >= 0:
			b = append(b, "\n\r\t\x00\\"[plain])
			i++
		case len(rest) > 2 && rest[0] == 'x':
			c, err := hex.DecodeString(rest[1:3])
			if err != nil {
				return "", fmt.Errorf("payload %s: after \\x come two hexadecimal digits", quote(s))
			}
			b = append(b, c...)
			i += 3
		default:
			return "", fmt.Errorf("payload %s: a backslash stands before n, r, t, 0, another backslash or xNN", quote(s))
		}
	}
	if len(b) > maxDatagram {
		return "", fmt.Errorf("the payload has %d bytes; a datagram holds %d", len(b), maxDatagram)
	}
	return hex.EncodeToString(b), nil
}

// parseReply reads hexadecimal digits, x for any, blanks between as one likes.
func parseReply(s string) (string, error) {
	digits := strings.Join(strings.Fields(strings.ToLower(s)), "")
	if rest, ok := strings.CutPrefix(digits, "0x"); ok {
		digits = rest
	}
	if digits == "" || len(digits)%2 != 0 || strings.Trim(digits, "0123456789abcdefx") != "" {
		return "", fmt.Errorf("reply %s is not pairs of hexadecimal digits, with x for any digit", quote(s))
	}
	if len(digits) > 2*maxDatagram {
		return "", fmt.Errorf("the reply has %d bytes; a datagram holds %d", len(digits)/2, maxDatagram)
	}
	return digits, nil
}

// recordTypes are those that a check of dns can ask for.
var recordTypes = []string{"A", "AAAA", "NS", "CNAME", "SOA", "MX", "TXT", "PTR", "SRV"}

// parseHelo reads who a client of SMTP says it is: a domain or an address
// literal (RFC 5321, 4.1.2 and 4.1.3).
func parseHelo(s string) (string, error) {
	bad := fmt.Errorf("helo_name %s is neither a name like director.example.org nor an address like [192.0.2.1] or [IPv6:2001:db8::1]", quote(s))
	if inner, ok := strings.CutPrefix(s, "["); ok {
		inner, closed := strings.CutSuffix(inner, "]")
		inner, v6 := strings.CutPrefix(inner, "IPv6:")
		if a, err := netip.ParseAddr(inner); err != nil || !closed || a.Is6() != v6 || a.Zone() != "" {
			return "", bad
		}
		return s, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		literal := a.String()
		if a.Is6() {
			literal = "IPv6:" + literal
		}
		return "", fmt.Errorf("helo_name: an address stands in brackets: [%s]", literal)
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || len(s) > 255 || label[0] == '-' || label[len(label)-1] == '-' || strings.ContainsFunc(label, func(c rune) bool {
			return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-')
		}) {
			return "", bad
		}
	}
	return s, nil
}

// checkDNSName holds a name to RFC 1035, 2.3.4.
func checkDNSName(s string) error {
	name := strings.TrimSuffix(s, ".")
	if s == "." {
		return nil
	}
	for _, label := range strings.Split(name, ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(c rune) bool { return c <= ' ' || c >= 0x7F }) {
			return fmt.Errorf("request %s is not a name that can be asked for: labels of 1 to 63 letters with dots between", quote(s))
		}
	}
	if len(name) > 253 {
		return fmt.Errorf("request %s is longer than the 253 letters of a name", quote(s))
	}
	return nil
}

// The readers of values that are not only one word.

// secretText reads a password or secret; no message says what it is.
func (p *poolReader) secretText(name string) func(n *yaml.Node) (string, bool) {
	return func(n *yaml.Node) (string, bool) {
		s, ok := p.scalar(n, "a text")
		switch {
		case !ok:
		case s == "":
			p.errorf(n, "%s is empty; leave the key out instead", name)
		case len(s) > maxSecret:
			p.errorf(n, "%s is longer than %d characters", name, maxSecret)
		case strings.ContainsFunc(s, unicode.IsControl):
			p.errorf(n, "%s has a control character or a line break", name)
		default:
			return s, true
		}
		return "", false
	}
}

// requestText reads what is asked; what may stand in it is the service's matter.
func (p *poolReader) requestText(n *yaml.Node) (string, bool) {
	s, ok := p.scalar(n, "a text")
	switch {
	case !ok:
	case s == "":
		p.errorf(n, "the request is empty; leave the key out instead")
	case len(s) > maxRequest:
		p.errorf(n, "the request is longer than %d characters", maxRequest)
	default:
		return s, true
	}
	return "", false
}

// parsed makes a reader of a function that parses text.
func (p *poolReader) parsed(want string, parse func(string) (string, error)) func(*yaml.Node) (string, bool) {
	return func(n *yaml.Node) (string, bool) {
		s, ok := p.scalar(n, want)
		if !ok {
			return "", false
		}
		out, err := parse(s)
		if err != nil {
			p.errorf(n, "%s", err)
			return "", false
		}
		return out, true
	}
}

// status reads codes in one text or in a list.
func (p *poolReader) status(n *yaml.Node) (string, bool) {
	if n.Kind != yaml.SequenceNode {
		return p.parsed("a text like 200-299,401", parseStatus)(n)
	}
	var all []string
	ok := p.list(n, "status", func(_ int, n *yaml.Node) {
		if s, ok := p.scalar(n, "a code"); ok {
			all = append(all, s)
		}
	})
	out, err := parseStatus(strings.Join(all, ","))
	if err != nil && ok {
		p.errorf(n, "%s", err)
	}
	return out, ok && err == nil && len(all) == len(n.Content)
}

// headers reads a mapping, or a list of lines "Name: value".
func (p *poolReader) headers(n *yaml.Node) (string, bool) {
	var lines []string
	before := len(p.errs)
	add := func(at *yaml.Node, name, value string) {
		line, err := headerLine(name, value)
		if err != nil {
			p.errorf(at, "%s", err)
			return
		}
		lines = append(lines, line)
	}
	if n.Kind == yaml.SequenceNode {
		p.list(n, "headers", func(_ int, n *yaml.Node) {
			if s, ok := p.scalar(n, "a line \"Name: value\""); ok {
				name, value, colon := strings.Cut(s, ":")
				if !colon {
					p.errorf(n, "a header is written like \"Name: value\"")
					return
				}
				add(n, name, value)
			}
		})
	} else {
		seen := map[string]bool{}
		p.pairs(n, "headers", func(key, value *yaml.Node) {
			if name := strings.ToLower(key.Value); seen[name] {
				p.errorf(key, "duplicate header %s; write a list of lines to send it twice", quote(key.Value))
			} else if v, ok := p.scalar(value, "a text"); ok {
				seen[name] = true
				add(value, key.Value, v)
			}
		})
	}
	out := strings.Join(lines, "\n")
	if len(out) > maxHeaders {
		p.errorf(n, "the headers have more than %d characters, which many servers refuse", maxHeaders)
	}
	return out, len(p.errs) == before
}

// body reads what is sent after the headers; line breaks may be in it.
func (p *poolReader) body(n *yaml.Node) (string, bool) {
	s, ok := p.scalar(n, "a text")
	if ok && len(s) > maxBody {
		p.errorf(n, "the body has %d bytes; the limit is %d", len(s), maxBody)
		return "", false
	}
	return s, ok
}

// source reads the address of the probe.
func (p *poolReader) source(n *yaml.Node) (netip.Addr, bool) {
	a, ok := p.address(n)
	if ok && (a.IsUnspecified() || a.IsMulticast() || a.Zone() != "") {
		p.errorf(n, "%s cannot be the source of a probe; write an address that this and every other director has", a)
		return a, false
	}
	return a, ok
}

// userName reads the name of whom a program runs as.
func (r *reader) userName(n *yaml.Node) (string, bool) {
	s, ok := r.text(n)
	if ok && (len(s) > 32 || s[0] == '-' || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7F || strings.ContainsRune(":/", c) })) {
		r.errorf(n, "%s cannot be the name of a user", quote(s))
		return "", false
	}
	return s, ok
}

func (p *poolReader) receive(n *yaml.Node) (string, bool) {
	s, ok := p.scalar(n, "a regular expression")
	if !ok {
		return "", false
	}
	if err := p.regexp(s); err != nil {
		p.errorf(n, "%s", err)
		return "", false
	}
	return s, true
}

func (p *poolReader) virtualhost(n *yaml.Node) (string, bool) {
	s, ok := p.text(n)
	if ok && (len(s) > 255 || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7F || strings.ContainsRune("/?#@\\\"<>", c) })) {
		p.errorf(n, "%s cannot be the name of a host", quote(s))
		return "", false
	}
	return s, ok
}

func (p *poolReader) httpmethod(n *yaml.Node) (string, bool) {
	methods := []string{"GET", "HEAD", "POST", "PUT", "OPTIONS"}
	s, ok := p.scalar(n, "one of "+strings.Join(methods, ", "))
	if !ok {
		return "", false
	}
	if u := strings.ToUpper(s); slices.Contains(methods, u) {
		return u, true
	}
	p.errorf(n, "httpmethod %s is not one of %s", quote(s), strings.Join(methods, ", "))
	return "", false
}

func (p *poolReader) checkcommand(n *yaml.Node) (string, bool) {
	s, ok := p.path(n)
	if ok && strings.ContainsAny(s, " \t") {
		p.errorf(n, "checkcommand %s: no arguments can be given here; write a small script", quote(s))
		return "", false
	}
	return s, ok
}
