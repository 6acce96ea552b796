package conf

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// noBreakSpace looks like a blank and is none to YAML. Text copied from a web page has it.
const noBreakSpace = "\u00a0"

// pasted are characters that a word processor or a web page puts in place of
// those that were typed.
const pasted = noBreakSpace + "“”„‘’"

// pasted warns of values that have them: where they stand at the ends they are
// hardly meant, and a receive of them matches nothing.
func (r *reader) pasted(n *yaml.Node) {
	for i, c := range n.Content {
		if n.Kind != yaml.MappingNode || i%2 == 1 { // a key that has them is not known anyway
			r.pasted(c)
		}
	}
	switch {
	case n.Kind != yaml.ScalarNode || n.Value == "" || len(r.warns) >= maxErrors:
	case n.Style&yaml.DoubleQuotedStyle == 0 && strings.Contains(n.Value, noBreakSpace):
		r.warnf(n, "a no-break space (U+00A0) is part of this value; if a blank was meant, write a plain one")
	case strings.ContainsAny(firstRune(n.Value), "“”„‘’"):
		r.warnf(n, "the quotation mark %s is part of this value; if it was to enclose it, write a plain one (\")", firstRune(n.Value))
	}
}

func firstRune(s string) string {
	_, size := utf8.DecodeRuneInString(s)
	return s[:size]
}

// aloneInKeepalived are the words of keepalived.conf that most often stand alone in a line.
var aloneInKeepalived = map[string]bool{
	"nopreempt": true, "no_accept": true, "accept": true, "use_vmac": true, "vmac_xmit_base": true, "dont_track_primary": true,
	"smtp_alert": true, "init_fail": true, "full_command": true, "sync_group_tracking_weight": true,
}

var (
	yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?`)

	tabIndent = regexp.MustCompile(`^ *\t`)
	openIPv6  = regexp.MustCompile(`[:\-,\[]\s+(\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]:?\w*)`)
	oldKey    = regexp.MustCompile(`^\s*(?:- )?([a-z_0-9]+)\s*=\s*(.*)$`)
	badStart  = regexp.MustCompile("^\\s*(?:- )?[\\w.]+:\\s+([@%`*&!|>][^\\s].*)$")
	twoColons = regexp.MustCompile(`^\s*(?:- )?[\w.]+:\s+([^\s"'\[{#].*:\s.*)$`)
	listItem  = regexp.MustCompile(`^( *)- `)
	bareWord  = regexp.MustCompile(`^ *([^\s#"'\[\]{}-][^:\[\]{}"']*)$`)

	// oldComment is keepalived's: most of its files begin with "! Configuration File for keepalived".
	oldComment = regexp.MustCompile(`^\s*[!！](?:\s|$)`)
)

// syntax turns an error of the YAML library into one of ours, with the way
// out for the mistakes that people make.
func (r *reader) syntax(data []byte, err error) {
	text := oneLine(err.Error())
	line := 0
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		text = strings.TrimPrefix(text, m[0])
		line, _ = strconv.Atoi(m[1])
	}
	lines := strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n")
	e := &Error{File: r.file, Line: max(line, 1), Msg: "not YAML: " + text}
	if at, column, hint := mistake(lines, e.Line, text); hint != "" {
		e.Line, e.Column, e.Msg = at, column, hint
	}
	if say := OldFile(data); say != "" {
		e.Line, e.Column, e.Msg = 0, 0, say
	}
	r.errs = append(r.errs, e)
}

// mistake looks for what people write wrong near a line that the library
// names, which is that of the surrounding item, or one before or after the
// culprit. It returns where it is, from 1, and the way out; or nothing. It
// repeats keys and never values, of which one may be a password.
func mistake(lines []string, named int, text string) (line, column int, hint string) {
	at := lines[min(named, len(lines))-1]
	if m := twoColons.FindStringSubmatchIndex(at); m != nil && strings.Contains(text, "mapping values are not allowed") {
		return named, m[2] + 1, "a value with a colon and a blank in it has to be quoted"
	}
	if rest, ok := strings.CutPrefix(text, "unknown anchor '"); ok { // the library names no line
		name, _, _ := strings.Cut(rest, "'")
		for i, s := range lines {
			if at := strings.Index(s, "*"+name); at >= 0 {
				return i + 1, at + 1, "a value that begins with \"*\" stands for an anchor (&) above, and there is none of this name; quote it, if it is meant as it is"
			}
		}
		return named, 0, "an anchor that is nowhere set is used; quote a value that begins with \"*\""
	}
	first, last := max(named-2, 0), min(named+2, len(lines))
	for i := first; i < last; i++ {
		s := lines[i]
		if oldComment.MatchString(s) {
			return i + 1, strings.IndexAny(s, "!！") + 1, "a comment begins with # here, not with !"
		}
		if loc := tabIndent.FindStringIndex(s); loc != nil {
			return i + 1, loc[1], "a tab indents this line; YAML wants blanks"
		}
		if m := openIPv6.FindStringSubmatchIndex(s); m != nil {
			return i + 1, m[2] + 1, fmt.Sprintf("an IPv6 endpoint has to be quoted: %q", s[m[2]:m[3]])
		}
		if at := strings.Index(s, noBreakSpace); at >= 0 {
			return i + 1, at + 1, "a no-break space (U+00A0) stands here, as text from web pages has it; write a plain blank"
		}
		if m := oldKey.FindStringSubmatchIndex(s); m != nil {
			return i + 1, m[2] + 1, fmt.Sprintf("%q: a colon and a blank stand between key and value here: %q", s[m[2]:m[3]]+"=...", s[m[2]:m[3]]+": ...")
		}
		if m := badStart.FindStringSubmatchIndex(s); m != nil {
			return i + 1, m[2] + 1, fmt.Sprintf("a value that begins with %q has to be quoted", s[m[2]:m[2]+1])
		}
	}
	switch {
	case strings.Contains(text, "unexpected end of stream"):
		return named, 0, "a quotation mark is opened here and not closed"
	case strings.Contains(text, "mapping values are not allowed"):
		return named, 0, "this line is indented further than the key above, which has a value already; the keys of one mapping stand in one column"
	case strings.Contains(text, "could not find expected ':'"):
		for i := first; i < last; i++ {
			if m := bareWord.FindStringSubmatchIndex(lines[i]); m != nil {
				word, hint := strings.Fields(lines[i])[0], ""
				if aloneInKeepalived[word] {
					hint = fmt.Sprintf(", such as \"%s: yes\"", word)
				}
				return i + 1, m[2] + 1, fmt.Sprintf("%s has no value; a line is \"key: value\"%s", quote(word), hint)
			}
		}
	case strings.Contains(text, "did not find expected key"), strings.Contains(text, "expected '-' indicator"):
		if i := outdented(lines); i >= 0 {
			return i + 1, 0, fmt.Sprintf("%s stands in the column of the dash above; indent it to the word after the dash", keyOf(lines[i]))
		}
		if i := strayed(lines); i >= 0 {
			return i + 1, 0, fmt.Sprintf("%s begins in the column of no key above; the keys of one mapping stand in one column", keyOf(lines[i]))
		}
	}
	return 0, 0, ""
}

// keyOf is the key of a line, for a message.
func keyOf(line string) string {
	key, _, _ := strings.Cut(strings.TrimSpace(line), ":")
	words := strings.Fields(key)
	if len(words) == 0 {
		return "a key without a name"
	}
	return quote(words[0])
}

// strayed is the index of the first line that is indented less than the one
// before and as no line above it, -1: there is none. It knows nothing of values
// with several lines.
func strayed(lines []string) int {
	var open []int // columns of the mappings and lists around the line
	for i, s := range lines {
		word := strings.TrimLeft(s, " ")
		if word == "" || word[0] == '#' {
			continue
		}
		column := len(s) - len(word)
		deeper := len(open) == 0 || column > open[len(open)-1]
		for len(open) > 0 && column < open[len(open)-1] {
			open = open[:len(open)-1]
		}
		if !deeper && (len(open) == 0 || open[len(open)-1] != column) {
			return i
		}
		if deeper {
			open = append(open, column)
		}
		for strings.HasPrefix(word, "- ") { // the key behind the dash opens a mapping
			rest := strings.TrimLeft(word[1:], " ")
			column += len(word) - len(rest)
			open, word = append(open, column), rest
		}
	}
	return -1
}

// outdented is the index of the first line that stands in the column of the
// list item before it without being one, -1: there is none.
func outdented(lines []string) int {
	column := -1
	for i, s := range lines {
		if m := listItem.FindStringSubmatch(s); m != nil {
			column = len(m[1])
			continue
		}
		word := strings.TrimLeft(s, " ")
		if word == "" || word[0] == '#' {
			continue
		}
		// A key of the mapping around the list may stand there only when that is where it has its keys: at the top.
		if indent := len(s) - len(word); indent == column && indent > 0 {
			return i
		}
	}
	return -1
}

// Old tells the files of the old programs, which people give to a new one.
var old = []struct {
	is  *regexp.Regexp
	say string
}{
	{regexp.MustCompile(`(?m)^\s*virtual6?\s*=`),
		"this is a file of ldirectord; the same keys stand in YAML here, \"checktimeout: 3s\" and \"virtual: [{address: ..., real: [...]}]\": see ldirectord.yaml(5)"},
	{regexp.MustCompile(`(?m)^\s*(?:virtual_server|vrrp_instance|global_defs|real_server)\b[^:\n]*\{`),
		"this is a file of keepalived; the same words stand in YAML here, \"vrrp_instance: {VI_1: {interface: eth0, ...}}\": see vrrp.yaml(5) and docs/vrrp.md; virtual_server is a pool, with the keys of ldirectord: see ldirectord.yaml(5) and docs/migrating.md"},
	{regexp.MustCompile(`(?m)^(?:bcast|mcast|ucast|serial|node|keepalive|deadtime|auto_failback)[ \t\x{a0}]+[^\s:]`),
		"this is heartbeat's ha.cf; the same words stand in YAML here, \"links: [{bcast: eth1}]\" and \"nodes: {director1: {}}\": see ha.yaml(5)"},
	{regexp.MustCompile(`(?m)^[\w.-]+[ \t\x{a0}]+(?:(?:IPaddr2?::)?\d+\.\d+\.\d+\.\d+\S*)(?:[ \t\x{a0}]|$)`),
		"this is heartbeat's haresources; its lines are understood as they are, each an entry of the list \"haresources:\" (\"- director1 ...\"): see haresources.yaml(5)"},
}

// OldFile says what a file is that one of the old programs reads, and how the
// same is written here; empty: none that is known.
func OldFile(data []byte) string {
	for _, o := range old {
		if o.is.Match(data) {
			return o.say
		}
	}
	return ""
}
