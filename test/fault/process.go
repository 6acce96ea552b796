package fault

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
)

// processKinds are what happens to daemons and machines.
func processKinds() []kind {
	return []kind{
		{name: "SIGSTOP for 0.5 to 3 leases", draw: func(a *arena, r *rand.Rand) plan {
			h := a.pick(r)
			p := plan{uses: []string{h.Name}}
			var lengths []string
			at := time.Duration(0)
			for range 2 {
				leases := one(r, 0.5, 0.9, 1, 1.1, 1.5, 3)
				length := time.Duration(leases * float64(a.lease))
				lengths = append(lengths, strconv.FormatFloat(leases, 'g', -1, 64))
				p.at(at, fmt.Sprintf("the daemon on %s is stopped for %v", h.Name, length), func() { a.signal(h, syscall.SIGSTOP) })
				p.at(at+length, "it goes on", func() { a.signal(h, syscall.SIGCONT) })
				at += length + between(r, a.lease/10, a.lease)
			}
			p.what = fmt.Sprintf("the daemon on %s stopped for %s leases", h.Name, strings.Join(lengths, " and "))
			return p
		}},
		{name: "SIGKILL, systemd restarts", draw: func(a *arena, r *rand.Rand) plan {
			h := a.pick(r)
			p := plan{what: "the daemon on " + h.Name + " killed", uses: []string{h.Name}}
			p.at(0, p.what, func() { a.kill(h) })
			return p
		}},
		{name: "SIGKILL, started at once", draw: func(a *arena, r *rand.Rand) plan {
			h := a.pick(r)
			p := plan{what: "the daemon on " + h.Name + " killed and started at once, with nothing released", uses: []string{h.Name}}
			p.at(0, p.what, func() { a.kill(h); a.start(h) })
			return p
		}},
		{name: "SIGKILL, started later", draw: func(a *arena, r *rand.Rand) plan {
			h, later := a.pick(r), a.long(r)
			p := plan{what: fmt.Sprintf("the daemon on %s killed, and started with nothing released after %v", h.Name, later.Round(time.Millisecond)), uses: []string{h.Name}}
			p.at(0, "the daemon on "+h.Name+" is killed", func() { a.kept[h] = true; a.kill(h) })
			p.at(later, "it is started", func() { a.kept[h] = false; a.start(h) })
			return p
		}},
		{name: "SIGKILL, released later", draw: func(a *arena, r *rand.Rand) plan {
			h, later := a.pick(r), a.long(r)
			p := plan{what: fmt.Sprintf("the daemon on %s killed, keepbeat release after %v", h.Name, later.Round(time.Millisecond)), uses: []string{h.Name}}
			p.at(0, "the daemon on "+h.Name+" is killed", func() { a.kept[h] = true; a.kill(h) })
			p.at(later, "keepbeat release", func() {
				if out, err := h.Keepbeat("release"); err != nil {
					a.note("keepbeat release: %v: %s", err, strings.TrimSpace(out))
				}
				a.kept[h] = false
			})
			return p
		}},
		{name: "a machine dies", draw: func(a *arena, r *rand.Rand) plan {
			h, later := a.pick(r), a.long(r)
			p := plan{what: fmt.Sprintf("%s loses power for %v", h.Name, later.Round(time.Millisecond)), uses: []string{h.Name}}
			a.powerLoss(&p, later, h)
			return p
		}},
		{name: "every daemon killed at once", draw: func(a *arena, r *rand.Rand) plan {
			p := plan{what: "every daemon killed at once", uses: a.names()}
			p.at(0, p.what, func() {
				for _, h := range a.nodes {
					a.signal(h, syscall.SIGKILL)
				}
			})
			return p
		}},
		{name: "every machine dies at once", draw: func(a *arena, r *rand.Rand) plan {
			later := a.long(r)
			p := plan{what: fmt.Sprintf("every machine without power for %v", later.Round(time.Millisecond)), uses: a.names()}
			a.powerLoss(&p, later, a.nodes...)
			return p
		}},
		{name: "a clean stop and start", draw: func(a *arena, r *rand.Rand) plan {
			h, later := a.pick(r), a.long(r)
			p := plan{what: fmt.Sprintf("the daemon on %s terminated, and started after %v", h.Name, later.Round(time.Millisecond)), uses: []string{h.Name}}
			p.at(0, "SIGTERM to the daemon on "+h.Name, func() { a.kept[h] = true; a.signal(h, syscall.SIGTERM) })
			p.at(later, "it is started when it has ended", func() { a.kept[h] = false })
			return p
		}},
		{name: "groups given away and taken", draw: func(a *arena, r *rand.Rand) plan {
			p := plan{what: "standby and takeover, one after the other"}
			for at := time.Duration(0); at < 2*time.Second; at += between(r, 50*time.Millisecond, 500*time.Millisecond) {
				h, command := one(r, a.Director1, a.Director2), one(r, "standby", "takeover")
				p.at(at, command+" on "+h.Name, func() { a.command(h, command) })
			}
			return p
		}},
		{name: "a planned restart", draw: func(a *arena, r *rand.Rand) plan {
			p := plan{what: "systemctl reload on every node, one after the other", uses: a.names()}
			for i, n := range r.Perm(len(a.nodes)) {
				h := a.nodes[n]
				p.at(time.Duration(i)*between(r, 100*time.Millisecond, time.Second), "SIGHUP to the daemon on "+h.Name, func() { a.signal(h, syscall.SIGHUP) })
			}
			return p
		}},
		{name: "64 processes on the cores", draw: func(a *arena, r *rand.Rand) plan {
			last := between(r, time.Second, 3*time.Second)
			p := plan{what: fmt.Sprintf("64 processes that only compute, for %v", last.Round(time.Millisecond))}
			var hogs *lab.Process
			p.at(0, p.what, func() { hogs = a.help(a.attacker, "hogs", "64", last.String()) })
			p.at(last, "they end", func() { a.ends(hogs) })
			return p
		}},
	}
}

func (a *arena) names() []string {
	var names []string
	for _, h := range a.nodes {
		names = append(names, h.Name)
	}
	return names
}

// powerLoss takes the power of machines for a while.
func (a *arena) powerLoss(p *plan, later time.Duration, hosts ...*lab.Host) {
	p.at(0, p.what, func() {
		for _, h := range hosts {
			a.kept[h] = true
			if !h.Dead() {
				h.Die()
			}
		}
	})
	p.at(later, "power is back", func() {
		for _, h := range hosts {
			a.switchOn(h)
			a.kept[h] = false
		}
	})
}

// command gives an operator's command, whatever comes of it.
func (a *arena) command(h *lab.Host, args ...string) {
	if !a.runs(h) {
		return
	}
	if out, err := h.TryFor(5*time.Second, append([]string{a.Lab.Keepbeat()}, args...)...); err != nil {
		a.note("keepbeat %s on %s: %v: %s", strings.Join(args, " "), h.Name, err, strings.TrimSpace(out))
	}
}
