package conf

import (
	"cmp"
	"slices"
	"time"
)

// rawLife says what a virtual service needs to be alive, and who is told.
type rawLife struct {
	quorum, hysteresis                         opt[int]
	quorumUp, quorumDown, notifyUp, notifyDown opt[string]
	alpha, omega                               opt[bool]
	slowStart                                  opt[time.Duration]
	monitorfile, servicename, comment          opt[string]
}

// maxQuorum is keepalived's.
const maxQuorum = 1_000_000

func (l *rawLife) fields(r *reader) []field {
	return append([]field{
		{"quorum", "Sum of the weights of real servers that are up which the service needs, 1 to 1000000; without it the fallback stands in. Default 1.", into(&l.quorum, r.integer(1, maxQuorum))},
		{"hysteresis", "Quorum is lost below quorum - hysteresis, or without any server, and is there again from quorum + hysteresis. 0 to quorum - 1. Default 0.", into(&l.hysteresis, r.integer(0, maxQuorum))},
		{"quorum_up", "Program, an absolute path, that is run when quorum is gained. Default: none.", into(&l.quorumUp, r.program("quorum_up"))},
		{"quorum_down", "Program, an absolute path, that is run when quorum is lost. Default: none.", into(&l.quorumDown, r.program("quorum_down"))},
		{"alpha", "yes: a real server is down until a check of it has succeeded; no: one that was in the kernel's table when the pool started stays until a check has failed. Default no.", into(&l.alpha, r.boolean)},
		{"omega", "Whether quorum_down and notify_down are run, too, when the pool stops. Default no.", into(&l.omega, r.boolean)},
		{"slow_start", "Time in which the weight of a real server that has come up grows from 1 to what it is to be, 1s to 24h. Default: at once.", into(&l.slowStart, r.duration(time.Second, 24*time.Hour))},
		{"monitorfile", "File, an absolute path on each director, that gets a line for each change of a real server. Default: none.", into(&l.monitorfile, r.path)},
		{"servicename", "Name of the service in status, logs and mails. Default: its address.", into(&l.servicename, r.text)},
		{"comment", "Shown in status.", into(&l.comment, r.text)},
	}, notifyFields(r, &l.notifyUp, &l.notifyDown)...)
}

func notifyFields(r *reader, up, down *opt[string]) []field {
	return []field{
		{"notify_up", "Program, an absolute path, that is run when a real server comes up. Default: none.", into(up, r.program("notify_up"))},
		{"notify_down", "Program, an absolute path, that is run when a real server goes down. Default: none.", into(down, r.program("notify_down"))},
	}
}

// life takes these values over, before the real servers are read.
func (v *Virtual) life(l *rawLife) {
	v.Quorum, v.Hysteresis = l.quorum.or(0), l.hysteresis.or(0)
	v.QuorumUp, v.QuorumDown = l.quorumUp.or(""), l.quorumDown.or("")
	v.Alpha, v.Omega = l.alpha.or(false), l.omega.or(false)
	v.SlowStart = l.slowStart.or(0)
	v.MonitorFile, v.Name, v.Comment = l.monitorfile.or(""), l.servicename.or(""), l.comment.or("")
}

// checkLife refuses what could never come about with the servers that v has.
func (p *poolReader) checkLife(l *rawLife, v *Virtual) {
	needed := max(v.Quorum, 1)
	if l.hysteresis.ok && v.Hysteresis >= needed && (l.quorum.at == nil || l.quorum.ok) {
		p.errorf(l.hysteresis.at, "hysteresis %d is not less than quorum, %d: quorum would never be lost; write a larger quorum, or a smaller hysteresis", v.Hysteresis, needed)
		return
	}
	sum, varies := 0, len(v.Reals) == 0
	notified := v.QuorumDown != ""
	for _, r := range v.Reals {
		sum += r.Weight
		notified = notified || r.NotifyDown != ""
		varies = varies || r.Check.Dynamic || slices.ContainsFunc(r.Also, func(c Check) bool { return c.Dynamic })
	}
	if at := cmp.Or(l.quorum.at, l.hysteresis.at); at != nil && !varies && needed+v.Hysteresis > sum {
		p.errorf(at, "quorum %d with hysteresis %d of virtual %s is never reached: the weights of its real servers add up to %d; write less", needed, v.Hysteresis, v, sum)
	}
	if v.Omega && !notified {
		p.errorf(l.omega.at, "omega runs quorum_down and notify_down when the pool stops, and there is none of them; add one, or take omega out")
	}
}
