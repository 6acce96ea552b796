package sim

import (
	"slices"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// change edits the files of all nodes; n says how. Every change is small, as
// an administrator's are.
func (w *world) change(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	spec := *w.spec
	spec.Groups = slices.Clone(spec.Groups)
	i := n / 4 % w.cfg.Groups
	name, what := w.group(i).Name, "vip "+w.address(i).String()
	at := slices.IndexFunc(spec.Groups, func(g conf.Group) bool {
		return slices.ContainsFunc(g.Resources, func(r conf.Resource) bool { return r.Name == what })
	})
	switch {
	case at < 0: // it was taken out: put it back
		spec.Groups = append(spec.Groups, w.group(i))
	case n%4 == 0 && len(spec.Groups) > 1:
		spec.Groups = slices.Delete(spec.Groups, at, at+1)
	case n%4 == 1: // another interval of its monitor
		rs := slices.Clone(spec.Groups[at].Resources)
		rs[0].MonitorInterval += 100 * time.Millisecond
		spec.Groups[at].Resources = rs
	case n%4 == 2 && n/16%2 == 1: // another name, and another node is preferred
		if spec.Groups[at].Name == name {
			name = "new" + name
		}
		spec.Groups[at].Name, spec.Groups[at].Prefer = name, []string{w.machines[n%w.cfg.Directors].name}
	case n%4 == 2: // another node is preferred
		spec.Groups[at].Prefer = []string{w.machines[n%w.cfg.Directors].name}
	default: // another profile of leases
		ps := []conf.Profile{conf.ProfileFast, conf.ProfileDefault, conf.ProfileCalm}
		spec.Settings.Profile = ps[n/16%len(ps)]
		w.longest = max(w.longest, spec.Settings.Profile.Lease)
	}
	w.spec = &spec
	w.noteLocked("    the files change: %d groups, profile %s", len(spec.Groups), spec.Settings.Profile.Name)
}
