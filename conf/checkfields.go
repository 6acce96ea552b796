package conf

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// checkFields are the keys that say how a server is checked. They may stand at
// the top of a pool, in a virtual service, in a real server and in entries of
// urls and checks; each begins as a copy of the one above it, and what it says
// itself is read over that.
type checkFields struct {
	up           *checkFields // whose copy it began as; nil: the top of the pool
	at           *yaml.Node   // the mapping; nil at the top
	odd          bool         // the mapping has keys that are not understood
	beside       bool         // an entry of checks: it need not be asked by the protocol of the virtual service
	written      []writtenKey // here, in the order of the file
	check        Check        // as far as it is known without the server: no Target, Timeout, Args
	port         uint16       // checkport; 0: not given
	timeout      opt[time.Duration]
	negotiation  opt[time.Duration] // negotiatetimeout
	urls, checks *yaml.Node
}

type writtenKey struct {
	name   string
	at     *yaml.Node
	faulty bool
}

// newCheckFields has the defaults.
func newCheckFields() *checkFields {
	return &checkFields{check: Check{Type: Negotiate, Interval: DefaultCheckInterval, Fall: 1, Rise: 1}}
}

// inherit returns what begins as a copy of c; at is its mapping.
func (c *checkFields) inherit(at *yaml.Node) *checkFields {
	return &checkFields{up: c, at: at, beside: c.beside, check: c.check, port: c.port, urls: c.urls, checks: c.checks}
}

// here returns where a key was written at this level, or nil.
func (c *checkFields) here(name string) *yaml.Node {
	for _, w := range c.written {
		if w.name == name {
			return w.at
		}
	}
	return nil
}

// place returns where one of the keys was written, at the nearest level and
// the first of names there, or n when none was.
func (c *checkFields) place(n *yaml.Node, names ...string) *yaml.Node {
	for ; c != nil; c = c.up {
		for _, name := range names {
			if at := c.here(name); at != nil {
				return at
			}
		}
	}
	return n
}

// gave tells whether a key was written at any level, be it wrong.
func (c *checkFields) gave(names ...string) bool { return c.place(nil, names...) != nil }

// faulty tells whether a key was wrong at the nearest level that has it.
func (c *checkFields) faulty(name string) bool {
	for ; c != nil; c = c.up {
		for _, w := range c.written {
			if w.name == name {
				return w.faulty
			}
		}
	}
	return false
}

// read reads the value of a key.
func (c *checkFields) read(p *poolReader, k *checkKey, n *yaml.Node) {
	before := len(p.errs)
	k.read(p, c, n)
	c.written = append(c.written, writtenKey{k.name, n, len(p.errs) > before})
}

// checkKey is a key of checkFields.
type checkKey struct {
	name string
	of   takes // services that make use of it; 0: it is not a matter of the service
	doc  string
	read func(p *poolReader, c *checkFields, n *yaml.Node)
}

// fields returns the keys as a mapping has them, those of names or all.
func (c *checkFields) fields(p *poolReader, names ...string) []field {
	out := make([]field, 0, len(checkKeys))
	for i := range checkKeys {
		k := &checkKeys[i]
		if len(names) > 0 && !slices.Contains(names, k.name) {
			continue
		}
		out = append(out, field{k.name, k.doc, func(n *yaml.Node) {
			c.read(p, k, n)
		}})
	}
	return out
}

// givenKey is a key that was written and is not read yet.
type givenKey struct {
	key *checkKey
	at  *yaml.Node
}

// givenFields collects the keys of a server's check: what they are read over is known later.
func givenFields(to *[]givenKey) []field {
	out := make([]field, 0, len(checkKeys))
	for i := range checkKeys {
		k := &checkKeys[i]
		out = append(out, field{k.name, k.doc, func(n *yaml.Node) { *to = append(*to, givenKey{k, n}) }})
	}
	return out
}

// CheckPlace is where the keys of a check stand, in KeyDoc.Path.
const CheckPlace = "virtual[], virtual[].real[], virtual[].checks[] and at the top"

// urlKeys are the keys of an entry of urls.
var urlKeys = []string{"request", "receive", "virtualhost", "httpmethod", "status", "digest", "headers", "body"}

// set keeps a value that was read.
func set[T any](to *T, read func(*yaml.Node) (T, bool), n *yaml.Node) {
	if v, ok := read(n); ok {
		*to = v
	}
}

// word makes a reader of one of some words.
func word(p *poolReader, words ...string) func(*yaml.Node) (string, bool) {
	return oneOf(p.reader, words, words...)
}

const (
	leastTime = 10 * time.Millisecond
	mostTime  = 24 * time.Hour
)

func (c *checkFields) duration(p *poolReader, n *yaml.Node, least time.Duration) opt[time.Duration] {
	d, ok := p.duration(least, mostTime)(n)
	return opt[time.Duration]{d, n, ok}
}

// checkKeys are all, in the order of the manual.
var checkKeys = []checkKey{
	{"checktype", 0, "negotiate (request and answer of the service), connect (TCP or SCTP; of a UDP service a ping), ping, external (a program), external-perl (a program for perl), file (the content of a file on the director), on (always up), off (never), or a number N from 1 to 10000: each negotiate is followed by N connects. Default negotiate.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		p.checktype(c, n)
	}},
	{"service", 0, "What negotiate speaks: " + strings.Join(Services(), ", ") + ". udp sends payload; none asks nothing, and the server counts as up. Default: from the port, where ldirectord has one for it; there is none for grpc, grpcs, simpletcp and udp.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		p.service(c, n)
	}},
	{"checkport", 0, "Port that is checked, 1 to 65535. Default: the real server's, or the service's.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		if v, ok := p.integer(1, 65535)(n); ok {
			c.port = uint16(v)
		}
	}},
	{"checktimeout", 0, "How long a check may take that does not negotiate, 10ms to 24h. Default: negotiatetimeout, or 5s.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		c.timeout = c.duration(p, n, leastTime)
	}},
	{"negotiatetimeout", 0, "How long a check of type negotiate may take as a whole, 10ms to 24h. Default: checktimeout, or 30s.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		c.negotiation = c.duration(p, n, leastTime)
	}},
	{"checkinterval", 0, "Time from the start of a check to the start of the next, 10ms to 24h. Default 10s.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.Interval, p.duration(leastTime, mostTime), n)
	}},
	{"checkinterval_down", 0, "The same while the server is down, 10ms to 24h. Default: checkinterval.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.IntervalDown, p.duration(leastTime, mostTime), n)
	}},
	{"jitter", 0, "Each start is put off by a random time up to this, 0s to checkinterval. Default 0s: checks are spread evenly as it is.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.Jitter, p.duration(0, mostTime), n)
	}},
	{"failurecount", 0, "Failures in a row until a real server is down, 1 to 1000. Default 1.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.Fall, p.integer(1, 1000), n)
	}},
	{"rise", 0, "Successes in a row until it is up again, 1 to 1000. Default 1.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.Rise, p.integer(1, 1000), n)
	}},
	{"checkcount", 0, "ping: echo requests, spread over the time-out, until the check has failed, 1 to 100. Default 3: one lost packet is no dead server.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.Count, p.integer(1, maxPingCount), n)
	}},
	{"request", takesRequest, "What is asked for. http, https: a path, by default /; http_proxy: a URL http://... that is fetched through the server; grpc, grpcs: the service whose health is asked, by default the server's; dns: a name, or an address for its PTR record; ftp: a file; ldap, ldaps: the DN that is read; mysql, pgsql: a query; simpletcp: a text with \\n, \\r, \\t, \\\\ and \\xNN; sip: a URI, by default sip:LOGIN.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.Request, p.requestText, n)
	}},
	{"receive", takesReceive, "Regular expression (RE2) that has to match: http, https, http_proxy: the body; dns: one of the answers; ftp: the file; ldap, ldaps: the DN or a value; mysql, pgsql: a value; simpletcp: a line of the answer; services of mail and news: the greeting. Default: anything.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.Receive, p.receive, n)
	}},
	{"login", takesUser, "Name to log in with; of radius the User-Name, of sip who asks. Default: no login; anonymous of ftp, ldirectord@HOST of sip.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.Login, p.text, n)
	}},
	{"passwd", takesPasswd, "Password for login. It is replicated with the file and never shown.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.Passwd, p.secretText("passwd"), n)
		c.check.PasswdFile = ""
	}},
	{"passwd_file", takesPasswd, "In place of passwd: a file on each director that holds it, an absolute path. It is read for each check.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.PasswdFile, p.path, n)
		c.check.Passwd = ""
	}},
	{"database", takesDatabase, "mysql, pgsql: the database; oracle: the service name that the listener is asked for, or a colon and the SID; without it the listener is pinged.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.Database, p.text, n)
	}},
	{"secret", takesSecret, "radius: the shared secret. It is replicated with the file and never shown.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.Secret, p.secretText("secret"), n)
		c.check.SecretFile = ""
	}},
	{"secret_file", takesSecret, "In place of secret: a file on each director that holds it, an absolute path.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.SecretFile, p.path, n)
		c.check.Secret = ""
	}},
	{"virtualhost", takesHost, "http, https, http_proxy: the Host header; grpc, grpcs: the authority. Default: the real server's address; of http_proxy the host of request.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.VirtualHost, p.virtualhost, n)
	}},
	{"httpmethod", takesHTTP, "http, https, http_proxy: GET, HEAD, POST, PUT or OPTIONS. Default GET.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.HTTPMethod, p.httpmethod, n)
	}},
	{"status", takesHTTP, "http, https, http_proxy: the codes that are fine, like 200-299,401, or a list. Default 200-299.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.Status, p.status, n)
	}},
	{"digest", takesHTTP, "http, https, http_proxy: md5:... or sha256:... of the body as it comes, which has to be shorter than 1 MiB. Default: it is not looked at.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.Digest, p.parsed("md5:... or sha256:...", parseDigest), n)
	}},
	{"headers", takesHTTP, "http, https, http_proxy: more headers of the request, a mapping, or a list of lines \"Name: value\".", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.Headers, p.headers, n)
	}},
	{"body", takesHTTP, "http, https, http_proxy: what POST, PUT or OPTIONS sends.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.Body, p.body, n)
	}},
	{"http_version", takesHTTP, "http, https: 1.0, 1.1 or 2, which https agrees on by ALPN and http takes for granted; http_proxy: 1.0 or 1.1. Default 1.1.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.HTTPVersion, word(p, "1.0", "1.1", "2"), n)
	}},
	{"urls", takesHTTP, "http, https, http_proxy: several requests, a list of mappings with " + strings.Join(urlKeys, ", ") + "; the server is up while all of them succeed. What an entry does not say is that of the server. A real server with a request or receive of its own is asked for that alone.", func(_ *poolReader, c *checkFields, n *yaml.Node) {
		c.urls = n
	}},
	{"record_type", takesRecord, "dns: " + strings.Join(recordTypes, ", ") + ". Default A, and PTR of an address.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.RecordType, p.recordType, n)
	}},
	{"payload", takesPayload, "udp: what is sent: text with \\n, \\r, \\t, \\0, \\\\ and \\xNN, or 0x and hexadecimal digits. Default: an empty datagram.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.Payload, p.parsed("a text, or 0x and digits", parsePayload), n)
	}},
	{"reply", takesPayload, "udp: how the reply begins, in hexadecimal digits; x stands for any digit. Default: no reply is waited for unless reply_min or reply_max is given, and only an ICMP error tells that the server is down.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.ReplyHex, p.parsed("hexadecimal digits", parseReply), n)
	}},
	{"reply_min", takesPayload, "udp: the least length of the reply in bytes, 0 to 65507. Default 0.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.ReplyMin, p.integer(0, maxDatagram), n)
	}},
	{"reply_max", takesPayload, "udp: the greatest length of the reply in bytes, 0 to 65507; 0: any. Default 0.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.ReplyMax, p.integer(0, maxDatagram), n)
	}},
	{"helo_name", takesHelo, "smtp, smtps, submission: the name that is said with EHLO, a host name, or an address in brackets. Default: the address that the probe comes from, in brackets.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.HeloName, p.parsed("a host name, or an address in brackets", parseHelo), n)
	}},
	{"starttls", takesSTARTTLS, "Whether the connection turns to TLS before anything else is asked: " + asking(takesSTARTTLS) + ". Default no.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.STARTTLS, p.boolean, n)
	}},
	{"tls_verify", takesTLS, "Whether the certificate is verified. Default no, as in ldirectord. This and the next: " + asking(takesTLS) + ", and all others with starttls.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.TLSVerify, p.boolean, n)
	}},
	{"tls_name", takesTLS, "Name that is sent as SNI and verified. Default: virtualhost, or the real server's address.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.TLSName, p.virtualhost, n)
	}},
	{"tls_ca", takesTLS, "With tls_verify: file of the PEM certificates that are trusted, an absolute path on each director. This and the files of tls_cert and tls_key are read again when they change. Default: the system's.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.TLSCA, p.path, n)
	}},
	{"tls_min", takesTLS, "The oldest version that is accepted: 1.0, 1.1, 1.2 or 1.3. Below 1.2, RSA key exchange and 3DES are offered, too, as old servers need; SSL 3.0, RC4 and Diffie Hellman without elliptic curves never. Default 1.0.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.TLSMin, word(p, "1.0", "1.1", "1.2", "1.3"), n)
	}},
	{"tls_cert", takesTLS, "The client's certificate, a PEM file on each director, an absolute path. Default: none.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.TLSCert, p.path, n)
	}},
	{"tls_key", takesTLS, "Its key, a PEM file on each director, an absolute path. Default: in the file of tls_cert.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.TLSKey, p.path, n)
	}},
	{"checkcommand", 0, "external, external-perl: the program, an absolute path. It gets address (or mark), port, real address and real port as arguments; exit status 0 is up.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.Command, p.checkcommand, n)
	}},
	{"user", 0, "external, external-perl: the user as whom the program runs. Default: the daemon's, root.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.User, p.userName, n)
	}},
	{"dynamic", 0, "external, external-perl: exit statuses 2 to 255 are up, too, with the weight status - 2; file: the number in the file is the weight. Default no.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.Dynamic, p.boolean, n)
	}},
	{"path", 0, "file: the file on each director whose content says whether the server is up, an absolute path.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.Path, p.path, n)
	}},
	{"checksource", 0, "Address that the probe comes from, of the real server's family; every director has to have it. Default: the kernel's choice.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.Source, p.source, n)
	}},
	{"checkinterface", 0, "Interface that the probe goes out of. Default: the kernel's choice.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.Interface, p.iface, n)
	}},
	{"checkmark", 0, "Firewall mark of the probe's packets, 1 to 4294967295 (0x... too). Default: none.", func(p *poolReader, c *checkFields, n *yaml.Node) {
		set(&c.check.Mark, p.fwmark, n)
	}},
	{"checks", 0, "More checks of each server, a list of mappings with the keys of this section; the server is up while all of them succeed. What an entry does not say is that of the server; of another service, its own request, receive and port.", func(_ *poolReader, c *checkFields, n *yaml.Node) {
		c.checks = n
	}},
}

// keyNamed finds one of checkKeys.
func keyNamed(name string) *checkKey {
	return &checkKeys[slices.IndexFunc(checkKeys, func(k checkKey) bool { return k.name == name })]
}

// checktype reads the type; a number makes it negotiate with connects between.
func (p *poolReader) checktype(c *checkFields, n *yaml.Node) {
	words := []string{"negotiate", "connect", "ping", "external", "external-perl", "file", "on", "off"}
	s, ok := p.scalar(n, "one of "+strings.Join(words, ", ")+" or a number")
	if !ok {
		return
	}
	k := &c.check
	if _, err := strconv.Atoi(s); err == nil {
		if v, err := parseNumber(s, 1, maxConnects); err != nil {
			p.errorf(n, "checktype: so many connects follow each negotiate: %s", err)
		} else {
			k.Type, k.Connects, k.Perl = Negotiate, int(v), false
		}
		return
	}
	i := slices.Index(words, s)
	if i < 0 {
		p.errorf(n, "unknown checktype %s%s", quote(s), didYouMean(s, words))
		return
	}
	k.Type = []CheckType{Negotiate, Connect, Ping, External, External, File, On, Off}[i]
	k.Connects, k.Perl = 0, s == "external-perl"
}

func (p *poolReader) service(c *checkFields, n *yaml.Node) {
	s, ok := p.scalar(n, "the name of a service")
	if !ok {
		return
	}
	if serviceNamed(s) == nil {
		p.errorf(n, "unknown service %s%s", quote(s), didYouMean(s, Services()))
		return
	}
	c.check.Service = s
}

func (p *poolReader) recordType(n *yaml.Node) (string, bool) {
	s, ok := p.scalar(n, "a type of record")
	if !ok {
		return "", false
	}
	if u := strings.ToUpper(s); slices.Contains(recordTypes, u) {
		return u, true
	}
	p.errorf(n, "record_type %s is not one of %s", quote(s), strings.Join(recordTypes, ", "))
	return "", false
}
