package checks

import (
	"fmt"
	"strconv"
	"strings"
)

// codeSet are the HTTP status codes that are wanted, as ranges; nil: 200 to 299.
type codeSet [][2]int

// parseCodes reads "200-299,401". Codes are 200 to 599: those below are no
// final answers (RFC 9110, 15.2).
func parseCodes(s string) (codeSet, error) {
	if s == "" {
		return nil, nil
	}
	var set codeSet
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			last = first
		}
		from, ok := parseCode(first)
		to, ok2 := parseCode(last)
		switch {
		case !ok || !ok2:
			return nil, fmt.Errorf("status %q: %q is no code from 200 to 599 and no range of them, as in 200-299,401", s, strings.TrimSpace(part))
		case from > to:
			return nil, fmt.Errorf("status %q: the range %s begins after its end", s, strings.TrimSpace(part))
		}
		set = append(set, [2]int{from, to})
	}
	return set, nil
}

func parseCode(s string) (int, bool) {
	n, ok := threeDigits([]byte(strings.TrimSpace(s)))
	return n, ok && n >= 200 && n <= 599
}

func (s codeSet) has(code int) bool {
	if s == nil {
		return code >= 200 && code <= 299
	}
	for _, r := range s {
		if code >= r[0] && code <= r[1] {
			return true
		}
	}
	return false
}

// String is what errors say was wanted.
func (s codeSet) String() string {
	if s == nil {
		return "2xx"
	}
	var b strings.Builder
	for i, r := range s {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(r[0]))
		if r[1] != r[0] {
			b.WriteString("-" + strconv.Itoa(r[1]))
		}
	}
	return b.String()
}
