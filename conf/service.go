package conf

import (
	"strings"

	"gopkg.in/yaml.v3"
)

// serviceSettings are the values beside those of the checks that are global
// and may be overridden for a virtual service.
type serviceSettings struct {
	quiescent, cleanstop, readdquiescent opt[bool]
	fallbackcommand                      opt[string]
	email                                emailSettings
}

func (s *serviceSettings) fields(r *reader) []field {
	return append([]field{
		{"quiescent", "yes: a real server that is down gets weight 0 and keeps its connections, and a fallback that is not needed any more does so for 10 s; no: it is removed. Default yes, as ldirectord's manual says.", into(&s.quiescent, r.boolean)},
		{"cleanstop", "Whether the virtual service is removed when the group stops. Default yes.", into(&s.cleanstop, r.boolean)},
		{"readdquiescent", "Whether a real server that somebody has removed from the kernel's table comes back with weight 0 until its next check. Default no: with its weight if it is up.", into(&s.readdquiescent, r.boolean)},
		{"fallbackcommand", "Program, an absolute path, that is run with \"start\" when the fallback begins and \"stop\" when it ends, then ADDRESS:PORT (or the mark), protocol and servicename. Default: none.", into(&s.fallbackcommand, r.program("fallbackcommand"))},
	}, s.email.fields(r)...)
}

// program reads the absolute path of a program that is run without arguments of the file's.
func (r *reader) program(key string) func(*yaml.Node) (string, bool) {
	return func(n *yaml.Node) (string, bool) {
		s, ok := r.path(n)
		if ok && strings.ContainsAny(s, " \t") {
			r.errorf(n, "%s %s: no arguments can be given here; write a small script", key, quote(s))
			return "", false
		}
		return s, ok
	}
}

// over fills in what a virtual service has not said for itself.
func (s *serviceSettings) over(global *serviceSettings, v *Virtual) {
	v.Quiescent = first(true, s.quiescent, global.quiescent)
	v.CleanStop = first(true, s.cleanstop, global.cleanstop)
	v.ReaddQuiescent = first(false, s.readdquiescent, global.readdquiescent)
	v.FallbackCommand = first("", s.fallbackcommand, global.fallbackcommand)
	v.Email = s.email.over(global.email)
}
