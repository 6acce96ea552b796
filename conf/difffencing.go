package conf

import (
	"cmp"
	"reflect"
	"strings"
)

// fencing compares the devices and how they are used.
func (d *differ) fencing(old, new *Fencing) {
	switch {
	case old == nil && new == nil:
		return
	case old == nil:
		d.say("fencing added (%s)", count(len(new.Devices), "device"))
		return
	case new == nil:
		d.say("fencing removed (%s)", count(len(old.Devices), "device"))
		return
	}
	d.fields("fencing", reflect.ValueOf(*old), reflect.ValueOf(*new), "Devices", "Topology")
	each(d, "fencing: device ", old.Devices, new.Devices, func(x FenceDevice) string { return x.Name }, d.device)
	words := func(levels [][]string) string {
		var w []string
		for _, l := range levels {
			w = append(w, strings.Join(l, " and "))
		}
		return cmp.Or(strings.Join(w, ", then "), "none")
	}
	compareMaps(d, "fencing: topology ", old.Topology, new.Topology, words)
}

func (d *differ) device(prefix string, a, b FenceDevice) {
	d.fields(prefix, reflect.ValueOf(a), reflect.ValueOf(b), "Name", "Params", "Targets")
	each(d, prefix+": target ", a.Targets, b.Targets, func(t FenceTarget) string { return t.Node }, func(prefix string, a, b FenceTarget) {
		d.fields(prefix, reflect.ValueOf(a), reflect.ValueOf(b), "Node")
	})
	params := func(p map[string]Param) map[string]string {
		w := make(map[string]string, len(p))
		for name, x := range p {
			w[name] = x.inWords(name)
		}
		return w
	}
	compareMaps(d, prefix+": param ", params(a.Params), params(b.Params), func(s string) string { return cmp.Or(s, "none") })
}

// inWords shows a value, or where it is. What looks like a secret shows as
// stars: the parser refuses it, a log of somebody else's may have it.
func (p Param) inWords(name string) string {
	switch {
	case p.File != "":
		return "file " + p.File
	case p.Env != "":
		return "env " + p.Env
	case IsSecret(name) || withPassword.MatchString(p.Value):
		return stars
	case p.Value == "" || strings.ContainsAny(p.Value, " \t\""):
		return quote(p.Value)
	}
	return p.Value
}

// compareMaps says what differs, by sorted keys.
func compareMaps[V any](d *differ, prefix string, old, new map[string]V, words func(V) string) {
	all := map[string]bool{}
	for k := range old {
		all[k] = true
	}
	for k := range new {
		all[k] = true
	}
	for _, k := range sortedKeys(all) {
		if x, y := words(old[k]), words(new[k]); x != y {
			d.say("%s%s %s -> %s", prefix, k, x, y)
		}
	}
}
