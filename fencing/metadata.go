package fencing

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// metadata is what an agent says of itself.
type metadata struct {
	params  map[string]param
	actions map[string]bool
	// onItself: `on` is not for switching a machine on after it was fenced but
	// gives a node back what fencing took from it (fabric switches, SCSI
	// reservations), and only after the node has proved to be harmless.
	onItself bool
	onTarget bool // and only the node itself can do it
}

type param struct {
	required  bool
	obsoletes string // the older name of the same parameter
	fallback  string // its default
	options   []string
}

const (
	maxMetadata = 1 << 20 // bytes; the longest of fence-agents 4.12 has 11 KiB
	maxNamed    = 1000    // parameters and actions
)

var wordOfMetadata = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,63}$`)

// parseMetadata reads the XML that agents print for `metadata`, and the list
// of parameters that plugins print for getinfo-xml. What follows the end of
// the first element is not looked at.
func parseMetadata(text []byte) (*metadata, error) {
	if len(text) > maxMetadata {
		return nil, fmt.Errorf("metadata of more than %d bytes", maxMetadata)
	}
	d := xml.NewDecoder(bytes.NewReader(text))
	m := &metadata{params: map[string]param{}, actions: map[string]bool{}}
	var inside []string
	var name string // of the parameter that is open
	for {
		token, err := d.Token()
		if err == io.EOF {
			return nil, errors.New("metadata that ends too early, or none")
		} else if err != nil {
			return nil, fmt.Errorf("metadata that is no XML: %w", err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			inside = append(inside, t.Name.Local)
			if inside[0] != "resource-agent" && inside[0] != "parameters" {
				return nil, fmt.Errorf("metadata that begins with <%.40q> and not with <resource-agent>", inside[0])
			}
			if err := m.element(t, &name); err != nil {
				return nil, err
			}
		case xml.EndElement:
			inside = inside[:len(inside)-1]
			if t.Name.Local == "parameter" {
				name = ""
			}
			if len(inside) == 0 {
				return m, nil
			}
		}
	}
}

func (m *metadata) element(t xml.StartElement, name *string) error {
	attr := func(of string) string {
		i := slices.IndexFunc(t.Attr, func(a xml.Attr) bool { return a.Name.Local == of })
		if i < 0 {
			return ""
		}
		return t.Attr[i].Value
	}
	yes := func(of string) bool { v, _ := strconv.ParseBool(attr(of)); return v }
	switch t.Name.Local {
	case "parameter", "action":
		n := attr("name")
		if !wordOfMetadata.MatchString(n) {
			return fmt.Errorf("metadata with a %s called %.80q", t.Name.Local, n)
		}
		if len(m.params)+len(m.actions) >= maxNamed {
			return fmt.Errorf("metadata with more than %d parameters and actions", maxNamed)
		}
		if t.Name.Local == "parameter" {
			*name = n
			m.params[n] = param{required: yes("required"), obsoletes: attr("obsoletes")}
			return nil
		}
		m.actions[n] = true
		if n == "on" {
			m.onTarget = yes("on_target")
			m.onItself = m.onTarget || yes("automatic") || yes("required")
		}
	case "content":
		if p, ok := m.params[*name]; ok {
			p.fallback = attr("default")
			m.params[*name] = p
		}
	case "option":
		if p, ok := m.params[*name]; ok && len(p.options) < maxNamed {
			p.options = append(p.options, attr("value"))
			m.params[*name] = p
		}
	}
	return nil
}

// told are the parameters that keepbeat itself fills in.
var told = []string{"action", "option", "plug", "port"}

// target returns the name of the parameter that says which machine is meant.
// Empty: the agent operates one, and has no such parameter.
func (m *metadata) target() string {
	for _, name := range []string{"plug", "port", "nodename"} {
		if _, ok := m.params[name]; ok {
			return name
		}
	}
	return ""
}

// single says whether the agent operates one machine, the one whose board it talks
// to; its plug then only stands for the address of the board, with port_as_ip.
func (m *metadata) single(given map[string]secret) bool {
	if _, ok := m.params["port_as_ip"]; ok {
		return !slices.Contains([]string{"1", "yes", "on", "true"}, strings.ToLower(string(given["port_as_ip"])))
	}
	return m.target() == ""
}

// missing returns the required parameters that are not given, under no name.
func (m *metadata) missing(given map[string]secret) []string {
	var names []string
	for name, p := range m.params {
		if !p.required || m.newer(name) != "" || slices.Contains(told, name) || name == m.target() {
			continue
		}
		_, has := given[name]
		_, old := given[p.obsoletes]
		if !has && !old {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// newer returns the name that has replaced that of a parameter; empty: none has.
func (m *metadata) newer(name string) string {
	best := ""
	for n, p := range m.params {
		if p.obsoletes == name && n != name && (best == "" || n < best) {
			best = n
		}
	}
	return best
}

// names are those of all parameters that may be given, sorted.
func (m *metadata) names() []string {
	var names []string
	for n := range m.params {
		if !slices.Contains(told, n) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names
}

// mayTake adds up the time-outs of the agent itself for one action, in seconds
// as given or by default.
func (m *metadata) mayTake(given map[string]secret, action string) time.Duration {
	var sum time.Duration
	for name, times := range map[string]int{"login_timeout": 1, "shell_timeout": 1, "power_timeout": 1, "power_wait": 1, "delay": 1, "timeout": 1} {
		p, ok := m.params[name]
		if !ok {
			continue
		}
		if action == "reboot" && strings.HasPrefix(name, "power_") {
			times = 2
		}
		seconds, err := strconv.ParseFloat(cmp.Or(string(given[name]), p.fallback), 64)
		if err != nil || !(seconds > 0) {
			continue
		}
		sum += time.Duration(times) * time.Duration(min(seconds, 1e6)*float64(time.Second))
	}
	return sum
}
