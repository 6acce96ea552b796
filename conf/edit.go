package conf

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// EditNodes returns a ha.yaml whose `nodes:` are these, and whose `quorum:` is
// this, with everything else, comments included, byte for byte as it was. Nodes
// that stay keep their lines and their order; new ones come last. `quorum:` is
// written where it is needed: in a pair, and where the file has it.
//
// The result has been read back. The error is an Errors, or wraps one, when
// the file is not understood or would not be valid with these nodes; a form of
// YAML that is not edited safely (anchors, keys with "?") is an error too.
func EditNodes(file []byte, nodes []Node, quorum Quorum) ([]byte, error) {
	if err := checkEdit(nodes, quorum); err != nil {
		return nil, err
	}
	e, err := newEditor(file)
	if err != nil {
		return nil, err
	}
	want, err := e.nodes(nodes)
	if err == nil {
		err = e.quorum(len(nodes), quorum)
	}
	if err != nil {
		return nil, err
	}
	result := e.apply()
	if !e.newline {
		result = bytes.TrimSuffix(result, []byte(e.eol))
	}
	if err := e.verify(result, want, quorum); err != nil {
		return nil, err
	}
	return result, nil
}

func checkEdit(nodes []Node, quorum Quorum) error {
	if len(nodes) == 0 {
		return errors.New("ha.yaml: a cluster has at least one node")
	}
	if quorum < QuorumMajority || quorum > QuorumUnsafe {
		return fmt.Errorf("ha.yaml: %s is no quorum rule", quorum)
	}
	for i, n := range nodes {
		if err := checkNodeName(n.Name); err != nil {
			return fmt.Errorf("ha.yaml: %w", err)
		}
		if n.Role != Director && n.Role != Witness {
			return fmt.Errorf("ha.yaml: node %s: %s is no role", n.Name, n.Role)
		}
		if slices.ContainsFunc(nodes[:i], func(o Node) bool { return strings.EqualFold(o.Name, n.Name) }) {
			return fmt.Errorf("ha.yaml: node %s is named twice", n.Name)
		}
	}
	return nil
}

// editor collects replacements of parts of a text whose YAML it knows.
type editor struct {
	src       []byte // ends with a line break
	newline   bool   // the file had it
	eol       string // "\n" or "\r\n"
	lineStart []int  // offset of each line
	root      *yaml.Node
	key       *yaml.Node // `nodes`
	value     *yaml.Node
	edits     []edit
}

// edit replaces src[from:to].
type edit struct {
	from, to int
	text     string
}

// errForm is for YAML that nobody writes and that is not edited.
func errForm(n *yaml.Node, what string) error {
	return fmt.Errorf("ha.yaml:%d: %s in a form that cannot be edited; write it plainly, one node a line: \"director1: {}\"", n.Line, what)
}

func newEditor(file []byte) (*editor, error) {
	r := &reader{file: "ha.yaml"}
	e := &editor{root: r.document(file), newline: bytes.HasSuffix(file, []byte("\n")), eol: "\n"}
	if e.root == nil {
		return nil, asError(r.errs, oneFile)
	}
	if bytes.Contains(file, []byte("\r\n")) {
		e.eol = "\r\n"
	}
	if e.src = slices.Clone(file); !e.newline {
		e.src = append(e.src, e.eol...)
	}
	// The YAML library counts other line breaks, too.
	if plain := bytes.ReplaceAll(e.src, []byte("\r\n"), nil); bytes.ContainsAny(plain, "\r\u0085\u2028\u2029\ufeff") {
		return nil, errors.New("ha.yaml: line breaks of several kinds, or a byte order mark; save the file as plain text")
	}
	e.lineStart = []int{0}
	for i, b := range e.src {
		if b == '\n' {
			e.lineStart = append(e.lineStart, i+1)
		}
	}
	if e.root.Kind == yaml.MappingNode {
		e.key, e.value = e.find("nodes")
	}
	if e.key == nil {
		return nil, errors.New("ha.yaml: \"nodes\" is missing")
	}
	return e, nil
}

func (e *editor) find(name string) (key, value *yaml.Node) {
	for i := 0; i+1 < len(e.root.Content); i += 2 {
		if k := e.root.Content[i]; k.Kind == yaml.ScalarNode && k.Value == name {
			return k, e.root.Content[i+1]
		}
	}
	return nil, nil
}

func (e *editor) replace(from, to int, text string) {
	e.edits = append(e.edits, edit{from, to, text})
}

func (e *editor) apply() []byte {
	slices.SortStableFunc(e.edits, func(a, b edit) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to)) })
	var out []byte
	at := 0
	for _, x := range e.edits {
		out = append(out, e.src[at:max(at, x.from)]...)
		out = append(out, x.text...)
		at = max(at, x.to)
	}
	return append(out, e.src[at:]...)
}

// at returns the offset of a node.
func (e *editor) at(n *yaml.Node) int {
	i := e.lineStart[min(n.Line, len(e.lineStart))-1]
	for range n.Column - 1 {
		_, size := utf8.DecodeRune(e.src[i:])
		i += size
	}
	return i
}

// end returns the offset behind a scalar or a flow collection.
func (e *editor) end(n *yaml.Node) (int, error) {
	at := e.at(n)
	rest := e.src[at:]
	switch {
	case n.Anchor != "" || n.Kind == yaml.AliasNode || n.Style&yaml.TaggedStyle != 0:
	case n.Kind == yaml.ScalarNode && n.Style == 0:
		if n.Value != "" && bytes.HasPrefix(rest, []byte(n.Value)) {
			return at + len(n.Value), nil
		}
	case n.Kind == yaml.ScalarNode && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0:
		if size := quotedSize(rest); size > 0 {
			return at + size, nil
		}
	case n.Style&yaml.FlowStyle != 0:
		if size := flowSize(rest); size > 0 {
			return at + size, nil
		}
	}
	return 0, errForm(n, "\"nodes\" or \"quorum\" is")
}

// quotedSize is the length of the quoted text that begins here, 0 if it does not end.
func quotedSize(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch {
		case b[0] == '"' && b[i] == '\\':
			i++
		case b[i] == b[0] && b[0] == '\'' && i+1 < len(b) && b[i+1] == '\'':
			i++
		case b[i] == b[0]:
			return i + 1
		}
	}
	return 0
}

// flowSize is the length of the flow collection that begins here, 0 if it does not end.
func flowSize(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		case '"', '\'':
			// Elsewhere it is a letter like others.
			if !bytes.ContainsRune([]byte(" \t\r\n,[{:"), rune(b[i-1])) {
				continue
			}
			size := quotedSize(b[i:])
			if size == 0 {
				return 0
			}
			i += size - 1
		case '#':
			if bytes.ContainsRune([]byte(" \t\r\n"), rune(b[i-1])) {
				i += bytes.IndexByte(b[i:], '\n')
			}
		}
		if depth == 0 {
			return 0
		}
	}
	return 0
}

// blanks skips blanks and tabs.
func (e *editor) blanks(i int) int {
	for i < len(e.src) && (e.src[i] == ' ' || e.src[i] == '\t') {
		i++
	}
	return i
}

// tail skips what may follow on a line, blanks and a comment; ok: nothing else
// does. The result is the offset of the line break.
func (e *editor) tail(i int) (int, bool) {
	if i = e.blanks(i); i < len(e.src) && e.src[i] == '#' {
		i += bytes.IndexByte(e.src[i:], '\n')
		if e.src[i-1] == '\r' {
			i--
		}
	}
	rest := e.src[i:]
	return i, bytes.HasPrefix(rest, []byte("\n")) || bytes.HasPrefix(rest, []byte("\r\n"))
}

// nextLine is the offset of the line after an offset.
func (e *editor) nextLine(i int) int { return i + bytes.IndexByte(e.src[i:], '\n') + 1 }

// before is the text of a line up to an offset.
func (e *editor) before(i int) string {
	start := bytes.LastIndexByte(e.src[:i], '\n') + 1
	return string(e.src[start:i])
}

// quorum changes the rule, or adds it where a pair needs it.
func (e *editor) quorum(nodes int, q Quorum) error {
	if key, value := e.find("quorum"); key != nil {
		end, err := e.end(value)
		if err == nil && value.Value != q.String() {
			e.replace(e.at(value), end, q.String())
		}
		return err
	}
	if nodes != 2 && q == QuorumMajority {
		return nil
	}
	end, err := e.valueEnd()
	if err != nil {
		return err
	}
	if e.root.Style&yaml.FlowStyle != 0 {
		e.replace(end, end, ", quorum: "+q.String())
		return nil
	}
	indent := e.before(e.at(e.key))
	end, alone := e.tail(end)
	if !alone || strings.Trim(indent, " ") != "" {
		return errForm(e.key, "\"nodes\" is")
	}
	end = e.nextLine(end)
	e.replace(end, end, indent+"quorum: "+q.String()+e.eol)
	return nil
}

// verify reads the result, and compares it with what was wanted and what was there.
func (e *editor) verify(result []byte, nodes []Node, quorum Quorum) error {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = n.Name
	}
	l, _, err := ParseLocal("ha.yaml", result, nodes[0].Name)
	if err != nil {
		return fmt.Errorf("ha.yaml with nodes %s and quorum %s: %w", strings.Join(names, ", "), quorum, err)
	}
	r := &reader{}
	root := r.document(result)
	if !slices.Equal(l.Nodes, nodes) || l.Quorum != quorum || root == nil || !slices.EqualFunc(others(e.root), others(root), sameYAML) {
		return errForm(e.key, "\"nodes\" is")
	}
	return nil
}

// others are the keys and values of ha.yaml that an edit must not change.
func others(root *yaml.Node) (out []*yaml.Node) {
	for i := 0; i+1 < len(root.Content); i += 2 {
		if k := root.Content[i]; k.Kind != yaml.ScalarNode || k.Value != "nodes" && k.Value != "quorum" {
			out = append(out, k, root.Content[i+1])
		}
	}
	return out
}

func sameYAML(a, b *yaml.Node) bool {
	return a.Kind == b.Kind && a.Style == b.Style && a.Tag == b.Tag && a.Value == b.Value && a.Anchor == b.Anchor && slices.EqualFunc(a.Content, b.Content, sameYAML)
}

// WriteNodes is EditNodes of a file. A file that says it already is not touched.
func WriteNodes(path string, nodes []Node, quorum Quorum) error {
	file, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	edited, err := EditNodes(file, nodes, quorum)
	if err != nil || bytes.Equal(edited, file) {
		return err
	}
	return replace(path, edited, st.Mode().Perm())
}

// CheckNodes says whether WriteNodes could do it.
func CheckNodes(path string, nodes []Node, quorum Quorum) error {
	file, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	_, err = EditNodes(file, nodes, quorum)
	return err
}
