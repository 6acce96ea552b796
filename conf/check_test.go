package conf

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
)

// checkCheck holds what every check promises to those who run it.
func checkCheck(t *testing.T, v Virtual, r Real, c Check) {
	t.Helper()
	bad := func(why string) {
		b, err := json.Marshal(c)
		t.Errorf("%s: %s: %s\n%s (%v)", v, realName(r.Address), why, b, err)
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
			takesDatabase: c.Database, takesSecret: c.Secret + c.SecretFile, takesHost: c.VirtualHost, takesRecord: c.RecordType, takesPayload: c.Payload + c.ReplyHex,
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
