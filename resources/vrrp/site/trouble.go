package site

import (
	"fmt"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/vrrp"
)

// recent is how long an advertisement that was refused is a problem: others send
// more often, and what has been put right is forgotten soon.
const recent = 10 * time.Second

// poolTroubles are what an operator has to know of pools; failed is why one does not run that should.
func poolTroubles(pools []resources.GroupStatus, failed map[string]error) (lines []string) {
	for name, err := range failed {
		lines = append(lines, fmt.Sprintf("pool %s does not run: %v", name, err))
	}
	for _, p := range pools {
		if p.Phase != "stuck" {
			continue
		}
		for _, r := range p.Resources {
			if r.Error != "" {
				lines = append(lines, fmt.Sprintf("pool %s does not stop, and its services are still in the kernel: %s", p.Name, r.Error))
			}
		}
	}
	return lines
}

// troubles are what an operator has to know of the instances; interval is that of each, by name.
func troubles(all []vrrp.InstanceStatus, interval map[string]time.Duration, now time.Time) (lines []string) {
	for _, i := range all {
		if i.Lacks != "" {
			lines = append(lines, fmt.Sprintf("vrrp_instance %s is in state FAULT: %s", i.Name, i.Lacks))
		}
		failure := strings.TrimPrefix(i.Failure, "vrrp "+i.Name+": ")
		switch {
		case failure == "":
		case i.State == vrrp.Initialize: // a reload has taken it out
			lines = append(lines, fmt.Sprintf("vrrp_instance %s has been stopped, and what it had is still in the kernel, while another machine may have it: %s", i.Name, failure))
		default:
			lines = append(lines, fmt.Sprintf("vrrp_instance %s: %s", i.Name, failure))
		}
		for _, n := range i.Notes {
			if n.From == i.Heard && i.HeardAt.After(n.At) {
				continue // it has been put right
			}
			// Neither of the two hears the other: both are master, or will be.
			if n.Refused && now.Sub(n.At) < max(recent, 3*interval[i.Name]) {
				lines = append(lines, fmt.Sprintf("vrrp_instance %s refuses the advertisements of %s for their %s: neither will yield to the other; make the two files alike", i.Name, n.From, n.Why))
			}
		}
	}
	return lines
}
