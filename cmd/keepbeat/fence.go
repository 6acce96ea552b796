package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepbeat/keepbeat/cluster/api"
	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/cluster/state"
)

func (a *app) fenceCommand() *cobra.Command {
	var f api.Fence
	var wait time.Duration
	c := &cobra.Command{
		Use:   "fence NODE [--dry-run] [--force] [--wait[=5m]]",
		Short: "Make certain from outside that a node does nothing any more",
		Long: `Has a node fenced by the devices of fencing: in haresources.yaml; its groups
start elsewhere. With --dry-run it only shows what would be done. It returns
when the order is recorded; with --wait when the node is fenced.
It is refused, with exit code 3, when the cluster would lose its quorum with
the node, or a group of it would run nowhere; --force does it all the same.`,
		Args: exactly(1), DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.Node, f.Wait = args[0], wait.Milliseconds()
			return a.fence(cmd.Context(), f)
		},
	}
	c.Flags().BoolVar(&f.Dry, "dry-run", false, "only show what would be done")
	c.Flags().BoolVar(&f.Force, "force", false, "also if the quorum would be lost, or a group run nowhere")
	c.Flags().Var(span{&wait}, "wait", "wait until the node is fenced, so long at most")
	c.Flags().Lookup("wait").NoOptDefVal = "5m"
	c.AddCommand(a.fenceConfirmCommand(), a.fenceTestCommand(), a.fenceHistoryCommand())
	return c
}

func (a *app) fence(ctx context.Context, f api.Fence) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime+time.Duration(f.Wait)*time.Millisecond)
	defer cancel()
	r, err := a.client().Fence(ctx, f)
	switch {
	case err != nil:
		return err
	case f.Dry:
		fmt.Fprintf(a.stdout, "%s would be fenced from %s:\n", r.Ordered.Node, r.Ordered.Operator)
		for _, l := range r.Ordered.Plan {
			fmt.Fprintln(a.stdout, "  "+l)
		}
	case r.Record != nil:
		fmt.Fprintf(a.stdout, "%s was fenced by %s: %s\n", r.Record.Node, r.Record.Operator, r.Record.Why)
	default:
		fmt.Fprintf(a.stdout, "%s is to be fenced by %s; `keepbeat fence history` shows what becomes of it\n", r.Ordered.Node, r.Ordered.Operator)
	}
	return nil
}

func (a *app) fenceConfirmCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "confirm NODE",
		Short: "Say that a node is off: you have seen to it by hand",
		Long: `For a device of kind manual that waits. Say it only when the node is off, its
power and not its network: its groups start elsewhere at once, and a node of a
pair that still runs takes itself for the one that goes on. It is recorded who
said it.`,
		Args: exactly(1), DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), answerTime)
			defer cancel()
			if err := a.client().FenceConfirm(ctx, args[0]); err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "%s counts as fenced\n", args[0])
			return nil
		},
	}
}

func (a *app) fenceTestCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "test [DEVICE]",
		Short: "Look whether the fencing devices answer; nothing is fenced",
		Long:  "Asks the devices that this node may operate. Exit code 1 when one does not answer.",
		Args:  atMost(1), DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := a.client().FenceTest(cmd.Context(), strings.Join(args, ""))
			if err != nil {
				return err
			}
			good := true
			t := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
			for _, x := range d.Devices {
				said := "answers"
				if x.Error != "" {
					said, good = x.Error, false
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", x.Name, x.Kind, strings.Join(x.Targets, " "), said)
			}
			if err := t.Flush(); err != nil || good {
				return err
			}
			return silentError(exitRefused)
		},
	}
}

func (a *app) fenceHistoryCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "history [NODE]",
		Short: "Show what was fenced, by whom, with what",
		Args:  atMost(1), DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), answerTime)
			defer cancel()
			h, err := a.client().FenceHistory(ctx, strings.Join(args, ""))
			if err != nil {
				return err
			}
			if asJSON {
				b, err := marshal(h)
				if err == nil {
					_, err = a.stdout.Write(b)
				}
				return err
			}
			showFences(a.stdout, h.Fences)
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func showFences(w io.Writer, fences []state.FenceRecord) {
	if len(fences) == 0 {
		fmt.Fprintln(w, "nothing has been fenced")
	}
	for _, f := range fences {
		done := "fenced"
		if !f.Done {
			done = "NOT fenced"
		}
		fmt.Fprintf(w, "%s  %s %s (%v) by %s: %s\n", f.At.Local().Format(time.DateTime), f.Node, done, f.Action, f.Operator, f.Why)
		for _, x := range f.Attempts {
			said := "done"
			if x.Error != "" {
				said = x.Error
			}
			fmt.Fprintf(w, "    level %d, %s, %v: %s\n", x.Level, x.Device, x.Took.Round(time.Millisecond), said)
		}
	}
}

func (a *app) quorumCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "quorum",
		Short: "Decide what the nodes of a pair cannot decide alone",
		Args:  noWords,
		RunE:  func(*cobra.Command, []string) error { return usageError{errors.New("confirm is missing")} },
	}
	c.AddCommand(a.quorumConfirmCommand())
	return c
}

func (a *app) quorumConfirmCommand() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "confirm [--force]",
		Short: "Let this node of a pair go on without the other one",
		Long: `For a node that waits for the other after a start (wait_for_all), and to choose
between two that have each gone on alone. It asks twice, and who said it is
recorded. With quorum: fencing the other node is fenced first all the same, with
quorum: ping the tie-breaker is asked.
What the other one has decided and this one does not know is lost: it comes
back as an empty node. --force is for a node that does not vote, which is the
one that was stopped first: then the other, which is switched off where there
is fencing, must not be started before it hears this one.`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.quorumConfirm(cmd.Context(), cmd.InOrStdin(), force)
		},
	}
	c.Flags().BoolVar(&force, "force", false, "also on a node that does not vote")
	return c
}

func (a *app) quorumConfirm(ctx context.Context, stdin io.Reader, force bool) error {
	sctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	l, err := a.client().Local(sctx)
	switch {
	case err != nil:
		return err
	case l.Pair == nil:
		return errors.New("there is nothing to confirm: this is no pair, a majority of voters decides")
	}
	// Nobody is to think hard about what would be refused.
	if err := a.client().QuorumConfirm(sctx, api.Confirm{Force: force, Dry: true}); err != nil {
		return err
	}
	in := bufio.NewScanner(stdin)
	ask := func(question, want string) error {
		fmt.Fprint(a.stdout, question)
		if !in.Scan() || strings.TrimSpace(in.Text()) != want {
			fmt.Fprintln(a.stdout)
			return errors.New("not confirmed: nothing was changed")
		}
		return nil
	}
	phase := "is " + l.Pair.Phase
	if l.Pair.Phase == pair.Rivals.String() {
		phase = "waits"
	}
	fmt.Fprintf(a.stdout, "%s %s: %s\n%s goes on without %s, and %s loses what it has decided alone.\n", l.Node, phase, l.Pair.Why, l.Node, l.Pair.Peer, l.Pair.Peer)
	switch l.Pair.Rule {
	case "fencing":
		fmt.Fprintf(a.stdout, "%s is fenced first, unless it says by itself that it waits.\n", l.Pair.Peer)
	case "ping":
		fmt.Fprintf(a.stdout, "Addresses that answer elsewhere are not taken. Is %s surely off, or cut off from the clients?\n", l.Pair.Peer)
	default:
		fmt.Fprintf(a.stdout, "Nothing checks that %s is off: if it runs, both own the same addresses.\n", l.Pair.Peer)
	}
	if err := ask(fmt.Sprintf("Type the name of the node that is given up (%s): ", l.Pair.Peer), l.Pair.Peer); err != nil {
		return err
	}
	if err := ask("Are you sure? Type yes: ", "yes"); err != nil {
		return err
	}
	cctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if err := a.client().QuorumConfirm(cctx, api.Confirm{Force: force}); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%s goes on as soon as it may; `keepbeat status` shows it\n", l.Node)
	return nil
}
