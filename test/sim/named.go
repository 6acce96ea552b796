package sim

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/keepbeat/keepbeat/cluster/lease"
)

// logged is what a daemon's log was like when it was looked at: where it ended,
// and which configuration of voters was its newest, committed or not.
type logged struct {
	last, term uint64
	voters     uint64
	at         time.Time // zero: before the daemon began
}

// logged looks at the log. What was seen before need not be read again.
func (d *disk) logged(before logged) logged {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := logged{last: d.high, term: d.log[d.high].Term, at: time.Now()}
	from := d.low
	if e, there := d.log[before.last]; there && e.Term == before.term {
		now.voters, from = before.voters, before.last+1
	} else if len(d.snapshots) > 0 {
		m := d.snapshots[0].meta
		now.voters, from = m.ConfigurationIndex, max(d.low, m.Index+1)
	}
	for i := now.last; i >= max(from, 1); i-- {
		if e, there := d.log[i]; there && e.Type == raft.LogConfiguration {
			now.voters = i
			break
		}
	}
	return now
}

// judgeNamed judges a promise by rule 4 of docs/safety.md: it names what has stood
// in this voter's log since an earlier moment, if it stands there still. At the same
// moment raft has not answered for it yet.
func (r *recording) judgeNamed(c lease.Call) {
	named, promised := c.Names()
	if !promised {
		return
	}
	r.mu.Lock()
	before := r.log
	r.log = r.disk.logged(before)
	now := r.log
	r.mu.Unlock()
	if named < before.voters && before.voters <= now.voters && before.at.Before(now.at) {
		r.w.violate("%s promises to %s and names the voters of %d, while its log has those of %d", r.Node, c.Promise(), named, before.voters)
	}
}
