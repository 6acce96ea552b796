package conf

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func nodesOf(text string) (nodes []Node) {
	for _, w := range strings.Fields(text) {
		name, witness := strings.CutSuffix(w, "*")
		n := Node{name, Director}
		if witness {
			n.Role = Witness
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// A star marks a witness.
func TestNodesAreEditedAndNothingElse(t *testing.T) {
	const links = "links: [{bcast: eth1}, {bcast: eth2}]   # two wires\n"
	for name, c := range map[string]struct {
		file   string
		nodes  string
		quorum Quorum
		want   string
	}{
		"a witness makes three of a pair": {
			"# mine\nnodes:\n  director1: {}   # left\n  director2: {}   # right\n\n# what decides\nquorum: fencing  # ipmi\n" + links, "director1 director2 arbiter*", QuorumMajority,
			"# mine\nnodes:\n  director1: {}   # left\n  director2: {}   # right\n  arbiter: {role: witness}\n\n# what decides\nquorum: witness  # ipmi\n" + links},
		"and goes again": {
			"nodes:\n  director1: {}   # left\n  # in the cellar\n  arbiter: {role: witness} # small\n  director2: {}   # right\n" + links, "director1 director2", QuorumFencing,
			"nodes:\n  director1: {}   # left\n  # in the cellar\n  director2: {}   # right\nquorum: fencing\n" + links},
		"nothing changes": {
			"nodes:\n  a: {}\n  b:\n  c:   # third\n    role: witness # small\n" + links, "a b c*", QuorumMajority,
			"nodes:\n  a: {}\n  b:\n  c:   # third\n    role: witness # small\n" + links},
		"the last line goes": {
			links + "nodes:\n  a: {}\n  b:\n  c:\n    role: witness # small", "a b", QuorumUnsafe,
			links + "nodes:\n  a: {}\n  b:\nquorum: unsafe"},
		"a role changes": {
			"nodes:\n  a: {}   # one\n  b: {role: witness} # two\n  c: {}\n" + links, "a* b c", QuorumMajority,
			"nodes:\n  a: {role: witness}   # one\n  b: {} # two\n  c: {}\n" + links},
		"all are new": {
			"nodes:\n  a: {}   # one\n  # between\n  b: {} # two\n  c: {}\n" + links, "x y z", QuorumMajority,
			"nodes:\n  # between\n  x: {}\n  y: {}\n  z: {}\n" + links},
		"the order of the file stays": {
			"nodes: {a: {}, b: {}, c: {}}\n" + links, "d c a b", QuorumMajority,
			"nodes: {a: {}, b: {}, c: {}, d: {}}\n" + links},
		"braces": {
			"nodes: {a: {}, b: {}, c: {role: witness}} # all\n" + links, "a b", QuorumFencing,
			"nodes: {a: {}, b: {}} # all\nquorum: fencing\n" + links},
		"braces, the first and the second go": {
			"nodes: { a: {}, b: {}, c, d: , \"e\": {role: director} }\n" + links, "c d e f*", QuorumMajority,
			"nodes: { c, d: , \"e\": {role: director}, f: {role: witness} }\n" + links},
		"braces over lines": {
			"nodes: {\n  a: {},  # one\n  # of the second\n  b: {},  # two\n  # of the third\n  c: {},  # three\n}\n" + links, "a c", QuorumUnsafe,
			"nodes: {\n  a: {},  # one\n  # of the second\n  # of the third\n  c: {},  # three\n}\nquorum: unsafe\n" + links},
		"braces over lines, the last goes": {
			"nodes: {a: {},  # one\n  b: {},  # two\n  c: {}  # three }\n}\n" + links, "a b d", QuorumMajority,
			"nodes: {a: {},  # one\n  b: {}, d: {},  # two\n}\n" + links},
		"braces, all are new": {
			"nodes: {a: {}, b: {}, c: {}}\n" + links, "x y z*", QuorumMajority,
			"nodes: {x: {}, y: {}, z: {role: witness}}\n" + links},
		"brackets": {
			"nodes: [a, b, c]\n" + links, "a c d", QuorumMajority,
			"nodes: [a, c, d]\n" + links},
		"brackets with a witness become braces": {
			"nodes: [a, 'b']  # both\nquorum: \"fencing\"\n" + links, "a b w*", QuorumMajority,
			"nodes: {a: {}, 'b': {}, w: {role: witness}}  # both\nquorum: witness\n" + links},
		"a list": {
			"nodes:\n- a  # one\n- b  # two\n- c\n" + links, "a c d", QuorumMajority,
			"nodes:\n- a  # one\n- c\n- d\n" + links},
		"a list with a witness becomes a mapping": {
			"nodes:\n- a  # one\n# between\n- b  # two\n" + links, "a b w*", QuorumMajority,
			"nodes:\n  a: {}  # one\n# between\n  b: {}  # two\n  w: {role: witness}\n" + links},
		"an indented list with a witness": {
			"nodes:\n    -   a\n    -   b\n" + links, "a b w*", QuorumMajority,
			"nodes:\n    a: {}\n    b: {}\n    w: {role: witness}\n" + links},
		"all in braces": {
			"{cluster: x, nodes: {a: {}, b: {}, c: {}}, links: [{bcast: eth1}, {bcast: eth2}]}\n", "a b", QuorumFencing,
			"{cluster: x, nodes: {a: {}, b: {}}, quorum: fencing, links: [{bcast: eth1}, {bcast: eth2}]}\n"},
		"JSON": {
			`{"nodes":{"a":{},"b":{}},"quorum":"fencing","links":[{"bcast":"eth1"},{"bcast":"eth2"}]}`, "a b c", QuorumMajority,
			`{"nodes":{"a":{},"b":{}, c: {}},"quorum":witness,"links":[{"bcast":"eth1"},{"bcast":"eth2"}]}`},
		"all is indented": {
			"---\n  nodes:\n    a: {}\n    b: {}\n    c: {}\n  links: [{bcast: eth1}, {bcast: eth2}]\n...\n", "a b", QuorumFencing,
			"---\n  nodes:\n    a: {}\n    b: {}\n  quorum: fencing\n  links: [{bcast: eth1}, {bcast: eth2}]\n...\n"},
		"lines of Windows": {
			"nodes:\r\n  a: {} # one\r\n  b: {}\r\nquorum: fencing\r\nlinks: [{bcast: eth1}, {bcast: eth2}]\r\n", "a b c", QuorumMajority,
			"nodes:\r\n  a: {} # one\r\n  b: {}\r\n  c: {}\r\nquorum: witness\r\nlinks: [{bcast: eth1}, {bcast: eth2}]\r\n"},
		"capitals and odd names": {
			"nodes:\n  Director1: {}\n  \"null\": {}\n  1.5: {}\n" + links, "director1 null 1.5 ~", QuorumMajority, ""},
		"a name that YAML takes for nothing": {
			"nodes:\n  Director1: {}\n  b: {}\n  1.5: {}\n" + links, "director1 null 1.5", QuorumMajority,
			"nodes:\n  Director1: {}\n  1.5: {}\n  \"null\": {}\n" + links},
		"letters beyond ASCII": {
			"{cluster: x, socket_group: größe, nodes: {a: {}, b: {}, c: {}}, links: [{bcast: eth1}, {bcast: eth2}]} # größe\n", "a b c d", QuorumMajority,
			"{cluster: x, socket_group: größe, nodes: {a: {}, b: {}, c: {}, d: {}}, links: [{bcast: eth1}, {bcast: eth2}]} # größe\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := EditNodes([]byte(c.file), nodesOf(c.nodes), c.quorum)
			if c.want == "" {
				if err == nil {
					t.Errorf("accepted:\n%s", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.want {
				t.Errorf("it became\n%s\nwant\n%s", got, c.want)
			}
			again, err := EditNodes(got, nodesOf(c.nodes), c.quorum)
			if err != nil || !bytes.Equal(again, got) {
				t.Errorf("the same again changes it (%v):\n%s", err, again)
			}
		})
	}
}

func TestEditsThatAreRefused(t *testing.T) {
	const rest = "\nlinks: [{bcast: eth1}, {bcast: eth2}]\n"
	for name, c := range map[string]struct {
		file, nodes string
		quorum      Quorum
		want        string
	}{
		"no nodes":                  {"nodes: [a, b, c]" + rest, "", QuorumMajority, "ha.yaml: a cluster has at least one node"},
		"no rule":                   {"nodes: [a, b, c]" + rest, "a", 0, "ha.yaml: invalid(0) is no quorum rule"},
		"a node twice":              {"nodes: [a, b, c]" + rest, "a b A", QuorumMajority, "ha.yaml: node A is named twice"},
		"a pair without a rule":     {"nodes: [a, b, c]" + rest, "a b", QuorumMajority, "ha.yaml with nodes a, b and quorum witness: ha.yaml:2:9: quorum witness needs a third node"},
		"ping without a group":      {"nodes: [a, b, c]" + rest, "a b", QuorumPing, "ha.yaml with nodes a, b and quorum ping: ha.yaml:2:9: quorum ping needs \"ping_group\""},
		"three on a serial line":    {"nodes: [a, b]\nquorum: fencing\nlinks: [{bcast: eth1}, {serial: /dev/ttyS0}]", "a b c", QuorumMajority, "ha.yaml with nodes a, b, c and quorum witness: ha.yaml:3:25: a serial line connects exactly two nodes"},
		"this node is taken out":    {"name: a\nnodes: [a, b, c, d]" + rest, "b c d", QuorumMajority, "ha.yaml with nodes b, c, d and quorum witness: ha.yaml:1:7: this node, \"a\", is not among the nodes"},
		"no nodes in the file":      {"cluster: x\n", "a", QuorumMajority, "ha.yaml: \"nodes\" is missing"},
		"no YAML":                   {"nodes: [", "a", QuorumMajority, "ha.yaml:1: not YAML"},
		"an anchor":                 {"nodes: &n [a, b, c]" + rest, "a b c d", QuorumMajority, "ha.yaml:1: \"nodes\" is empty, or in a form that cannot be edited"},
		"an alias":                  {"cluster: &a b\nnodes: [*a, c, d]" + rest, "b c d e", QuorumMajority, "ha.yaml:2: \"nodes\" or \"quorum\" is in a form that cannot be edited"},
		"a question mark":           {"? nodes\n: {a: {}, b: {}, c: {}}" + rest, "a b", QuorumUnsafe, "ha.yaml:1: \"nodes\" is in a form that cannot be edited"},
		"question marks within":     {"nodes:\n  ? a\n  ? b\n  ? c\n" + rest, "a b", QuorumUnsafe, "ha.yaml:1: \"nodes\" is in a form that cannot be edited"},
		"several kinds of newlines": {"cluster: x\rnodes: [a, b, c]" + rest, "a b c d", QuorumMajority, "ha.yaml: line breaks of several kinds"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := EditNodes([]byte(c.file), nodesOf(c.nodes), c.quorum)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("%v, want %s\n%s", err, c.want, got)
			}
		})
	}
}

func FuzzEditNodes(f *testing.F) {
	for _, s := range []string{
		"nodes:\n  a: {} # x\n  # y\n  b: {role: witness}\n  c:\nlinks: [{bcast: eth1}, {bcast: eth2}]\n",
		"nodes:\n- a # x\n# y\n- b\nquorum: fencing # z\nlinks:\n- bcast: eth1\n",
		"{nodes: [a, # x\n 'b', # y\n c # z\n], links: [{bcast: eth1}]}",
		"nodes: {a: {}, # x\n  # y\n  \"b\": , c}\nlinks:\r\n- bcast: eth1\r\n",
	} {
		for _, want := range []string{"a b", "a c", "b c w*", "x y z", "a* b c d"} {
			f.Add([]byte(s), want, byte(len(want)))
		}
	}
	f.Fuzz(func(t *testing.T, file []byte, want string, q byte) {
		nodes, quorum := nodesOf(want), Quorum(q%5)
		got, err := EditNodes(file, nodes, quorum)
		if err != nil {
			return
		}
		// What stands before and behind the two keys is as it was.
		e, err := newEditor(file)
		if err != nil {
			t.Fatal(err)
		}
		from, to := e.at(e.key), 0
		if to, err = e.valueEnd(); err != nil {
			t.Fatal(err)
		}
		if key, value := e.find("quorum"); key != nil {
			end, err := e.end(value)
			if err != nil {
				t.Fatal(err)
			}
			from, to = min(from, e.at(key)), max(to, end)
		}
		// The entries may begin or end in the middle of lines.
		behind, _ := e.tail(to)
		head, foot := e.src[:from], e.src[behind:]
		if !e.newline {
			foot = bytes.TrimSuffix(foot, []byte(e.eol))
		}
		if !bytes.HasPrefix(got, head) || !bytes.HasSuffix(got, foot) {
			t.Errorf("something else has changed:\n%q\nbecame\n%q", file, got)
		}
		// Nodes that stay keep their comments, and so do lines without a node.
		entries, err := e.entries()
		if err != nil {
			t.Fatal(err)
		}
		stay := !slices.ContainsFunc(entries, func(x entry) bool { return !slices.Contains(nodes, x.Node) })
		if stay && bytes.Count(file, []byte("#")) != bytes.Count(got, []byte("#")) {
			t.Errorf("a comment is lost:\n%q\nbecame\n%q", file, got)
		}
		l, _, err := ParseLocal("ha.yaml", got, nodes[0].Name)
		if err != nil || l.Quorum != quorum || len(l.Nodes) != len(nodes) {
			t.Errorf("%q: %v", got, err)
		}
		again, err := EditNodes(got, nodes, quorum)
		if err != nil || !bytes.Equal(again, got) {
			t.Errorf("the same again changes it (%v):\n%q\nbecame\n%q", err, got, again)
		}
	})
}
