package conf

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"unicode"
)

// negotiate takes over what means something to the service, and refuses what
// was written for it here and does not.
func (p *poolReader) negotiate(c *checkFields, v *Virtual, out *planned) bool {
	s := c.service(v)
	if v.Protocol == SCTP && (!c.beside || s == nil) {
		p.errorf(c.place(c.at, "checktype"), "no service can be negotiated over SCTP; write \"checktype: connect\", ping or external for virtual %s", v)
		return false
	}
	if s == nil {
		return p.untold(c, v)
	}
	if !s.speaks(v.Protocol) && !c.beside {
		speaks, way := "TCP", "\"checktype: ping\", or \"service: udp\" with payload and reply"
		if s.udp {
			speaks, way = "UDP", "\"protocol: udp\", or another service"
		}
		p.errorf(c.place(c.at, "service"), "service %s speaks %s, and virtual %s does not; write %s", s.name, speaks, v, way)
		return false
	}
	from := &c.check
	if s.name == "none" {
		if at := c.here("service"); at != nil {
			p.warnf(at, "service none asks nothing: a real server of virtual %s counts as up whatever it does; \"checktype: connect\" or ping would notice that it is gone", v)
		}
		switch {
		case from.Connects == 0:
			out.Type = On
		case v.Protocol == UDP: // the connects are left, and of UDP they are pings
			out.Type = Ping
		default:
			out.Type = Connect
		}
	}
	if !p.suits(c, s) {
		return false
	}
	if out.Type != Negotiate {
		return true
	}
	out.Service, out.Connects = s.name, from.Connects
	if s.name == "dns" || s.name == "sip" {
		out.UDP = v.Protocol != TCP || c.beside && c.here("service") != nil
	}
	for _, x := range []struct {
		of       takes
		to, from *string
	}{
		{takesRequest, &out.Request, &from.Request}, {takesReceive, &out.Receive, &from.Receive},
		{takesUser, &out.Login, &from.Login}, {takesPasswd, &out.Passwd, &from.Passwd}, {takesPasswd, &out.PasswdFile, &from.PasswdFile},
		{takesDatabase, &out.Database, &from.Database}, {takesSecret, &out.Secret, &from.Secret}, {takesSecret, &out.SecretFile, &from.SecretFile},
		{takesHost, &out.VirtualHost, &from.VirtualHost}, {takesHTTP, &out.HTTPMethod, &from.HTTPMethod}, {takesHTTP, &out.Status, &from.Status},
		{takesHTTP, &out.Digest, &from.Digest}, {takesHTTP, &out.Headers, &from.Headers}, {takesHTTP, &out.Body, &from.Body},
		{takesHTTP, &out.HTTPVersion, &from.HTTPVersion}, {takesRecord, &out.RecordType, &from.RecordType},
		{takesHelo, &out.HeloName, &from.HeloName}, {takesPayload, &out.Payload, &from.Payload}, {takesPayload, &out.ReplyHex, &from.ReplyHex},
	} {
		if s.takes&x.of != 0 {
			*x.to = *x.from
		}
	}
	if s.takes&takesPayload != 0 {
		out.ReplyMin, out.ReplyMax = from.ReplyMin, from.ReplyMax
	}
	return p.requests(c, s, out) && p.logins(c, s, out) && p.tls(c, s, out)
}

// untold reports, for the virtual service, that nothing tells what to ask.
func (p *poolReader) untold(c *checkFields, v *Virtual) bool {
	for c.up != nil && c.up.up != nil {
		c = c.up
	}
	way := "\"service: http\" or another, or \"checktype: connect\""
	if v.Protocol == UDP {
		way = "\"service: udp\" or another, or \"checktype: ping\""
	}
	if !c.odd {
		p.errorf(c.at, "virtual %s: its port does not tell the service to check; write %s", v, way)
	}
	return false
}

// suits refuses keys that were written at this level and mean nothing to the service.
func (p *poolReader) suits(c *checkFields, s *service) bool {
	ok := true
	for _, w := range c.written {
		of := keyNamed(w.name).of
		if of == 0 || s.takes&of != 0 || of == takesTLS && s.takes&takesSTARTTLS != 0 && c.check.STARTTLS {
			continue
		}
		ok = false
		switch {
		case of == takesSTARTTLS && s.takes&takesTLS != 0:
			p.errorf(w.at, "service %s speaks TLS from the first byte; take starttls out", s.name)
		case of == takesTLS && s.takes&takesSTARTTLS != 0:
			p.errorf(w.at, "%s is for TLS; add \"starttls: yes\", or take it out", w.name)
		case of == takesTLS:
			p.errorf(w.at, "%s is for TLS, which service %s does not speak, but %s do; take it out", w.name, s.name, asking(takesTLS))
		case s.name == "oracle":
			p.errorf(w.at, "%s is not for service oracle, of which the listener alone is asked; take it out, or write a script that logs in and \"checktype: external\"", w.name)
		default:
			p.errorf(w.at, "%s is not for service %s, but for %s; take it out", w.name, s.name, asking(of))
		}
	}
	return ok
}

// requests brings what is asked and what is expected into its form.
func (p *poolReader) requests(c *checkFields, s *service, out *planned) bool {
	before := len(p.errs)
	bad := func(key, format string, args ...any) { p.errorf(c.place(c.at, key), format, args...) }
	if s.name != "simpletcp" && strings.ContainsFunc(out.Request, unicode.IsControl) {
		bad("request", "the text has a control character or a line break: %s", quote(out.Request))
		return false
	}
	if s.takes&takesHTTP != 0 {
		p.http(c, s, out)
	}
	switch s.name {
	case "grpc", "grpcs", "sip":
		if err := checkRequest(out.Request); err != nil {
			bad("request", "%s", err)
		} else if s.name == "sip" && out.Request != "" && !strings.HasPrefix(out.Request, "sip:") {
			bad("request", "request %s is not a URI of SIP; write it like sip:ping@example.org", quote(out.Request))
		}
	case "dns":
		p.dns(c, out)
	case "ftp", "mysql", "pgsql":
		what := "the query whose values it looks at"
		if s.name == "ftp" {
			what = "the file that it looks into"
		}
		if out.Request == "" && out.Receive != "" && !c.faulty("request") {
			bad("receive", "receive of service %s needs \"request\", %s", s.name, what)
		}
	case "udp":
		switch n := len(out.ReplyHex) / 2; {
		case out.ReplyMax > 0 && out.ReplyMin > out.ReplyMax:
			bad("reply_min", "reply_min %d is above reply_max, %d", out.ReplyMin, out.ReplyMax)
		case out.ReplyMax > 0 && n > out.ReplyMax:
			bad("reply_max", "reply_max %d is less than the %d bytes of reply", out.ReplyMax, n)
		}
	}
	return len(p.errs) == before
}

func (p *poolReader) http(c *checkFields, s *service, out *planned) {
	bad := func(format string, keys []string, args ...any) { p.errorf(c.place(c.at, keys...), format, args...) }
	request := []string{"request"}
	if out.HTTPMethod == "" {
		out.HTTPMethod = "GET"
	}
	if out.HTTPVersion == "1.1" {
		out.HTTPVersion = ""
	}
	scheme, rest, isURL := strings.Cut(out.Request, "://")
	host, path, _ := strings.Cut(rest, "/")
	switch {
	case checkRequest(out.Request) != nil:
		bad("%s", request, checkRequest(out.Request))
	case s.name == "http_proxy" && out.Request == "":
		p.needs(c, "service http_proxy", "the URL that is fetched through it: http://www.example.org/", "request")
	case isURL && strings.Contains(host, "@"):
		bad("request holds a user and a password; put them into headers, as Authorization", request)
	case s.name == "http_proxy" && out.HTTPVersion == "2":
		bad("http_version 2 is not spoken with a proxy; write 1.0 or 1.1", []string{"http_version"})
	case s.name == "http_proxy" && (scheme != "http" || !isURL || host == ""):
		bad("request %s is not a URL that a proxy fetches; write it like http://www.example.org/", request, quote(out.Request))
	case s.name != "http_proxy" && isURL && (scheme == "http" || scheme == "https"):
		bad("request %s names a server, and each real server is asked itself; write \"request: /%s\" and \"virtualhost: %s\"", request, quote(out.Request), path, host)
	case s.name != "http_proxy" && (out.Request != "*" || out.HTTPMethod != "OPTIONS"):
		out.Request = slash(out.Request)
	}
	if out.HTTPMethod == "HEAD" && out.Receive != "" {
		bad("an answer to HEAD has no body that receive could match; write GET, or take receive out", []string{"httpmethod", "receive"})
	}
	if out.HTTPMethod == "HEAD" && out.Digest != "" {
		bad("an answer to HEAD has no body for digest; write GET, or take digest out", []string{"httpmethod", "digest"})
	}
	if m := out.HTTPMethod; (m == "GET" || m == "HEAD") && out.Body != "" {
		bad("%s sends no body; write \"httpmethod: POST\", PUT or OPTIONS, or take body out", []string{"body"}, m)
	}
}

// dns is asked for a name, or backwards for an address.
func (p *poolReader) dns(c *checkFields, out *planned) {
	at := c.place(c.at, "request")
	if out.Request == "" {
		p.needs(c, "service dns", "the name that is looked up, or an address for its PTR record", "request")
		return
	}
	if a, err := netip.ParseAddr(out.Request); err == nil {
		if out.RecordType != "" && out.RecordType != "PTR" {
			p.errorf(c.place(c.at, "record_type", "request"), "record_type %s is of a name, and the request %s is an address; write PTR, or a name", out.RecordType, a)
		}
		out.Request, out.RecordType = a.Unmap().WithZone("").String(), ""
		return
	}
	if err := checkDNSName(out.Request); err != nil {
		p.errorf(at, "%s", err)
	}
	if out.RecordType == "A" {
		out.RecordType = ""
	}
}

// logins refuses half of what a login needs.
func (p *poolReader) logins(c *checkFields, s *service, out *planned) bool {
	before := len(p.errs)
	passwd := out.Passwd != "" || out.PasswdFile != ""
	who := "service " + s.name
	for _, pair := range [][2]string{{"passwd", "passwd_file"}, {"secret", "secret_file"}} {
		for l := c; l != nil; l = l.up {
			if at := l.here(pair[1]); at != nil && l.here(pair[0]) != nil {
				p.errorf(at, "%s and %s exclude each other; take one out", pair[0], pair[1])
			}
		}
	}
	switch s.name {
	case "radius":
		if out.Login == "" {
			p.needs(c, who, "the User-Name that is asked for", "login")
		}
		if !passwd {
			p.needs(c, who, "the password of login (or passwd_file)", "passwd", "passwd_file")
		}
		if out.Secret == "" && out.SecretFile == "" {
			p.needs(c, who, "the secret that it shares with the server (or secret_file)", "secret", "secret_file")
		}
	case "mysql", "pgsql":
		if out.Login == "" && out.Request+out.Database != "" {
			p.needs(c, "request or database of "+who, "the name of the user who asks", "login")
		}
	case "imap", "imaps", "pop", "pops", "ldap", "ldaps":
		if out.Login != "" && !passwd {
			p.needs(c, "login of "+who, "its password (or passwd_file)", "passwd", "passwd_file")
		}
	}
	if passwd && out.Login == "" && s.name != "ftp" && s.name != "radius" {
		p.errorf(c.place(c.at, "passwd", "passwd_file"), "passwd without login; add \"login\", or take passwd out")
	}
	return len(p.errs) == before
}

// tls takes over how the certificate is looked at.
func (p *poolReader) tls(c *checkFields, s *service, out *planned) bool {
	from, before := &c.check, len(p.errs)
	out.STARTTLS = from.STARTTLS && s.takes&takesSTARTTLS != 0
	if !out.STARTTLS && s.takes&takesTLS == 0 {
		return true
	}
	out.TLSVerify, out.TLSName, out.TLSCert, out.TLSKey = from.TLSVerify, from.TLSName, from.TLSCert, from.TLSKey
	if from.TLSMin != "1.0" {
		out.TLSMin = from.TLSMin
	}
	if out.TLSVerify {
		out.TLSCA = from.TLSCA
	} else if at := c.here("tls_ca"); at != nil && !c.faulty("tls_ca") {
		p.errorf(at, "tls_ca without tls_verify has no effect; add \"tls_verify: yes\", or take it out")
	}
	if out.TLSKey != "" && out.TLSCert == "" {
		p.errorf(c.place(c.at, "tls_key"), "tls_key without tls_cert; add the certificate, or take the key out")
	}
	if out.TLSName == "" && s.takes&takesHost != 0 {
		if out.TLSName = out.VirtualHost; strings.Contains(out.TLSName, ":") {
			if host, _, err := net.SplitHostPort(out.TLSName); err == nil {
				out.TLSName = host
			}
		}
	}
	return len(p.errs) == before
}

// checkRequest refuses what could end a request line.
func checkRequest(s string) error {
	if strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7F }) {
		return fmt.Errorf("request %s has a blank or another character that has to be written as %%XX", quote(s))
	}
	return nil
}
