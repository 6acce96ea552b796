package conf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// Limits for files that come from outside. The largest file that is promised
// (37,000 real servers, DESIGN section 5) needs 3 MiB, half a million marks
// and a million nodes.
const (
	// MaxFile is the size in bytes from which a file is refused.
	MaxFile = 16 << 20
	// maxMarks bounds the number of YAML nodes before they are made: each costs
	// some 200 bytes.
	maxMarks = 2_000_000
	// maxNodes bounds the walk, so that aliases of aliases cannot blow it up.
	maxNodes = 4_000_000
	// fewKeys are as many as a message names: more would hide what it says.
	fewKeys = 25
)

// reader walks one YAML file against a schema and collects what is wrong with it.
type reader struct {
	file   string
	errs   []*Error
	warns  []Warning
	nodes  int    // walked so far, each use of an alias counted
	manual string // the page that lists the keys of a mapping with many of them; empty: they are always listed
	odd    int    // keys that were not understood: one of them may be what else would be missed
	halted bool   // maxNodes reached; said once
	items  int    // addresses, peers, routes and rules of vrrp.yaml so far
	flags  bool   // vrrp.yaml: a key without a value is a word of keepalived that stands alone there
	key    string // whose value is read
}

// field is one key of a mapping: its name, what the documentation says of it
// (what it does, unit, default), and how its value is read.
type field struct {
	name string
	doc  string
	read func(*yaml.Node)
}

// opt is a value that may have been given.
type opt[T any] struct {
	v  T
	at *yaml.Node // where it was written; nil: it was not. Set for a faulty value too
	ok bool       // given, and valid
}

func (o opt[T]) or(fallback T) T {
	if o.ok {
		return o.v
	}
	return fallback
}

// first returns the first valid one of several, or fallback.
func first[T any](fallback T, opts ...opt[T]) T {
	for _, o := range opts {
		if o.ok {
			return o.v
		}
	}
	return fallback
}

// into makes the read function of a field from a parser of its value.
func into[T any](o *opt[T], parse func(*yaml.Node) (T, bool)) func(*yaml.Node) {
	return func(n *yaml.Node) {
		o.at = n
		o.v, o.ok = parse(n)
	}
}

func (r *reader) errorf(n *yaml.Node, format string, args ...any) {
	r.errorAt(n, 0, format, args...)
}

// errorAt reports a fault that many bytes into a scalar.
func (r *reader) errorAt(n *yaml.Node, offset int, format string, args ...any) {
	e := &Error{File: r.file, Msg: fmt.Sprintf(format, args...)}
	if n != nil {
		e.Line, e.Column = n.Line, n.Column
		switch n.Style &^ yaml.TaggedStyle {
		case 0:
			e.Column += offset
		case yaml.DoubleQuotedStyle, yaml.SingleQuotedStyle:
			if offset > 0 {
				e.Column += offset + 1
			}
		}
	}
	if !r.full() {
		r.errs = append(r.errs, e)
	}
}

// full: further faults are not kept. Far above maxErrors, since they are
// sorted and compared only at the end.
func (r *reader) full() bool { return len(r.errs) >= 100*maxErrors }

func (r *reader) warnf(n *yaml.Node, format string, args ...any) {
	w := Warning{File: r.file, Msg: fmt.Sprintf(format, args...)}
	if n != nil {
		w.Line, w.Column = n.Line, n.Column
	}
	r.warns = append(r.warns, w)
}

// document parses the bytes into the root node of the only document, nil when
// that failed.
func (r *reader) document(data []byte) *yaml.Node {
	if len(data) > MaxFile {
		r.errorf(nil, "the file has %d bytes; the limit is %d", len(data), MaxFile)
		return nil
	}
	if n, ok := r.cleanText(data); !ok {
		r.errs = append(r.errs, n)
		return nil
	}
	if len(data) > maxMarks { // a smaller file cannot have that many
		marks := 0
		for _, b := range data {
			switch b {
			case '\n', ',', ':', '-', '[', '{', '?', '*', '&':
				marks++
			}
		}
		if marks > maxMarks {
			r.errorf(nil, "the file has %d lines, list items and keys; the limit is %d", marks, maxMarks)
			return nil
		}
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	err := decode(dec, &doc)
	if errors.Is(err, io.EOF) || (err == nil && doc.Kind != yaml.DocumentNode) {
		r.errorf(nil, "the file is empty")
		return nil
	}
	if err != nil {
		r.syntax(data, err)
		return nil
	}
	switch err := decode(dec, &second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		r.syntax(data, err)
		return nil
	default:
		r.errs = append(r.errs, &Error{File: r.file, Line: second.Line, Column: second.Column,
			Msg: "a second YAML document begins here; a file holds one: take out the line with ---"})
		return nil
	}
	if len(doc.Content) != 1 || isNull(doc.Content[0]) {
		r.errorf(nil, "the file is empty")
		return nil
	}
	if bytes.ContainsAny(data, pasted) {
		r.pasted(doc.Content[0])
	}
	if root := doc.Content[0]; root.Kind == yaml.ScalarNode {
		if say := OldFile(data); say != "" {
			r.errorf(root, "%s", say)
			return nil
		}
	}
	return doc.Content[0]
}

// decode keeps a panic of the archived YAML library from reaching the daemon.
func decode(dec *yaml.Decoder, into *yaml.Node) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("yaml: not understood: %v", p)
		}
	}()
	return dec.Decode(into)
}

// cleanText refuses what is not UTF-8 text.
func (r *reader) cleanText(data []byte) (*Error, bool) {
	if utf8.Valid(data) && bytes.IndexFunc(data, badControl) < 0 {
		return nil, true
	}
	line, column := 1, 1
	for len(data) > 0 {
		c, size := utf8.DecodeRune(data)
		if c == utf8.RuneError && size <= 1 {
			return &Error{File: r.file, Line: line, Column: column,
				Msg: fmt.Sprintf("byte 0x%02x is not UTF-8; save the file as UTF-8", data[0])}, false
		}
		if badControl(c) {
			return &Error{File: r.file, Line: line, Column: column,
				Msg: fmt.Sprintf("control character U+%04X; take it out", c)}, false
		}
		if column++; c == '\n' {
			line, column = line+1, 1
		}
		data = data[size:]
	}
	return nil, true
}

func badControl(c rune) bool {
	return c < 0x20 && c != '\n' && c != '\t' && c != '\r' || c == 0x7F
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// resolve follows an alias. One that contains itself does no harm: the schema
// ends the walk.
func (r *reader) resolve(n *yaml.Node) *yaml.Node {
	for hops := 0; n.Kind == yaml.AliasNode && n.Alias != nil && hops < 100; hops++ {
		n = n.Alias
	}
	return n
}

// walked counts nodes; false: stop here.
func (r *reader) walked(n *yaml.Node, count int) bool {
	if r.nodes += count; r.nodes > maxNodes && !r.halted {
		r.halted = true
		r.errorf(n, "with its aliases the file has more than %d values; write fewer", maxNodes)
	}
	return !r.halted
}

// mapping reads a mapping. Words in elsewhere are known and have no place
// here; the text says where they have gone. It reports whether n is a mapping.
func (r *reader) mapping(n *yaml.Node, what string, fields []field, elsewhere map[string]string) bool {
	seen := make(map[string]*yaml.Node, min(len(fields), len(n.Content)/2))
	return r.pairs(n, what, func(key, value *yaml.Node) {
		name := key.Value
		if first := seen[name]; first != nil {
			r.errorf(key, "duplicate key %s; it is already in line %d", quote(name), first.Line)
			return
		}
		seen[name] = key
		for i := range fields {
			if fields[i].name == name {
				r.key = name
				fields[i].read(value)
				return
			}
		}
		if r.odd++; r.full() {
			return // what was meant takes long to find
		}
		word, _, _ := strings.Cut(name, " ") // keepalived writes an argument after it
		if word != name && slices.ContainsFunc(fields, func(f field) bool { return f.name == word }) {
			if vrrpNamed[word] && value.Kind == yaml.MappingNode {
				r.errorf(key, "a name stands between %s and its colon; write %q once in the file, and below it, indented, each name as a key: %s", quote(word), word+":", quote(strings.TrimSpace(name[len(word):])+":"))
				return
			}
			// What stands there may be a password.
			r.errorf(key, "a word stands between %s and its colon; write %q and put the word behind the colon, or below it as a key", quote(word), word+": ...")
			return
		}
		if where, ok := elsewhere[word]; ok {
			r.errorf(key, "%s", where)
			return
		}
		if strings.Contains(name, noBreakSpace) {
			r.errorf(key, "a no-break space (U+00A0) stands in %s, as text from web pages has it; write plain blanks", quote(name))
			return
		}
		names := make([]string, len(fields))
		for i := range fields {
			names[i] = fields[i].name
		}
		if r.manual != "" && len(names) > fewKeys && nearest(name, names) == "" {
			r.errorf(key, "unknown key %s; the keys are listed in %s", quote(name), r.manual)
			return
		}
		r.errorf(key, "unknown key %s%s", quote(name), didYouMean(name, names))
	})
}

// pairs calls f for each key and value of a mapping, the value with aliases resolved.
func (r *reader) pairs(n *yaml.Node, what string, f func(key, value *yaml.Node)) bool {
	n = r.resolve(n)
	if n.Kind != yaml.MappingNode {
		r.errorf(n, "%s is to be a mapping (lines of \"key: value\"), not %s", what, kindOf(n))
		return false
	}
	if !r.walked(n, len(n.Content)) {
		return true
	}
	for i := 0; i+1 < len(n.Content) && !r.halted; i += 2 {
		key, value := r.resolve(n.Content[i]), r.resolve(n.Content[i+1])
		switch {
		case key.Kind != yaml.ScalarNode:
			r.errorf(key, "a key is to be a word, not %s", kindOf(key))
		case key.ShortTag() == "!!merge":
			r.odd++
			r.errorf(key, "merge keys (<<) are not supported; write the keys out, or use an alias for the whole value")
		default:
			f(key, value)
		}
	}
	return true
}

// list calls f for each entry of a list.
func (r *reader) list(n *yaml.Node, what string, f func(i int, n *yaml.Node)) bool {
	n = r.resolve(n)
	if n.Kind != yaml.SequenceNode {
		r.errorf(n, "%s is to be a list (lines of \"- item\"), not %s", what, kindOf(n))
		return false
	}
	if !r.walked(n, len(n.Content)) {
		return true
	}
	for i, c := range n.Content {
		if r.halted {
			break
		}
		f(i, r.resolve(c))
	}
	return true
}

func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "nothing"
	case n.Kind == yaml.ScalarNode:
		return quote(n.Value)
	}
	return "an alias"
}
