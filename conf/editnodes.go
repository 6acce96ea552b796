package conf

import (
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// entry is a node as `nodes:` has it.
type entry struct {
	Node
	key, value *yaml.Node // value nil: an entry of a list
	from, to   int        // of key and value
	stays      bool
	role       Role // the new one
}

// nodes edits `nodes:` and returns what it then is.
func (e *editor) nodes(wanted []Node) ([]Node, error) {
	entries, err := e.entries()
	if err != nil {
		return nil, err
	}
	add := make([]Node, 0, len(wanted))
	for _, n := range wanted {
		n.Name = strings.ToLower(n.Name)
		add = append(add, n)
	}
	var result []Node
	witness := false
	for i := range entries {
		x := &entries[i]
		j := slices.IndexFunc(add, func(n Node) bool { return n.Name == x.Name })
		if j < 0 {
			continue
		}
		x.stays, x.role = true, add[j].Role
		witness = witness || x.role == Witness
		result = append(result, add[j])
		add = slices.Delete(add, j, j+1)
	}
	for _, n := range add {
		witness = witness || n.Role == Witness
	}
	list := e.value.Kind == yaml.SequenceNode
	if e.value.Style&yaml.FlowStyle != 0 {
		err = e.flow(entries, add, list, list && witness)
	} else {
		err = e.block(entries, add, list, list && witness)
	}
	return append(result, add...), err
}

// entries reads `nodes:` and finds where each node is written.
func (e *editor) entries() ([]entry, error) {
	r := &reader{file: "ha.yaml"}
	var raw rawLocal
	raw.readNodes(r)(e.value)
	if len(r.errs) > 0 {
		return nil, asError(r.errs, oneFile)
	}
	step := 2
	if e.value.Kind == yaml.SequenceNode {
		step = 1
	}
	if len(raw.nodes) == 0 || len(raw.nodes)*step != len(e.value.Content) || e.value.Anchor != "" {
		return nil, errForm(e.key, "\"nodes\" is empty, or")
	}
	entries := make([]entry, len(raw.nodes))
	for i, n := range raw.nodes {
		x := entry{Node: n.Node, key: e.value.Content[i*step]}
		end, err := e.end(x.key)
		if err != nil {
			return nil, err
		}
		if x.from = e.at(x.key); step == 2 {
			x.value = e.value.Content[i*step+1]
			if end, err = e.endOfPair(end, x.value); err != nil {
				return nil, err
			}
		}
		x.to = end
		entries[i] = x
	}
	return entries, nil
}

// endOfPair is the offset behind a value, of a key that ends at keyEnd.
func (e *editor) endOfPair(keyEnd int, value *yaml.Node) (int, error) {
	if value.Kind == yaml.ScalarNode && value.Value == "" && value.Style == 0 {
		if i := e.blanks(keyEnd); e.src[i] == ':' {
			return i + 1, nil
		}
		return keyEnd, nil // {a, b}
	}
	if value.Kind == yaml.MappingNode && value.Style&yaml.FlowStyle == 0 && len(value.Content) > 0 {
		last := value.Content[len(value.Content)-2:]
		end, err := e.end(last[0])
		if err != nil {
			return 0, err
		}
		return e.endOfPair(end, last[1])
	}
	return e.end(value)
}

// valueEnd is the offset behind the value of `nodes:`.
func (e *editor) valueEnd() (int, error) {
	if e.value.Style&yaml.FlowStyle != 0 {
		return e.end(e.value)
	}
	entries, err := e.entries()
	if err != nil {
		return 0, err
	}
	return entries[len(entries)-1].to, nil
}

// plainName writes a name as a YAML key.
func plainName(name string) string {
	if n := (&yaml.Node{Kind: yaml.ScalarNode, Value: name}); isNull(n) {
		return `"` + name + `"`
	}
	return name
}

func roleText(r Role) string {
	if r == Witness {
		return "{role: witness}"
	}
	return "{}"
}

func entryText(n Node, list bool) string {
	if list {
		return plainName(n.Name)
	}
	return plainName(n.Name) + ": " + roleText(n.Role)
}

// block edits lines. With convert a list becomes a mapping, since a list cannot say who is a witness.
func (e *editor) block(entries []entry, add []Node, list, convert bool) error {
	indent := e.before(entries[0].from)
	if convert {
		indent, _, _ = strings.Cut(indent, "-")
		if own := e.before(e.at(e.key)); len(indent) <= len(own) {
			indent = own + "  "
		}
	}
	if marks := strings.Trim(indent, " "); marks != "" && (!list || marks != "-") {
		return errForm(e.key, "\"nodes\" is")
	}
	after := 0
	for _, x := range entries {
		start := x.from - len(e.before(x.from))
		end, alone := e.tail(x.to)
		if !alone {
			return errForm(x.key, "\"nodes\" is")
		}
		after = e.nextLine(end)
		switch {
		case !x.stays:
			e.replace(start, after, "")
		case convert:
			e.replace(start, x.to, indent+string(e.src[x.from:x.to])+": "+roleText(x.role))
		case x.role != x.Role:
			e.replace(x.from, x.to, entryText(Node{x.Name, x.role}, list))
		}
	}
	for _, n := range add {
		e.replace(after, after, indent+entryText(n, list && !convert)+e.eol)
	}
	return nil
}

// flow edits what is between brackets.
func (e *editor) flow(entries []entry, add []Node, list, convert bool) error {
	end, err := e.end(e.value)
	if err != nil {
		return err
	}
	if convert {
		e.replace(e.at(e.value), e.at(e.value)+1, "{")
		e.replace(end-1, end, "}")
	}
	texts := make([]string, len(add))
	for i, n := range add {
		texts[i] = entryText(n, list && !convert)
	}
	lastKept := -1
	for i, x := range entries {
		if x.stays {
			lastKept = i
		}
	}
	if lastKept < 0 {
		e.replace(entries[0].from, entries[len(entries)-1].to, strings.Join(texts, ", "))
		return nil
	}
	for i, x := range entries {
		switch {
		case i > lastKept:
		case !x.stays:
			e.removeItem(x)
		case convert:
			e.replace(x.to, x.to, ": "+roleText(x.role))
		case x.role != x.Role:
			e.replace(x.from, x.to, entryText(Node{x.Name, x.role}, list))
		}
	}
	last := entries[lastKept].to
	if len(texts) > 0 {
		e.replace(last, last, ", "+strings.Join(texts, ", "))
	}
	if lastKept == len(entries)-1 {
		return nil
	}
	if to := entries[len(entries)-1].to; !strings.ContainsAny(string(e.src[last:to]), "#\n") {
		e.replace(last, to, "")
		return nil
	}
	for _, x := range entries[lastKept+1:] {
		e.removeItem(x)
	}
	return nil
}

// removeItem takes an item with its comma and the comment behind it, and the
// whole line where nothing else is on it.
func (e *editor) removeItem(x entry) {
	from, to := x.from, e.blanks(x.to)
	if e.src[to] == ',' {
		to = e.blanks(to + 1)
	}
	if end, alone := e.tail(to); alone {
		to = end
		if own := e.before(from); strings.Trim(own, " \t") == "" {
			from, to = from-len(own), e.nextLine(to)
		}
	}
	e.replace(from, to, "")
}
