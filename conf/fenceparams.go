package conf

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"gopkg.in/yaml.v3"
)

const (
	maxParams     = 100
	maxParamValue = 4096
)

var (
	paramName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,63}$`)
	envName   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,99}$`)
	// withPassword is a URL with a password in it.
	withPassword = regexp.MustCompile(`://[^/@\s]*:[^/@\s]+@`)
	// secretWord finds a word of a parameter's name that says that the value is a secret.
	secretWord = regexp.MustCompile(`(?i)(?:^|[_.-])(?:password|passwd|passphrase|pass|pwd|pw|pin|secret|community|key|api_?key|api_?token|token|credentials?)\d*(?:$|[_.-])|passw(?:or)?d|passphrase|secret`)
	// secretPlace finds a name that says that the value is where a secret is, or how it is used.
	secretPlace = regexp.MustCompile(`(?i)(?:file|path|script|dir|prot|protocol|type|store|name|id)$`)
)

// IsSecret says whether the name of a parameter says that its value is a
// secret: password, snmp_priv_passwd, community, api_key; not password_script
// or identity_file, which name a place.
func IsSecret(param string) bool {
	return secretWord.MatchString(param) && !secretPlace.MatchString(param)
}

// params reads `params:`. No message shows a value.
func (s *specReader) params(raw *rawDevice, n *yaml.Node) (map[string]Param, bool) {
	params := map[string]Param{}
	before := len(s.errs)
	if n.Kind != yaml.MappingNode {
		s.errorf(n, "params is to be a mapping (lines of \"name: value\")")
		return nil, false
	}
	s.pairs(n, "params", func(key, value *yaml.Node) {
		name := key.Value
		switch {
		case !paramName.MatchString(name):
			s.errorf(key, "%s cannot name a parameter: letters, digits, _ - . and at most 64 of them", quote(name))
			return
		case raw.paramsAt[name] != nil:
			s.errorf(key, "duplicate parameter %s; it is already in line %d", quote(name), raw.paramsAt[name].Line)
			return
		case len(params) == maxParams:
			s.errorf(key, "more than %d parameters; the limit is %d", maxParams, maxParams)
		}
		raw.paramsAt[name] = key
		if len(params) >= maxParams {
			return
		}
		if p, ok := s.param(name, value); ok {
			params[name] = p
		}
	})
	if len(params) == 0 {
		params = nil
	}
	return params, len(s.errs) == before
}

// param reads one value, or the place of a secret.
func (s *specReader) param(name string, n *yaml.Node) (Param, bool) {
	switch {
	case n.Kind == yaml.MappingNode:
		return s.paramPlace(name, n)
	case n.Kind != yaml.ScalarNode || isNull(n):
		s.errorf(n, "parameter %s is to be a value, {file: /PATH} or {env: NAME}; write \"\" for an empty value", name)
		return Param{}, false
	case n.Style&yaml.TaggedStyle != 0:
		s.errorf(n, "parameter %s: YAML tags are not used here; take it out", name)
		return Param{}, false
	case strings.ContainsFunc(n.Value, unicode.IsControl):
		s.errorf(n, "parameter %s has a control character or a line break", name)
		return Param{}, false
	case len(n.Value) > maxParamValue:
		s.errorf(n, "parameter %s has more than %d bytes", name, maxParamValue)
		return Param{}, false
	case withPassword.MatchString(n.Value):
		s.errorf(n, "parameter %s has a password in its URL, and this file is replicated and kept in the log; put the URL into a file that only root reads, on each node that operates the device: %s: {file: /etc/keepbeat/%s.secret}", name, name, name)
		return Param{}, false
	}
	return Param{Value: n.Value}, true
}

func (s *specReader) paramPlace(name string, n *yaml.Node) (Param, bool) {
	var file, env opt[string]
	fields := s.paramFields(&file, &env)
	seen := map[string]bool{}
	before := len(s.errs)
	s.pairs(n, "parameter "+name, func(key, value *yaml.Node) {
		for _, f := range fields {
			if f.name == key.Value && !seen[f.name] {
				seen[f.name] = true
				f.read(value)
				return
			}
		}
		s.errorf(key, "parameter %s is to be a value, {file: /PATH} or {env: NAME}", name) // the key may be the secret itself
	})
	if len(s.errs) > before {
		return Param{}, false
	}
	switch {
	case file.at != nil && env.at != nil:
		s.errorf(n, "parameter %s has both file and env; write one of them", name)
		return Param{}, false
	case file.at == nil && env.at == nil:
		s.errorf(n, "parameter %s is to be a value, {file: /PATH} or {env: NAME}", name)
		return Param{}, false
	}
	return Param{File: file.v, Env: env.v}, true
}

func (s *specReader) paramFields(file, env *opt[string]) []field {
	// What is faulty is not shown, either.
	read := func(valid func(string) bool, want string) func(*yaml.Node) (string, bool) {
		return func(n *yaml.Node) (string, bool) {
			if n.Kind != yaml.ScalarNode || n.Style&yaml.TaggedStyle != 0 || strings.ContainsFunc(n.Value, unicode.IsControl) || !valid(n.Value) {
				s.errorf(n, "that is not %s", want)
				return "", false
			}
			return n.Value, true
		}
	}
	return []field{
		{"file", "A file whose first line is the value, on the node that operates the device: an absolute path.", into(file, read(filepath.IsAbs, "an absolute path; begin it with /"))},
		{"env", "A variable of the daemon's environment that has the value.", into(env, read(envName.MatchString, "the name of a variable: letters, digits and _"))},
	}
}

// deviceParams refuses secrets that are written out, and what keepbeat itself tells the device.
func (s *specReader) deviceParams(d *FenceDevice, raw *rawDevice) {
	d.Params = raw.params.v
	for _, name := range sortedKeys(raw.paramsAt) {
		at := raw.paramsAt[name]
		p, ok := d.Params[name]
		// The key of these two is a SCSI reservation, which anybody may read from the disk.
		reservation := name == "key" && (d.Program == "fence_scsi" || d.Program == "fence_mpath")
		switch {
		case ok && IsSecret(name) && p.Value != "" && !reservation:
			s.errorf(at, "%s looks like a secret, and this file is replicated and kept in the log; put it into a file that only root reads, on each node that operates the device: %s: {file: /etc/keepbeat/%s.secret}, or {env: NAME}", quote(name), name, d.Name)
		case strings.HasPrefix(name, "pcmk_"):
			s.errorf(at, "%s is Pacemaker's and no parameter of the device; here there are targets, timeout, retries, delay", quote(name))
		case d.Type != FenceAgent:
		case slices.Contains([]string{"action", "option"}, name):
			s.errorf(at, "%s is told by keepbeat itself; take it out (\"action\" of fencing chooses reboot or off)", quote(name))
		case slices.Contains([]string{"port", "plug", "nodename"}, name):
			s.errorf(at, "%s is told by keepbeat itself, for each target: write \"targets: {director1: 3}\"", quote(name))
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
