package conf

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"

	"gopkg.in/yaml.v3"
)

// RealServerName is the plain name of the file that `keepbeat realserver` reads.
const RealServerName = "realserver.yaml"

// ParseRealServer reads "192.168.56.200 gate"; the forward method may be left out and is gate.
func ParseRealServer(text string) (RealServer, error) {
	r := RealServer{Forward: Gate}
	words := strings.Fields(text)
	if len(words) == 0 {
		return r, errors.New("the virtual address is empty; write \"192.168.56.200 gate\"")
	}
	var err error
	if r.Address, err = parseAddress(words[0]); err != nil {
		if a, e := netip.ParseAddrPort(words[0]); e == nil {
			return r, fmt.Errorf("%s has a port, and a real server takes the whole address; write %q", quote(words[0]), a.Addr())
		}
		if a, e := netip.ParsePrefix(words[0]); e == nil {
			return r, fmt.Errorf("%s has a prefix, and a real server takes the address alone; write %q", quote(words[0]), a.Addr())
		}
		return r, err
	}
	if len(words) > 1 {
		switch words[1] {
		case "gate":
		case "ipip":
			r.Forward = IPIP
		case "masq":
			return r, fmt.Errorf("%s: a real server of forward method masq has no virtual address; its default route leads through the director", quote(text))
		default:
			return r, fmt.Errorf("%s: forward method %s is not gate or ipip", quote(text), quote(words[1]))
		}
	}
	if len(words) > 2 {
		return r, fmt.Errorf("%s: %s is not understood there; write \"ADDRESS gate\" or \"ADDRESS ipip\"", quote(text), quote(words[2]))
	}
	if a := r.Address; a.Zone() != "" || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		return r, fmt.Errorf("%s cannot be the virtual address of a real server", a)
	}
	return r, nil
}

// realServers reads one address or a list of them.
func (r *reader) realServers(n *yaml.Node) ([]RealServer, bool) {
	var all []RealServer
	good := true
	one := func(n *yaml.Node) {
		text, ok := r.scalar(n, "a virtual address, \"192.168.56.200 gate\"")
		if !ok {
			good = false
			return
		}
		a, err := ParseRealServer(text)
		for _, other := range all {
			if err == nil && other.Address == a.Address {
				err = fmt.Errorf("duplicate virtual address %s", a.Address)
			}
		}
		if err != nil {
			r.errorf(n, "%s", err)
			good = false
			return
		}
		all = append(all, a)
	}
	if n.Kind == yaml.SequenceNode {
		if len(n.Content) == 0 {
			r.errorf(n, "the list of virtual addresses is empty; write \"[192.168.56.200 gate]\"")
			return nil, false
		}
		r.list(n, "virtual", func(_ int, n *yaml.Node) { one(n) })
	} else {
		one(n)
	}
	return all, good && len(all) > 0
}

func (r *reader) realServerFields(all *[]RealServer, given **yaml.Node) []field {
	return []field{
		{"virtual", "The virtual addresses that this machine takes as a real server, each `ADDRESS [gate|ipip]`, default gate; one or a list. Required.", func(n *yaml.Node) {
			*given = n
			*all, _ = r.realServers(n)
		}},
	}
}

// ParseRealServerFile reads realserver.yaml. The error is of type Errors.
func ParseRealServerFile(name string, data []byte) ([]RealServer, error) {
	r := &reader{file: name}
	var all []RealServer
	if root := r.document(data); root != nil {
		var given *yaml.Node
		if r.mapping(root, "realserver.yaml", r.realServerFields(&all, &given), nil) && given == nil && r.odd == 0 {
			r.errorf(root, "\"virtual\" is missing; list the virtual addresses: \"virtual: [192.168.56.200 gate]\"")
		}
	}
	if err := asError(r.errs, func(string) int { return 0 }); err != nil {
		return nil, err
	}
	return all, nil
}

// LoadRealServerFile reads the file of a path.
func LoadRealServerFile(path string) ([]RealServer, error) {
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: no such file; write it (\"virtual: [192.168.56.200 gate]\"), or name the virtual addresses in the command", path)
	}
	if err != nil {
		return nil, err
	}
	return ParseRealServerFile(path, data)
}
