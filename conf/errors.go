package conf

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Error is one fault of a file. Its text is one line:
//
//	ha.yaml:7:3: unknown key "nods"; did you mean "nodes"?
type Error struct {
	File   string // as it was given to the parser
	Line   int    // from 1; 0: the file as a whole
	Column int    // from 1; 0: not known
	Msg    string // what is wrong and the way out; no line breaks
}

// Error implements error.
func (e *Error) Error() string { return place(e.File, e.Line, e.Column) + ": " + e.Msg }

// Errors are all faults of a set of files, sorted by position within each
// file. At most maxErrors are kept; a last entry then says how many more there were.
type Errors []*Error

// maxErrors is enough to repair a file in one go and still fits a screen or two.
const maxErrors = 50

// Error returns one line for each fault.
func (e Errors) Error() string {
	var b strings.Builder
	for i, x := range e {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(x.Error())
	}
	return b.String()
}

// Unwrap lets errors.As find the first *Error.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, x := range e {
		out[i] = x
	}
	return out
}

// Warning is something that is allowed and should be known. It is shown, and
// stops nothing.
type Warning struct {
	File   string
	Line   int
	Column int
	Msg    string
}

// String has the form of Error.Error, with the word "warning".
func (w Warning) String() string {
	return place(w.File, w.Line, w.Column) + ": warning: " + w.Msg
}

func place(file string, line, column int) string {
	s := file
	if line > 0 {
		s += ":" + strconv.Itoa(line)
		if column > 0 {
			s += ":" + strconv.Itoa(column)
		}
	}
	return s
}

// asError sorts the collected faults, drops repetitions (an anchor that is
// used twice is faulty once) and returns nil when there are none.
func asError(errs []*Error, order func(file string) int) error {
	if len(errs) == 0 {
		return nil
	}
	slices.SortStableFunc(errs, func(a, b *Error) int {
		return cmp.Or(
			cmp.Compare(order(a.File), order(b.File)), cmp.Compare(a.File, b.File),
			cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	errs = slices.CompactFunc(errs, func(a, b *Error) bool { return *a == *b })
	if n := len(errs) - maxErrors; n > 0 {
		errs = append(slices.Clone(errs[:maxErrors]), &Error{
			File: errs[maxErrors].File,
			Msg:  fmt.Sprintf("%d more errors are not shown", n),
		})
	}
	return Errors(errs)
}

// quote renders what somebody wrote for a message: on one line, and cut when
// it is long.
func quote(s string) string {
	const most = 60
	if len(s) > most {
		cut := most
		for cut > 0 && s[cut]&0xC0 == 0x80 {
			cut--
		}
		return strconv.Quote(s[:cut]) + "..."
	}
	return strconv.Quote(s)
}

// oneLine makes foreign text (of the YAML library) fit for Error.Msg.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// nearest returns the candidate that was most likely meant, or "".
func nearest(word string, candidates []string) string {
	if len(word) > 64 {
		return "" // hostile or nonsense; the distance would cost its square
	}
	word = strings.ToLower(word)
	best, bestDistance := "", max(1, len(word)/3)+1
	for _, c := range candidates {
		if d := distance(word, c); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the number of letters inserted, deleted, replaced or swapped
// with their neighbour that makes b of a.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] || (a[i-1] == '-' && b[j-1] == '_') {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// didYouMean is the tail of a message about an unknown word.
func didYouMean(word string, candidates []string) string {
	if n := nearest(word, candidates); n != "" {
		return "; did you mean " + strconv.Quote(n) + "?"
	}
	return "; known are: " + strings.Join(candidates, ", ")
}
