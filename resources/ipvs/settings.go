package ipvs

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// Node is what a kernel's IPVS has once, beside its table. Its methods may be
// called by several goroutines and obey the context.
type Node interface {
	// Setting returns the value of a sysctl below net.ipv4.vs, or of timeout_tcp, timeout_tcpfin and timeout_udp in seconds.
	Setting(ctx context.Context, name string) (string, error)
	Set(ctx context.Context, name, value string) error
	// Daemons returns the sync daemons that run, the master first.
	Daemons(ctx context.Context) ([]Daemon, error)
	StartDaemon(ctx context.Context, d Daemon) error
	StopDaemon(ctx context.Context, s SyncState) error
	// Interface returns the number of an interface; another one with the same name has another.
	Interface(name string) (int, error)
}

// change is a setting that was changed: what it was, and what we made of it.
type change struct {
	Found string `json:"found"`
	Set   string `json:"set"`
}

// refreshPeriod is how often a connection that carries packets is told to the
// other directors again: without it the kernel tells a TCP connection every
// 50 packets, and a director that comes later never hears of a quiet one.
const refreshPeriod = 10 * time.Second

// wantedSettings are the settings that the kernel ought to have while a pool is started.
//
// templates says that a service is persistent. A client of it would be sent to
// a server that is drained or, with quiescent, down, by its template, as long as
// it keeps coming, so expire_quiescent_template is on unless it is configured.
func wantedSettings(c *conf.IPVS, templates bool) map[string]string {
	w := map[string]string{}
	if templates {
		w[expireQuiescentTemplate] = "1"
	}
	if c == nil {
		return w
	}
	flag := func(name string, v *bool) {
		if v != nil {
			w[name] = map[bool]string{false: "0", true: "1"}[*v]
		}
	}
	flag(expireNodestConn, c.ExpireNodestConn)
	flag(expireQuiescentTemplate, c.ExpireQuiescentTemplate)
	flag(sloppyTCP, c.SloppyTCP)
	if c.ConnReuseMode != nil {
		w[connReuseMode] = strconv.Itoa(*c.ConnReuseMode)
	}
	for name, d := range map[string]time.Duration{
		"timeout_tcp": c.Timeouts.TCP, "timeout_tcpfin": c.Timeouts.TCPFin, "timeout_udp": c.Timeouts.UDP,
	} {
		if d > 0 {
			w[name] = seconds(d)
		}
	}
	if c.Sync != nil {
		w[syncRefreshPeriod] = seconds(refreshPeriod)
	}
	return w
}

func seconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }

// wantedDaemons: a node where a pool is started sends, one where a pool is not
// receives, one with both does both.
func wantedDaemons(c *conf.IPVS, started, idle bool) []Daemon {
	if c == nil || c.Sync == nil {
		return nil
	}
	var all []Daemon
	if started {
		all = append(all, daemonOf(Master, *c.Sync))
	}
	if idle {
		all = append(all, daemonOf(Backup, *c.Sync))
	}
	return all
}

// daemonPlan is what has to be done about the sync daemons.
type daemonPlan struct {
	Stop  []SyncState
	Start []Daemon
	Alien []Daemon // somebody else's, in the way
}

// planDaemons: actual is what runs, ours what this node has started by the
// journal. One that runs as it is wanted is taken for ours. One that is deaf is
// started anew.
func planDaemons(wanted, actual, ours []Daemon, deaf bool) daemonPlan {
	var p daemonPlan
	for _, s := range []SyncState{Master, Backup} {
		is := func(d Daemon) bool { return d.State == s }
		w, a, o := slices.IndexFunc(wanted, is), slices.IndexFunc(actual, is), slices.IndexFunc(ours, is)
		mine := a >= 0 && o >= 0 && ours[o].same(actual[a])
		switch {
		case w >= 0 && a < 0:
			p.Start = append(p.Start, wanted[w])
		case w >= 0 && wanted[w].same(actual[a]) && deaf:
			p.Stop, p.Start = append(p.Stop, s), append(p.Start, wanted[w])
		case w >= 0 && wanted[w].same(actual[a]) && (!mine || ours[o].MaxLen == wanted[w].MaxLen):
		case w >= 0 && mine:
			p.Stop, p.Start = append(p.Stop, s), append(p.Start, wanted[w])
		case w >= 0:
			p.Alien = append(p.Alien, actual[a])
		case mine:
			p.Stop = append(p.Stop, s)
		}
	}
	return p
}

// sharedRecord is what the journal keeps of the settings and sync daemons.
type sharedRecord struct {
	Settings map[string]change `json:"settings,omitempty"`
	Daemons  []Daemon          `json:"daemons,omitempty"`
}

// merge adds what an earlier daemon noted. If we found what it had set, what
// it had found is older and counts.
func merge(into, older map[string]change) {
	for name, o := range older {
		now, have := into[name]
		switch {
		case !have:
			into[name] = o
		case now.Found == o.Set:
			into[name] = change{o.Found, now.Set}
		}
	}
}

func sortedNames[V any](maps_ ...map[string]V) []string {
	all := map[string]bool{}
	for _, m := range maps_ {
		for name := range m {
			all[name] = true
		}
	}
	return slices.SortedFunc(maps.Keys(all), cmp.Compare[string])
}
