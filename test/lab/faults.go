package lab

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
)

// A fault drops frames on their way through a switch. Hosts notice nothing but silence.
type fault struct {
	from, to *Port // nil is every port
	permille int   // how many of a thousand are lost
	of       *Impairment
}

// Block drops all frames of the port in both directions, carrier stays: a switch
// in between is dead.
func (p *Port) Block() {
	p.Host.lab.t.Helper()
	p.Host.lab.addFaults(fault{from: p, permille: 1000}, fault{to: p, permille: 1000})
}

// BlockSending drops what the host sends here; it still hears the others.
func (p *Port) BlockSending() {
	p.Host.lab.t.Helper()
	p.Host.lab.addFaults(fault{from: p, permille: 1000})
}

// BlockReceiving drops what comes for the host here; the others still hear it.
func (p *Port) BlockReceiving() {
	p.Host.lab.t.Helper()
	p.Host.lab.addFaults(fault{to: p, permille: 1000})
}

// Lose drops permille of a thousand frames at random in each direction.
func (p *Port) Lose(permille int) {
	p.Host.lab.t.Helper()
	p.Host.lab.addFaults(fault{from: p, permille: permille}, fault{to: p, permille: permille})
}

// Heal ends the faults of this port: blocks, losses, and its part in partitions. Down stays.
func (p *Port) Heal() {
	p.Host.lab.t.Helper()
	p.Host.lab.faults = slices.DeleteFunc(p.Host.lab.faults, func(f fault) bool { return f.from == p || f.to == p })
	p.Host.lab.applyFaults()
}

// DropOneWay drops what from sends to to, on every switch that both are attached to.
func (l *Lab) DropOneWay(from, to *Host) {
	l.t.Helper()
	l.addFaults(between(from, to)...)
}

// Partition separates each host of a from each host of b, on every switch.
func (l *Lab) Partition(a, b []*Host) {
	l.t.Helper()
	var faults []fault
	for _, x := range a {
		for _, y := range b {
			faults = append(faults, between(x, y)...)
			faults = append(faults, between(y, x)...)
		}
	}
	l.addFaults(faults...)
}

// Heal ends every fault in the lab. A port that is Down stays so.
func (l *Lab) Heal() {
	l.t.Helper()
	l.faults = nil
	l.applyFaults()
}

func between(from, to *Host) []fault {
	var faults []fault
	for _, x := range from.ports {
		for _, y := range to.ports {
			if x.Switch == y.Switch && x != y {
				faults = append(faults, fault{from: x, to: y, permille: 1000})
			}
		}
	}
	return faults
}

func (l *Lab) addFaults(faults ...fault) {
	l.t.Helper()
	for _, f := range faults {
		if f.permille < 0 || f.permille > 1000 {
			l.t.Fatalf("lab: a loss of %d in a thousand: want 0 to 1000", f.permille)
		}
	}
	l.faults = append(l.faults, faults...)
	l.applyFaults()
}

// applyFaults replaces the whole table in one transaction.
func (l *Lab) applyFaults() {
	l.t.Helper()
	rules := renderFaults(l.faults)
	err := l.fabric.do(func() error {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(rules)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if err != nil {
		l.t.Fatalf("lab: faults: nft: %v\n%s", err, rules)
	}
}

func renderFaults(faults []fault) string {
	var b strings.Builder
	// Made before it is deleted, so that deleting never fails.
	b.WriteString("table bridge lab {}\ndelete table bridge lab\n")
	b.WriteString("table bridge lab {\n\tchain faults {\n\t\ttype filter hook forward priority 0; policy accept;\n")
	for _, f := range faults {
		b.WriteString("\t\t")
		if f.from != nil {
			fmt.Fprintf(&b, "iifname %q ", f.from.name)
		}
		if f.to != nil {
			fmt.Fprintf(&b, "oifname %q ", f.to.name)
		}
		if f.permille < 1000 {
			fmt.Fprintf(&b, "numgen random mod 1000 < %d ", f.permille)
		}
		b.WriteString("drop\n")
	}
	b.WriteString("\t}\n}\n")
	return b.String()
}
