package conf

import (
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

const (
	maxLevels       = 9 // Pacemaker's
	maxLevelDevices = 20
)

// Levels returns the levels of devices that are tried in turn for a node, of
// each of which every device has to succeed. It is empty when nothing can
// fence the node; f may be nil.
func (f *Fencing) Levels(node string) [][]string {
	if f == nil {
		return nil
	}
	if levels := f.Topology[node]; levels != nil {
		return levels
	}
	var levels [][]string
	for _, d := range f.Devices {
		if d.Target(node) != nil {
			levels = append(levels, []string{d.Name})
		}
	}
	return levels
}

// Device returns a device by its name, or nil.
func (f *Fencing) Device(name string) *FenceDevice {
	for i := range f.Devices {
		if f.Devices[i].Name == name {
			return &f.Devices[i]
		}
	}
	return nil
}

// Target returns the entry of a node in the targets of the device, or nil.
func (d *FenceDevice) Target(node string) *FenceTarget {
	for i := range d.Targets {
		if d.Targets[i].Node == node {
			return &d.Targets[i]
		}
	}
	return nil
}

// mayRunOn says whether a node may operate the device to fence target.
func (d *FenceDevice) mayRunOn(n Node, target string) bool {
	return n.Role == Director && n.Name != target && (len(d.RunOn) == 0 || slices.Contains(d.RunOn, n.Name))
}

// topology reads `topology:`, after the devices.
func (s *specReader) topology(f *Fencing, n *yaml.Node) {
	seen := map[string]*yaml.Node{}
	levels := map[string][][]string{}
	s.pairs(n, "topology", func(key, value *yaml.Node) {
		node, ok := s.nodeName(key)
		if !ok || !s.fenceable(key, node) {
			return
		}
		if first := seen[node]; first != nil {
			s.errorf(key, "duplicate node %q in topology; it is already in line %d", node, first.Line)
			return
		}
		seen[node] = key
		if l := s.levels(f, node, value); len(l) > 0 {
			levels[node] = l
		}
	})
	if len(levels) > 0 {
		f.Topology = levels
	}
}

func (s *specReader) levels(f *Fencing, node string, n *yaml.Node) (levels [][]string) {
	before := len(s.errs)
	level := func(n *yaml.Node) {
		var l []string
		add := func(n *yaml.Node) {
			if name, ok := s.levelDevice(f, node, n); ok && slices.Contains(l, name) {
				s.errorf(n, "device %s is in this level already", quote(name))
			} else if ok {
				l = append(l, name)
			}
		}
		if n.Kind == yaml.ScalarNode {
			add(n)
		} else if len(n.Content) > maxLevelDevices {
			s.errorf(n, "more than %d devices in one level", maxLevelDevices)
		} else if s.list(n, "a level of "+node, func(_ int, n *yaml.Node) { add(n) }) && len(n.Content) == 0 {
			s.errorf(n, "the level is empty; name a device, or a list of devices that have to succeed together")
		}
		levels = append(levels, l)
	}
	if n.Kind == yaml.ScalarNode && !isNull(n) {
		level(n)
	} else if len(n.Content) > maxLevels {
		s.errorf(n, "%d levels for %s; the limit is %d", len(n.Content), node, maxLevels)
	} else if s.list(n, "the levels of "+node, func(_ int, n *yaml.Node) { level(n) }) && len(levels) == 0 && len(s.errs) == before {
		s.errorf(n, "%s has no levels; list devices, or take the line out, and each device that has it as a target is a level", node)
	}
	if len(s.errs) > before {
		return nil
	}
	return levels
}

func (s *specReader) levelDevice(f *Fencing, node string, n *yaml.Node) (string, bool) {
	name, ok := s.scalar(n, "the name of a device")
	if !ok {
		return "", false
	}
	d := f.Device(name)
	switch {
	case d == nil && s.fence.deviceAt[name] != nil: // it is faulty, which has been said
		return "", false
	case d == nil:
		known := make([]string, len(f.Devices))
		for i := range f.Devices {
			known[i] = f.Devices[i].Name
		}
		if len(known) == 0 {
			return "", false
		}
		s.errorf(n, "no device is called %s%s", quote(name), didYouMean(name, known))
		return "", false
	case d.Target(node) == nil:
		var names []string
		for _, t := range d.Targets {
			names = append(names, t.Node)
		}
		if len(names) > 0 {
			s.errorf(n, "device %s cannot fence %s: its targets are %s; add the node there, or take the device out here", quote(name), node, strings.Join(names, ", "))
		}
		return "", false
	}
	return name, true
}
