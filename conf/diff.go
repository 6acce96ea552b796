package conf

import (
	"cmp"
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Diff tells in words what differs, one line each, in the order settings,
// groups, fencing, ipvs, pools. It is empty when nothing would change. A nil
// specification is an empty one.
//
//	group web: resource "vip 10.0.0.5" added
//	pool ldirectord.yaml: virtual 10.0.0.1:80 tcp: real 10.0.0.5:80: weight 1 -> 2
func Diff(old, new *Spec) []string {
	empty := Spec{}
	if old == nil {
		old = &empty
	}
	if new == nil {
		new = &empty
	}
	var d differ
	if old != &empty || new.Settings != (Settings{}) {
		d.fields("settings", reflect.ValueOf(old.Settings), reflect.ValueOf(new.Settings))
	}
	each(&d, "group ", old.Groups, new.Groups, func(g Group) string { return g.Name }, d.group)
	d.fencing(old.Fencing, new.Fencing)
	d.fields("ipvs", reflect.ValueOf(orNone(old.IPVS)), reflect.ValueOf(orNone(new.IPVS)))
	names := map[string]bool{}
	for n := range old.Pools {
		names[n] = true
	}
	for n := range new.Pools {
		names[n] = true
	}
	sorted := make([]string, 0, len(names))
	for n := range names {
		sorted = append(sorted, n)
	}
	slices.Sort(sorted)
	for _, n := range sorted {
		a, was := old.Pools[n]
		b, is := new.Pools[n]
		prefix := "pool " + n
		switch {
		case !is:
			d.say("%s removed (%s)", prefix, count(len(a.Virtuals), "virtual service"))
		case !was:
			d.say("%s added (%s)", prefix, count(len(b.Virtuals), "virtual service"))
		default:
			d.fields(prefix, reflect.ValueOf(a), reflect.ValueOf(b), "Virtuals")
			each(&d, prefix+": virtual ", a.Virtuals, b.Virtuals, Virtual.String, d.virtual)
		}
	}
	return d.lines
}

func orNone(v *IPVS) IPVS {
	if v == nil {
		return IPVS{}
	}
	return *v
}

type differ struct{ lines []string }

func (d *differ) say(format string, args ...any) {
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// each compares two lists whose entries have names.
func each[T any](d *differ, prefix string, old, new []T, name func(T) string, both func(prefix string, a, b T)) {
	was := make(map[string]T, len(old))
	for _, x := range old {
		was[name(x)] = x
	}
	is := make(map[string]bool, len(new))
	for _, x := range new {
		is[name(x)] = true
	}
	var kept, keptNew []string
	for _, x := range old {
		if n := name(x); is[n] {
			kept = append(kept, n)
		} else {
			d.say("%s%s removed", prefix, n)
		}
	}
	for _, x := range new {
		n := name(x)
		a, ok := was[n]
		if !ok {
			d.say("%s%s added", prefix, n)
			continue
		}
		keptNew = append(keptNew, n)
		both(prefix+n, a, x)
	}
	if !slices.Equal(kept, keptNew) {
		d.say("%s: order %s -> %s", strings.TrimRight(prefix, " "), strings.Join(kept, ", "), strings.Join(keptNew, ", "))
	}
}

func (d *differ) group(prefix string, a, b Group) {
	d.fields(prefix, reflect.ValueOf(a), reflect.ValueOf(b), "Resources", "Name")
	quoted := func(r Resource) string { return fmt.Sprintf("%q", r.Name) }
	each(d, prefix+": resource ", a.Resources, b.Resources, quoted, func(prefix string, a, b Resource) {
		d.fields(prefix, reflect.ValueOf(a), reflect.ValueOf(b), "Name")
	})
}

func (d *differ) virtual(prefix string, a, b Virtual) {
	d.fields(prefix, reflect.ValueOf(a), reflect.ValueOf(b), "Reals", "Address", "FWMark", "Fallbacks")
	name := func(r Real) string { return ServerName(r.Address) }
	one := func(prefix string, a, b Real) {
		d.fields(prefix, reflect.ValueOf(a), reflect.ValueOf(b), "Address", "Also")
		d.also(prefix, a.Also, b.Also)
	}
	each(d, prefix+": fallback ", a.Fallbacks, b.Fallbacks, name, one)
	each(d, prefix+": real ", a.Reals, b.Reals, name, one)
}

// also compares the further checks of a server, which have no names but their order.
func (d *differ) also(prefix string, a, b []Check) {
	for i := range max(len(a), len(b)) {
		prefix := fmt.Sprintf("%s: check %d", prefix, i+2)
		switch {
		case i >= len(a):
			d.say("%s added (%s)", prefix, b[i].kind())
		case i >= len(b):
			d.say("%s removed (%s)", prefix, a[i].kind())
		default:
			d.fields(prefix, reflect.ValueOf(a[i]), reflect.ValueOf(b[i]))
		}
	}
}

// kind names a check without what it asks, which may be a secret: "negotiate http", "ping".
func (c Check) kind() string { return strings.TrimSpace(c.Type.String() + " " + c.Service) }

// secretFields of a Check or a virtual router are never shown: headers and body may carry a token or a password.
var secretFields = []string{"Passwd", "Secret", "Headers", "Body", "Password"}

// fields compares two structures of the same type, by the names that their
// JSON has, and goes into those within.
func (d *differ) fields(prefix string, a, b reflect.Value, except ...string) {
	for i := range a.NumField() {
		f := a.Type().Field(i)
		if slices.Contains(except, f.Name) {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		x, y := a.Field(i), b.Field(i)
		if f.Type.Kind() == reflect.Pointer && !x.IsNil() && !y.IsNil() {
			x, y = x.Elem(), y.Elem()
		}
		if reflect.DeepEqual(x.Interface(), y.Interface()) {
			continue
		}
		if slices.Contains(secretFields, f.Name) {
			word := "changed"
			if x.IsZero() {
				word = "added"
			} else if y.IsZero() {
				word = "removed"
			}
			d.say("%s: %s %s", prefix, name, word)
			continue
		}
		_, isText := x.Interface().(encoding.TextMarshaler)
		if x.Kind() == reflect.Struct && !isText && x.Type() == y.Type() {
			d.fields(prefix+": "+name, x, y)
			continue
		}
		d.say("%s: %s %s -> %s", prefix, cmp.Or(name, f.Name), inWords(x), inWords(y))
	}
}

func inWords(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return brief(x)
	case bool:
		if x {
			return "yes"
		}
		return "no"
	case string:
		if x == "" {
			return "none"
		}
		if strings.ContainsAny(x, " \t\"") {
			return quote(x)
		}
		return x
	case []string:
		if len(x) == 0 {
			return "none"
		}
		return strings.Join(x, ", ")
	case encoding.TextMarshaler:
		if b, err := x.MarshalText(); err == nil && len(b) > 0 {
			return string(b)
		}
		return "none"
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return "none"
		}
		if _, ok := v.Interface().(fmt.Stringer); !ok && v.Elem().Kind() == reflect.Struct {
			return "given"
		}
		return inWords(v.Elem())
	}
	return fmt.Sprint(v.Interface())
}
