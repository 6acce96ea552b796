package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/api"
)

func (a *app) nodeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "node",
		Short: "Change the nodes of the cluster while it runs",
		Args:  noWords,
		RunE:  func(*cobra.Command, []string) error { return usageError{errors.New("add or remove is missing")} },
	}
	c.AddCommand(a.nodeAddCommand(), a.nodeRemoveCommand())
	return c
}

func (a *app) nodeAddCommand() *cobra.Command {
	var n api.NodeChange
	role := ""
	c := &cobra.Command{
		Use:   "add NAME [--role director|witness] [--dry-run]",
		Short: "Make a node part of the cluster",
		Long: `Adds a node; every node's ha.yaml is changed in nodes: and quorum: and nothing
else. Then start keepbeat on the new node, with an ha.yaml that has the same
nodes and the same authkeys: it follows first and votes when it knows what the
others know. The rule of a pair holds until then.`,
		Args: exactly(1), DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch role {
			case "witness":
				n.Witness = true
			case "director":
			default:
				return usageError{fmt.Errorf("--role %s: it is director or witness", role)}
			}
			n.Node = args[0]
			return a.changeNodes(cmd.Context(), n, (*api.Client).AddNode, "now write an ha.yaml with these nodes there, and start keepbeat")
		},
	}
	c.Flags().StringVar(&role, "role", "director", "director, or witness: it votes and owns nothing")
	c.Flags().BoolVar(&n.Dry, "dry-run", false, "only say whether it could be done")
	return c
}

func (a *app) nodeRemoveCommand() *cobra.Command {
	var n api.NodeChange
	c := &cobra.Command{
		Use:   "remove NAME [--quorum fencing|ping|unsafe] [--force] [--dry-run]",
		Short: "Take a node out of the cluster",
		Long: `Takes a node out; every other node's ha.yaml is changed in nodes: and quorum:
and nothing else. The node must own nothing (keepbeat standby there first); its
daemon, if it runs, ends. When two nodes are left, --quorum says what decides
between them.
It is refused, with exit code 3, when what is left would have no quorum;
--force does it all the same.`,
		Args: exactly(1), DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			n.Node = args[0]
			return a.changeNodes(cmd.Context(), n, (*api.Client).RemoveNode, "its daemon ends when it votes no longer; then, on "+args[0]+": systemctl disable keepbeat")
		},
	}
	c.Flags().StringVar(&n.Quorum, "quorum", "", "what decides when two nodes are left")
	c.Flags().BoolVar(&n.Force, "force", false, "also if the quorum would be lost")
	c.Flags().BoolVar(&n.Dry, "dry-run", false, "only say whether it could be done")
	return c
}

type nodeChanger func(c *api.Client, ctx context.Context, n api.NodeChange) (cluster.NodesChanged, error)

func (a *app) changeNodes(ctx context.Context, n api.NodeChange, do nodeChanger, next string) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	r, err := do(a.client(), ctx, n)
	if err != nil {
		return err
	}
	if n.Dry {
		fmt.Fprintf(a.stdout, "it could be done; nodes: %s, quorum: %s (now: %s)\n", r.Nodes, r.Quorum, r.Before)
		return nil
	}
	fmt.Fprintf(a.stdout, "nodes: %s, quorum: %s\n%s\n", r.Nodes, r.Quorum, next)
	return nil
}
