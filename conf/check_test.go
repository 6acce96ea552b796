package conf

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

// checkCheck holds what every check promises to those who run it.
func checkCheck(t *testing.T, v Virtual, r Real, c Check) {
	t.Helper()
	bad := func(why string) {
		b, err := json.Marshal(c)
		t.Errorf("%s: %s: %s\n%s (%v)", v, ServerName(r.Address), why, b, err)
	}
	if c.Type == 0 || !c.Target.IsValid() || c.Interval <= 0 || c.Timeout <= 0 || c.Fall < 1 || c.Rise < 1 || c.IntervalDown < 0 || c.Jitter < 0 || c.Jitter > c.Interval {
		bad("timing or target")
	}
	bare := Check{
		Type: c.Type, Target: c.Target, Source: c.Source, Interface: c.Interface, Mark: c.Mark,
		Interval: c.Interval, IntervalDown: c.IntervalDown, Jitter: c.Jitter, Timeout: c.Timeout, Fall: c.Fall, Rise: c.Rise,
	}
	switch c.Type {
	case Negotiate:
		s := serviceNamed(c.Service)
		if s == nil || s.takes == 0 || c == r.Check && !s.speaks(v.Protocol) || c.Target.Port() == 0 || c.Count != 0 || c.Command != "" || c.Path != "" {
			bad("service")
			return
		}
		http := s.takes&takesHTTP != 0
		if http != (c.HTTPMethod != "") || !http && c.Status+c.Digest+c.Headers+c.Body+c.HTTPVersion != "" {
			bad("not of http")
		}
		if http && !strings.HasPrefix(c.Request, "/") && !strings.HasPrefix(c.Request, "http://") && c.Request != "*" {
			bad("request")
		}
		if c.Service != "simpletcp" && strings.ContainsFunc(c.Request, unicode.IsControl) || http && strings.Contains(c.Request, " ") {
			bad("request")
		}
		if c.Passwd != "" && c.PasswdFile != "" || c.Secret != "" && c.SecretFile != "" {
			bad("two passwords")
		}
		if s.takes&takesTLS == 0 && !c.STARTTLS && (c.TLSVerify || c.TLSName+c.TLSCA+c.TLSMin+c.TLSCert+c.TLSKey != "") {
			bad("TLS")
		}
		for of, text := range map[takes]string{
			takesRequest: c.Request, takesReceive: c.Receive, takesUser: c.Login, takesPasswd: c.Passwd + c.PasswdFile,
			takesDatabase: c.Database, takesSecret: c.Secret + c.SecretFile, takesHost: c.VirtualHost, takesRecord: c.RecordType, takesPayload: c.Payload + c.ReplyHex, takesHelo: c.HeloName,
		} {
			if s.takes&of == 0 && text != "" {
				bad("what means nothing to the service: " + text)
			}
		}
		return
	case Connect:
		if bare.Service = c.Service; c.Target.Port() == 0 || c == r.Check && v.Protocol == UDP || (c.Service == "sctp") != (v.Protocol == SCTP) || c.Service != "" && c.Service != "sctp" {
			bad("connect")
		}
	case Ping:
		if bare.Count = c.Count; c.Target.Port() != 0 {
			bad("port")
		}
	case External:
		bare.Command, bare.Args, bare.Perl, bare.User, bare.Dynamic = c.Command, c.Args, c.Perl, c.User, c.Dynamic
		if c.Command == "" || len(strings.Fields(c.Args)) != 4 {
			bad("program")
		}
	case File:
		if bare.Path, bare.Dynamic = c.Path, c.Dynamic; c.Path == "" {
			bad("path")
		}
	}
	if bare != c || (c.Source.IsValid() || c.Interface != "" || c.Mark != 0) && c.Type != Connect && c.Type != Ping {
		bad("what means nothing to the type")
	}
}

// checksOf reads a pool of one virtual service and returns the checks of each
// real server, one line each: what differs from the defaults.
func checksOf(t *testing.T, text string) []string {
	t.Helper()
	var got []string
	for _, r := range pool(t, text).Virtuals[0].Reals {
		for _, c := range append([]Check{r.Check}, r.Also...) {
			line := c.String()
			v := reflect.ValueOf(c)
			for i := range v.NumField() {
				name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
				f := v.Field(i)
				switch name {
				case "type", "service", "target":
					continue
				case "interval", "timeout", "httpmethod":
					if d := map[string]string{"interval": "10s", "timeout": "30s", "httpmethod": "GET"}[name]; fmt.Sprint(f.Interface()) == d || f.IsZero() {
						continue
					}
				case "fall", "rise":
					if f.Int() == 1 {
						continue
					}
				}
				if !f.IsZero() {
					line += fmt.Sprintf(" %s=%v", name, f.Interface())
				}
			}
			got = append(got, line)
		}
	}
	return got
}

func TestWhatIsNearerToTheServerCounts(t *testing.T) {
	got := checksOf(t, `
checkinterval: 1s
checkinterval_down: 3s
jitter: 100ms
failurecount: 2
tls_min: "1.2"
login: globe
virtual:
  - address: 10.0.0.1:143
    starttls: yes
    login: virtual
    passwd: one
    rise: 3
    negotiatetimeout: 4s
    checkmark: 0x10
    checksource: 10.0.0.100
    checkinterface: eth1
    real:
      - 10.0.0.11 gate
      - {address: 10.0.0.12, forward: gate, login: real, passwd_file: /etc/p, checkinterval: 5s, checkinterval_down: 5s, failurecount: 4, checktimeout: 7s, starttls: no, checkport: 144}
      - {address: 10.0.0.13, forward: gate, service: imaps, tls_verify: yes, jitter: 0s}
      - {address: 10.0.0.14, forward: gate, checktype: connect, negotiatetimeout: 2s}
      - {address: 10.0.0.15, forward: gate, checktype: ping, checkcount: 5}
      - {address: 10.0.0.16, forward: gate, checktype: external, checkcommand: /bin/c, user: nobody, dynamic: yes}
      - {address: 10.0.0.17, forward: gate, checktype: external-perl, checkcommand: /bin/c}
      - {address: 10.0.0.18, forward: gate, checktype: file, path: /run/../run/switch}
      - {address: 10.0.0.19, forward: gate, checktype: 5}
      - {address: 10.0.0.20, forward: gate, checktype: off}
      - {address: 10.0.0.21, forward: gate, service: none}
`)
	const timing = " interval=1s interval_down=3s jitter=100ms timeout=4s fall=2 rise=3"
	const from = " source=10.0.0.100 interface=eth1 mark=16"
	want := []string{
		"negotiate imap 10.0.0.11:143 login=virtual passwd=one starttls=true tls_min=1.2" + from + timing,
		"negotiate imap 10.0.0.12:144 login=real passwd_file=/etc/p" + from + " interval=5s jitter=100ms timeout=7s fall=4 rise=3",
		"negotiate imaps 10.0.0.13:143 login=virtual passwd=one tls_verify=true tls_min=1.2" + from + " interval=1s interval_down=3s timeout=4s fall=2 rise=3",
		"connect 10.0.0.14:143" + from + " interval=1s interval_down=3s jitter=100ms timeout=2s fall=2 rise=3",
		"ping 10.0.0.15:0 count=5" + from + timing,
		"external 10.0.0.16:143 command=/bin/c args=10.0.0.1 143 10.0.0.16 143 user=nobody dynamic=true" + timing,
		"external 10.0.0.17:143 command=/bin/c args=10.0.0.1 143 10.0.0.17 143 perl=true" + timing,
		"file 10.0.0.18:0 path=/run/switch" + timing,
		"negotiate imap 10.0.0.19:143 connects=5 login=virtual passwd=one starttls=true tls_min=1.2" + from + timing,
		"off 10.0.0.20:0" + timing,
		"on 10.0.0.21:0" + timing,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestValuesHaveOneForm(t *testing.T) {
	for name, c := range map[string]struct{ keys, want string }{
		"status":                   {"status: 401, 204-210 200-203,211", "negotiate http 10.0.0.11:80 request=/ status=200-211,401"},
		"the status that is usual": {"status: [200, 201-299]", "negotiate http 10.0.0.11:80 request=/"},
		"digest":                   {"digest: MD5:D41D8CD98F00B204E9800998ECF8427E", "negotiate http 10.0.0.11:80 request=/ digest=md5:d41d8cd98f00b204e9800998ecf8427e"},
		"digest of keepalived":     {"digest: d41d8cd98f00b204e9800998ecf8427e", "negotiate http 10.0.0.11:80 request=/ digest=md5:d41d8cd98f00b204e9800998ecf8427e"},
		"headers":                  {"headers: {X-A: 1, X-B: ' b '}", "negotiate http 10.0.0.11:80 request=/ headers=X-A: 1\nX-B: b"},
		"headers in lines":         {"headers: ['X-A: 1', 'X-A:2']", "negotiate http 10.0.0.11:80 request=/ headers=X-A: 1\nX-A: 2"},
		"body":                     {"httpmethod: post\n    body: \"a\\nb\"\n    http_version: 1.1", "negotiate http 10.0.0.11:80 request=/ httpmethod=POST body=a\nb"},
		"HTTP/2":                   {"http_version: 2\n    request: x", "negotiate http 10.0.0.11:80 request=/x http_version=2"},
		"all of a server":          {"httpmethod: OPTIONS\n    request: '*'", "negotiate http 10.0.0.11:80 request=* httpmethod=OPTIONS"},
		"name for TLS":             {"service: https\n    virtualhost: www:8443\n    tls_min: 1.0", "negotiate https 10.0.0.11:80 virtualhost=www:8443 request=/ tls_name=www"},
		"name for TLS of its own":  {"service: https\n    virtualhost: www\n    tls_name: a\n    tls_cert: /c\n    tls_key: /k", "negotiate https 10.0.0.11:80 request=/ virtualhost=www tls_name=a tls_cert=/c tls_key=/k"},
		"gRPC":                     {"service: grpcs\n    request: my.Service\n    tls_verify: yes\n    tls_ca: /ca", "negotiate grpcs 10.0.0.11:80 request=my.Service tls_verify=true tls_ca=/ca"},
		"a proxy":                  {"service: http_proxy\n    request: http://www.example.org/", "negotiate http_proxy 10.0.0.11:80 request=http://www.example.org/"},
		"a name of IPv4":           {"service: dns\n    request: a.example.org\n    record_type: a", "negotiate dns 10.0.0.11:80 request=a.example.org"},
		"another record":           {"service: dns\n    request: .\n    record_type: soa", "negotiate dns 10.0.0.11:80 request=. record_type=SOA"},
		"an address":               {"service: dns\n    protocol: udp\n    request: '2001:DB8::1'\n    record_type: PTR", "negotiate dns 10.0.0.11:80 request=2001:db8::1 udp=true"},
		"a name for EHLO":          {"service: smtp\n    helo_name: Director-1.example.org", "negotiate smtp 10.0.0.11:80 helo_name=Director-1.example.org"},
		"an address for EHLO":      {"service: smtps\n    helo_name: '[IPv6:2001:db8::1]'", "negotiate smtps 10.0.0.11:80 helo_name=[IPv6:2001:db8::1]"},
		"SIP by TCP":               {"service: sip\n    login: me@example.org", "negotiate sip 10.0.0.11:80 login=me@example.org"},
		"SIP by UDP":               {"service: sip\n    protocol: udp\n    request: 'sip:a@b'", "negotiate sip 10.0.0.11:80 request=sip:a@b udp=true"},
		"a datagram of text":       {"service: udp\n    protocol: udp\n    payload: 'a\\n\\x00\\\\\\0'", "negotiate udp 10.0.0.11:80 payload=610a005c00"},
		"a datagram of digits":     {"service: udp\n    protocol: udp\n    payload: 0x0A 0b\n    reply: 0AxX 01\n    reply_min: 3\n    reply_max: 9", "negotiate udp 10.0.0.11:80 payload=0a0b reply_hex=0axx01 reply_min=3 reply_max=9"},
		"text over TCP":            {"service: simpletcp\n    request: 'PING\\n'\n    receive: ^PONG", "negotiate simpletcp 10.0.0.11:80 request=PING\\n receive=^PONG"},
		"N of a UDP service":       {"service: dns\n    protocol: udp\n    checktype: 3\n    request: a", "negotiate dns 10.0.0.11:80 connects=3 request=a udp=true"},
		"SCTP":                     {"checktype: connect\n    protocol: sctp", "connect sctp 10.0.0.11:80 timeout=5s"},
		"N of nothing":             {"service: none\n    checktype: 3", "connect 10.0.0.11:80 timeout=5s"},
	} {
		t.Run(name, func(t *testing.T) {
			got := checksOf(t, "virtual:\n  - address: 10.0.0.1:80\n    real: [10.0.0.11 gate]\n    "+c.keys+"\n")
			sorted := func(s string) []string { w := strings.Split(s, " "); slices.Sort(w); return w }
			if d := cmp.Diff(sorted(c.want), sorted(strings.Join(got, "; "))); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestTheTLSVariantOfAServiceIsAskedTheSame(t *testing.T) {
	for plain, other := range map[string]string{"smtp": "smtps", "imap": "imaps", "pop": "pops"} {
		got := checksOf(t, "virtual:\n  - address: 10.0.0.1:99\n    service: "+plain+"\n    receive: ready\n    real: [10.0.0.11 gate]\n    checks: [{service: "+other+"}]\n")
		if len(got) != 2 || !strings.HasPrefix(got[1], "negotiate "+other) || !strings.Contains(got[1], " receive=ready") {
			t.Errorf("%s: %q", other, got)
		}
	}
}

func TestAServerMayHaveSeveralChecks(t *testing.T) {
	got := checksOf(t, `
virtual:
  - address: 10.0.0.1:80
    receive: ok
    virtualhost: www
    urls:
      - request: /a
      - {request: /b, receive: "", status: 204, virtualhost: other}
    checks:
      - {checktype: connect, checkport: 22}
      - {service: smtp, receive: ready}
      - {service: dns, request: example.org}
      - {checkport: 8080, request: /c}
    real:
      - 10.0.0.11 gate
      - 10.0.0.12 gate 1 "/own"
      - {address: 10.0.0.13, forward: gate, urls: [{request: /d}], checks: []}
      - {address: 10.0.0.14, forward: gate, checktype: on, checks: [{checktype: on}]}
`)
	want := []string{
		"negotiate http 10.0.0.11:80 request=/a receive=ok virtualhost=www",
		"negotiate http 10.0.0.11:80 request=/b virtualhost=other status=204",
		"connect 10.0.0.11:22 timeout=5s",
		"negotiate smtp 10.0.0.11:25 receive=ready",
		"negotiate dns 10.0.0.11:53 request=example.org udp=true",
		"negotiate http 10.0.0.11:8080 request=/c receive=ok virtualhost=www",
		"negotiate http 10.0.0.12:80 request=/own receive=ok virtualhost=www",
		"connect 10.0.0.12:22 timeout=5s",
		"negotiate smtp 10.0.0.12:25 receive=ready",
		"negotiate dns 10.0.0.12:53 request=example.org udp=true",
		"negotiate http 10.0.0.12:8080 request=/c receive=ok virtualhost=www",
		"negotiate http 10.0.0.13:80 request=/d receive=ok virtualhost=www",
		"on 10.0.0.14:0 timeout=5s",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// The service is concluded as ldirectord does it.
func TestThePortTellsTheService(t *testing.T) {
	for port, want := range map[int]string{
		21: "ftp", 25: "smtp", 53: "dns", 80: "http", 110: "pop", 119: "nntp", 143: "imap", 389: "ldap", 443: "https", 465: "smtps", 587: "submission",
		636: "ldaps", 993: "imaps", 995: "pops", 1521: "oracle", 1812: "radius", 3128: "http_proxy", 3306: "mysql", 5060: "sip", 5432: "pgsql",
	} {
		v := Virtual{Address: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(port)), Protocol: TCP}
		if port == 53 || port == 1812 {
			v.Protocol = UDP
		}
		if s := serviceOf(&v); s == nil || s.name != want {
			t.Errorf("port %d is %v, want %s", port, s, want)
		}
	}
}

// Whatever is said of a check, what it sends is not.
func TestNoPasswordIsPrinted(t *testing.T) {
	const passwd, token = "geheim", "vertraulich"
	c := Check{Type: Negotiate, Service: "http", Passwd: passwd, Secret: passwd, Headers: "Authorization: " + token, Body: token}
	var log strings.Builder
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("x", "check", c)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, x := range []any{c, &c, []Check{c}, struct{ Check }{c}, Real{Check: c, Also: []Check{c}}, planned{Check: c}} {
			fmt.Fprintf(&log, verb, x)
		}
	}
	for _, keys := range []string{"passwd: " + passwd, "secret: " + passwd, "login: a\n    passwd: \"" + passwd + "\\n\"", "passwd: [" + passwd + "]", "headers: {Authorization: \"" + token + "\\r\\n\"}", "headers: [" + token + "]", "body: " + token} {
		_, _, err := ParseSpec(Files{
			Haresources: []byte("groups: {web: {resources: [{vip: 10.0.0.1}, {ldirectord: p.yaml}]}}"),
			Pools:       map[string][]byte{"p.yaml": []byte("virtual:\n  - address: 10.0.0.1:80\n    real: [10.0.0.11 gate]\n    " + keys + "\n")},
		}, nil)
		if err == nil {
			t.Errorf("%s is accepted", keys)
		} else {
			log.WriteString(err.Error())
		}
	}
	if strings.Contains(log.String(), passwd) || strings.Contains(log.String(), token) {
		t.Errorf("it is in:\n%s", log.String())
	}
}

// What a value parser accepts is in its form already when it is read again.
func FuzzCheckValues(f *testing.F) {
	for _, s := range []string{"200-299,401", "204 200-203", "md5:d41d8cd98f00b204e9800998ecf8427e", `a\n\x00\\`, "0x0A 0b", "0AxX 01", "X-Name: value", "www.example.org.", "2001:db8::1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, parse := range map[string]func(string) (string, error){"status": parseStatus, "digest": parseDigest, "reply": parseReply} {
			once, err := parse(s)
			if err != nil || once == "" { // the default
				continue
			}
			if twice, err := parse(once); err != nil || twice != once {
				t.Errorf("%s %q is %q, and that is %q (%v)", name, s, once, twice, err)
			}
		}
		if digits, err := parsePayload(s); err == nil {
			if b, err := hex.DecodeString(digits); err != nil || len(b) > len(s) {
				t.Errorf("payload %q is %q (%v)", s, digits, err)
			}
		}
		name, value, _ := strings.Cut(s, ":")
		if line, err := headerLine(name, value); err == nil && (strings.ContainsAny(line, "\r\n\x00") || !strings.HasPrefix(line, name+": ")) {
			t.Errorf("header %q is %q", s, line)
		}
		if checkDNSName(s) == nil && (s == "" || len(s) > 254 || strings.ContainsAny(s, " \n\x00")) {
			t.Errorf("%q is a name", s)
		}
	})
}
