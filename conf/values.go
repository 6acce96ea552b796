package conf

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"gopkg.in/yaml.v3"
)

// scalar returns the text of a scalar as it was written.
func (r *reader) scalar(n *yaml.Node, want string) (string, bool) {
	n = r.resolve(n)
	switch {
	case n.Kind != yaml.ScalarNode || isNull(n):
		r.errorf(n, "%s is wanted, not %s", want, kindOf(n))
		return "", false
	case n.Style&yaml.TaggedStyle != 0:
		r.errorf(n, "the YAML tag %s is not used here; take it out", quote(n.Tag))
		return "", false
	}
	return n.Value, true
}

// text reads a word or a text without line breaks that is not empty.
func (r *reader) text(n *yaml.Node) (string, bool) {
	s, ok := r.scalar(n, "a text")
	if !ok {
		return "", false
	}
	if s == "" {
		r.errorf(n, "the text is empty; leave the key out instead")
		return "", false
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		r.errorf(n, "the text has a control character or a line break: %s", quote(s))
		return "", false
	}
	return s, true
}

// oneOf reads one of some words.
func oneOf[T any](r *reader, words []string, values ...T) func(*yaml.Node) (T, bool) {
	return func(n *yaml.Node) (v T, ok bool) {
		s, ok := r.scalar(n, "one of "+strings.Join(words, ", "))
		if !ok {
			return v, false
		}
		for i, w := range words {
			if s == w {
				return values[i], true
			}
		}
		hint := ""
		if m := nearest(s, words); m != "" && len(words) > 3 {
			hint = "; did you mean " + strconv.Quote(m) + "?"
		}
		r.errorf(n, "%s is not one of %s%s", quote(s), strings.Join(words, ", "), hint)
		return v, false
	}
}

// flag refuses a key without a value where keepalived has a word that stands alone; true: it has.
func (r *reader) flag(n *yaml.Node) bool {
	if !r.flags || !isNull(r.resolve(n)) {
		return false
	}
	r.errorf(n, "%s alone is not enough here; write \"%s: yes\"", quote(r.key), r.key)
	return true
}

// boolean reads yes, no, on, off, true, false as ldirectord does.
func (r *reader) boolean(n *yaml.Node) (v, ok bool) {
	if r.flag(n) {
		return false, false
	}
	s, ok := r.scalar(n, "yes or no")
	if !ok {
		return false, false
	}
	switch strings.ToLower(s) {
	case "yes", "on", "true":
		return true, true
	case "no", "off", "false":
		return false, true
	}
	r.errorf(n, "%s is neither yes nor no (on, off, true, false)", quote(s))
	return false, false
}

// integer reads a decimal number.
func (r *reader) integer(least, most int64) func(*yaml.Node) (int, bool) {
	return func(n *yaml.Node) (int, bool) {
		s, ok := r.scalar(n, "a number")
		if !ok {
			return 0, false
		}
		v, err := parseNumber(s, least, most)
		if err != nil {
			r.errorf(n, "%s", err)
			return 0, false
		}
		return int(v), true
	}
}

// parseNumber reads a decimal number. YAML would take 010 for eight and 1_0 for ten.
func parseNumber(s string, least, most int64) (int64, error) {
	if len(s) > 1 && s[0] == '0' && strings.Trim(s, "0123456789") == "" {
		return 0, fmt.Errorf("%s could be octal; write %s", quote(s), strings.TrimLeft(s[:len(s)-1], "0")+s[len(s)-1:])
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil || strings.HasPrefix(s, "+") {
		if err != nil && s != "" && strings.Trim(strings.TrimPrefix(s, "-"), "0123456789") == "" {
			return 0, fmt.Errorf("%s is out of range: %d to %d", quote(s), least, most)
		}
		return 0, fmt.Errorf("%s is not a whole decimal number from %d to %d", quote(s), least, most)
	}
	if v < least || v > most {
		return 0, fmt.Errorf("%d is out of range: %d to %d", v, least, most)
	}
	return v, nil
}

var (
	bareNumber = regexp.MustCompile(`^\d+(\.\d+)?$`)
	spacedUnit = regexp.MustCompile(`^(\d+(?:\.\d+)?)\s*(ms|us|s|sec|secs|seconds?|m|min|minutes?|h|hours?)$`)
)

// duration reads a time with its unit.
func (r *reader) duration(least, most time.Duration) func(*yaml.Node) (time.Duration, bool) {
	return func(n *yaml.Node) (time.Duration, bool) {
		s, ok := r.scalar(n, "a duration such as 3s or 500ms")
		if !ok {
			return 0, false
		}
		if len(s) <= 40 && bareNumber.MatchString(s) {
			r.errorf(n, "a duration needs its unit; write %q", s+"s")
			return 0, false
		}
		d, err := time.ParseDuration(s)
		if err != nil {
			if m := spacedUnit.FindStringSubmatch(s); m != nil {
				unit := m[2]
				if unit != "ms" && unit != "us" {
					unit = unit[:1]
				}
				if m[1]+unit == s {
					r.errorf(n, "%s is out of range: %s to %s", quote(s), brief(least), brief(most))
					return 0, false
				}
				r.errorf(n, "%s is not a duration; write %q", quote(s), m[1]+unit)
				return 0, false
			}
			r.errorf(n, "%s is not a duration; write it like 3s, 500ms or 1m30s", quote(s))
			return 0, false
		}
		if d < least || d > most {
			r.errorf(n, "%s is out of range: %s to %s", quote(s), brief(least), brief(most))
			return 0, false
		}
		return d, true
	}
}

// brief writes a duration as people do: 1m, not 1m0s.
func brief(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// path reads an absolute path.
func (r *reader) path(n *yaml.Node) (string, bool) {
	s, ok := r.text(n)
	if !ok {
		return "", false
	}
	if !filepath.IsAbs(s) {
		r.errorf(n, "%s is not an absolute path; begin it with /", quote(s))
		return "", false
	}
	return filepath.Clean(s), true
}

// address reads an IP address.
func (r *reader) address(n *yaml.Node) (netip.Addr, bool) {
	s, ok := r.scalar(n, "an IP address")
	if !ok {
		return netip.Addr{}, false
	}
	a, err := parseAddress(s)
	if err != nil {
		r.errorf(n, "%s", err)
		return netip.Addr{}, false
	}
	return a, true
}

func parseAddress(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		if looksLikeName(s) {
			return a, fmt.Errorf("%s is not an IP address; names are not looked up (a name server that is slow or lies must not move traffic): write the address", quote(s))
		}
		return a, fmt.Errorf("%s is not an IP address", quote(s))
	}
	return a.Unmap(), nil
}

func looksLikeName(s string) bool {
	return strings.ContainsFunc(s, unicode.IsLetter) && !strings.ContainsAny(s, ": []/")
}

// iface reads the name of a network interface.
func (r *reader) iface(n *yaml.Node) (string, bool) {
	s, ok := r.scalar(n, "the name of an interface")
	if !ok {
		return "", false
	}
	if err := checkInterface(s); err != nil {
		r.errorf(n, "%s", err)
		return "", false
	}
	return s, true
}

// maxInterface is IFNAMSIZ of the kernel without the closing zero.
const maxInterface = 15

func checkInterface(s string) error {
	switch {
	case s == "" || s == "." || s == "..":
		return fmt.Errorf("%s is not the name of an interface", quote(s))
	case len(s) > maxInterface:
		return fmt.Errorf("%s is too long for an interface: the kernel allows %d characters", quote(s), maxInterface)
	case strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7F || c == '/' || c == ':' }):
		return fmt.Errorf("%s is not the name of an interface", quote(s))
	}
	return nil
}
