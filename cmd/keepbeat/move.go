package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/api"
)

// answerTime is how long a command waits for the daemon besides --wait: the
// daemon gives the cluster ten seconds to commit.
const answerTime = 15 * time.Second

var whichWords = []string{"all", "local", "foreign", "failback"}

const whichHelp = `
all       every group (default)
local     the groups that prefer this node
foreign   the others; failback is another word for it`

func (a *app) standbyCommand() *cobra.Command {
	var o moveOptions
	c := &cobra.Command{
		Use:   "standby [all|local|foreign|failback] [--to NODE] [--wait[=60s]] [--force] [--dry-run]",
		Short: "Give up this node's groups",
		Long: `Gives groups of this node to the best other director, or to the one named.
It returns when the cluster has decided so; with --wait when they run there.
A group that no other director can have makes it refuse, with exit code 3; with
--force that group stops, and starts on the first director that can have it.
--dry-run shows what would happen, and what stopping keepbeat here would cost.
` + whichHelp,
		Args: atMost(1), ValidArgs: whichWords, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.move(cmd, args, o, (*api.Client).Standby, "nothing to move: this node owns no such group")
		},
	}
	c.Flags().StringVar(&o.to, "to", "", "the node that gets them")
	c.Flags().BoolVar(&o.force, "force", false, "stop groups that no other director can have")
	c.Flags().BoolVar(&o.dry, "dry-run", false, "only show what would happen")
	waitFlag(c, &o.wait)
	return c
}

func (a *app) takeoverCommand() *cobra.Command {
	var o moveOptions
	c := &cobra.Command{
		Use:   "takeover [all|local|foreign|failback] [--wait[=60s]]",
		Short: "Bring groups to this node",
		Long: `Brings groups of other nodes to this one. It returns when the cluster has
decided so; with --wait when they run here.
` + whichHelp,
		Args: atMost(1), ValidArgs: whichWords, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.move(cmd, args, o, (*api.Client).Takeover, "nothing to move: no other node owns such a group")
		},
	}
	waitFlag(c, &o.wait)
	return c
}

func waitFlag(c *cobra.Command, wait *time.Duration) {
	c.Flags().Var(span{wait}, "wait", "wait until the moves are done, so long at most")
	c.Flags().Lookup("wait").NoOptDefVal = "60s"
}

// moveOptions are the options of standby and, but for the last three, of takeover.
type moveOptions struct {
	wait       time.Duration
	to         string
	force, dry bool
}

type mover func(c *api.Client, ctx context.Context, m api.Move) (api.Moves, error)

func (a *app) move(cmd *cobra.Command, args []string, o moveOptions, do mover, nothing string) error {
	wait := o.wait
	m := api.Move{Which: "all", To: o.to, Wait: wait.Milliseconds(), Force: o.force, Dry: o.dry}
	if len(args) > 0 {
		m.Which = args[0]
	}
	if _, err := cluster.ParseWhich(m.Which); err != nil {
		if _, derr := time.ParseDuration(m.Which); derr == nil {
			err = fmt.Errorf("%w; a time to wait is written with an equals sign: --wait=%s", err, m.Which)
		}
		return usageError{err}
	}
	if wait < 0 || cmd.Flags().Changed("wait") && wait < time.Millisecond {
		return usageError{fmt.Errorf("--wait=%v: write a time such as 60s", wait)}
	}
	if cmd.Flags().Changed("to") && o.to == "" {
		return usageError{errors.New("--to: name a node")}
	}
	if o.to != "" && o.force {
		return usageError{errors.New("--force stops what nobody can have, --to names who shall have it: give one of them")}
	}
	if o.dry && wait > 0 {
		return usageError{errors.New("--dry-run: there is nothing to --wait for")}
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), answerTime+wait)
	defer cancel()
	r, err := do(a.client(), ctx, m)
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("the daemon does not answer; whether it was done shows `keepbeat status`")
	}
	if err != nil {
		return err
	}
	if len(r.Moved) == 0 {
		fmt.Fprintln(a.stdout, nothing)
	}
	for _, g := range r.Moved {
		fmt.Fprintln(a.stdout, moved(g, r.Settled, o.dry))
	}
	if !o.dry {
		return nil
	}
	if r.StopCost != "" {
		fmt.Fprintln(a.stdout, "if keepbeat were stopped here: "+r.StopCost)
	}
	_, err = fmt.Fprintln(a.stdout, "nothing was done (--dry-run)")
	if slices.ContainsFunc(r.Moved, func(g cluster.Moved) bool { return g.To == "" }) && !o.force {
		return silentError(exitForce)
	}
	return err
}

func moved(g cluster.Moved, settled, dry bool) string {
	switch {
	case g.To == "" && dry:
		return fmt.Sprintf("group %s would stop and run nowhere, and is refused without --force: %s", g.Group, g.Why)
	case g.To == "" && settled:
		return fmt.Sprintf("group %s: stopped, and runs nowhere: %s", g.Group, g.Why)
	case g.To == "":
		return fmt.Sprintf("group %s: stops, and runs nowhere: %s", g.Group, g.Why)
	case dry:
		return fmt.Sprintf("group %s would go to %s", g.Group, g.To)
	}
	from := ""
	if g.From != "" {
		from = g.From + " "
	}
	if settled {
		return fmt.Sprintf("group %s: %s-> %s: it runs there", g.Group, from, g.To)
	}
	return fmt.Sprintf("group %s: %s-> %s: decided, and under way", g.Group, from, g.To)
}

// oldStandby is hb_standby: it decides at once and does not wait.
func (a *app) oldStandby() *cobra.Command {
	return &cobra.Command{
		Use: "hb_standby [all|local|foreign|failback]", Short: "Give up this node's groups, as heartbeat's hb_standby",
		Args: atMost(1), ValidArgs: whichWords, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.move(cmd, args, moveOptions{}, (*api.Client).Standby, "nothing to move: this node owns no such group")
		},
	}
}

// oldTakeover is hb_takeover. Heartbeat's asked the peer, which lost the word
// "failback" and gave everything; this one means what it says.
func (a *app) oldTakeover() *cobra.Command {
	return &cobra.Command{
		Use: "hb_takeover [all|local|foreign|failback]", Short: "Bring groups to this node, as heartbeat's hb_takeover",
		Args: atMost(1), ValidArgs: whichWords, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.move(cmd, args, moveOptions{}, (*api.Client).Takeover, "nothing to move: no other node owns such a group")
		},
	}
}
