package lab

import "slices"

// Way is one direction through a switch, from port to port; nil is every port.
type Way struct{ From, To *Port }

// Ways are those from one host to another, on the switches named or, with none named, on all.
func Ways(from, to *Host, on ...*Switch) []Way {
	var ways []Way
	for _, x := range from.ports {
		for _, y := range to.ports {
			if x.Switch == y.Switch && x != y && (len(on) == 0 || slices.Contains(on, x.Switch)) {
				ways = append(ways, Way{x, y})
			}
		}
	}
	return ways
}

// Impairment is a loss that can be ended by itself while others last.
type Impairment struct{ lab *Lab }

// Impair loses permille of a thousand frames at random on each of the ways; 1000 is all.
func (l *Lab) Impair(permille int, ways ...Way) *Impairment {
	l.t.Helper()
	i := &Impairment{l}
	var faults []fault
	for _, w := range ways {
		faults = append(faults, fault{from: w.From, to: w.To, permille: permille, of: i})
	}
	l.addFaults(faults...)
	return i
}

// End ends it; a second time does nothing.
func (i *Impairment) End() {
	i.lab.t.Helper()
	i.lab.faults = slices.DeleteFunc(i.lab.faults, func(f fault) bool { return f.of == i })
	i.lab.applyFaults()
}
