package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/fencing"
)

// armedFormat is the format of the state from which the log knows of armed watchdogs.
const armedFormat = 5

// tellArmed puts into the log with which timeout this daemon has armed the watchdog, and how long
// it may take to reset the machine by the specification that it follows. It
// is the log that has it, and not the hellos: whoever is asked to fence this node when it is
// silent may have been started since.
func (n *Node) tellArmed(st *state.State) {
	say := armed(st, n.self, uint64(n.cfg.Boot), n.selfReset.dog.ArmedWith())
	if say == nil {
		return
	}
	n.jobs.start("say that the watchdog is armed", n.wake, func(ctx context.Context) error {
		_, err := n.cons.Propose(ctx, state.Command{Armed: say})
		return err
	})
}

// armed is what the log does not know of a node's watchdog; nil: it knows it, or is not to be told.
func armed(st *state.State, node string, boot uint64, timeout time.Duration) *state.Armed {
	x := st.Nodes[node]
	if st.Format < armedFormat || st.Spec == nil || !x.Valid || x.Boot != boot {
		return nil
	}
	within := time.Duration(0)
	if timeout > 0 {
		within = resetWithin(st, timeout)
	}
	if x.Watchdog == timeout && x.ResetWithin == within {
		return nil
	}
	return &state.Armed{Node: node, Boot: boot, Timeout: timeout, Within: within}
}

// Resets says why it is not known that a node resets itself within a time of its last
// sign of life, when it has fallen silent; nil: it is known. For fencing.Config.
func (n *Node) Resets(node string, within time.Duration) error {
	return resets(n.State(), node, within)
}

func resets(st *state.State, node string, within time.Duration) error {
	x, known := st.Nodes[node]
	switch {
	case !known || st.Spec == nil:
		return fmt.Errorf("%s has never been admitted, so nothing says that it resets itself", node)
	case st.Format < armedFormat:
		return fmt.Errorf("whether the watchdog of %s is armed is not known before every node runs a version of keepbeat that says so: install it on all (`keepbeat status` has the versions)", node)
	case x.Watchdog == 0:
		return fmt.Errorf("%s has not said since its daemon started that its watchdog is armed, so nothing says that it resets itself: `keepbeat status` says there why not; "+
			"give it another device as the next level (`manual: yes` asks a person), or see to it that it is off and start it again", node)
	}
	// It may have fallen silent before the version in force came, or before it said what that makes of it.
	need := max(x.ResetWithin, resetWithin(st, x.Watchdog))
	if within < need {
		return fmt.Errorf("%s may take %v to reset itself (2 leases, the longest stop of a group of class fenced, %v for a loop that hangs, twice the %v of its watchdog), and the device waits %v: make its timeout %v or more",
			node, need, conf.LoopAge, x.Watchdog, within, need)
	}
	return nil
}

// resetWithin is how long a node may take, by the specification in force, to reset itself. Groups
// that were taken out of it and may still run are among those whose stop is waited for.
func resetWithin(st *state.State, watchdog time.Duration) time.Duration {
	longest := time.Duration(0)
	for name := range st.Groups {
		if c := st.Runs(name); state.NeedsFencing(c) {
			longest = max(longest, c.StopBudget())
		}
	}
	return conf.ResetWithin(st.Spec.Settings.Profile.Lease, longest, watchdog)
}

// doubt writes into the status of the watchdog devices that this node may operate which of the nodes
// that are admitted they would wait for in vain.
func doubt(st *state.State, devices []fencing.DeviceStatus) {
	spec := fencingOf(st)
	if spec == nil {
		return
	}
	for i, d := range devices {
		c := spec.Device(d.Name)
		if c == nil || c.Type != conf.FenceWatchdog || !d.Here {
			continue
		}
		var errs []error
		for _, node := range d.Targets {
			if st.Nodes[node].Valid {
				errs = append(errs, resets(st, node, c.Timeout))
			}
		}
		if err := errors.Join(errs...); err != nil {
			devices[i].Error = err.Error()
		}
	}
}
