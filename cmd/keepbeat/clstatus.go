package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/api"
)

// clStatus is heartbeat's cl_status: what it prints and how it exits is what
// scripts know (0 yes or up, 1 no or down), but for usage, which is 2.
func (a *app) clStatus() *cobra.Command {
	var human bool
	root := &cobra.Command{
		Use: "cl_status", Short: "Ask for the cluster's state, as heartbeat's cl_status", Args: noWords,
		RunE: func(*cobra.Command, []string) error { return usageError{errors.New("a command is missing")} },
	}
	root.PersistentFlags().BoolVarP(&human, "human", "m", false, "say it in words")
	add := func(use, short string, n int, f func(s cluster.Status, args []string, human bool) error) *cobra.Command {
		c := &cobra.Command{Use: use, Short: short, Args: exactly(n), RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), answerTime)
			defer cancel()
			s, err := a.client().Status(ctx)
			if err != nil {
				return err
			}
			return f(s, args, human)
		}}
		root.AddCommand(c)
		return c
	}
	root.AddCommand(&cobra.Command{
		Use: "hbstatus", Short: "Tell whether keepbeat runs on this machine", Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.hbstatus(cmd.Context()) },
	})
	var ping, normal bool
	list := add("listnodes", "List the nodes", 0, func(s cluster.Status, _ []string, human bool) error {
		if human {
			fmt.Fprintln(a.stdout, "The nodes are as follow:")
		}
		for _, n := range s.Nodes {
			if !ping || normal { // there are no ping nodes
				fmt.Fprintln(a.stdout, n.Name)
			}
		}
		return nil
	})
	list.Flags().BoolVarP(&ping, "ping", "p", false, "only ping nodes (there are none)")
	list.Flags().BoolVarP(&normal, "normal", "n", false, "only nodes that are not ping nodes")
	add("nodestatus NODE", "Print active, up or dead", 1, a.nodestatus)
	add("listhblinks NODE", "List the links to a node", 1, a.listhblinks)
	add("hblinkstatus NODE LINK", "Print up or dead", 2, a.hblinkstatus)
	add("rscstatus", "Print which groups this node holds: all, local, foreign, none, or transition", 0, func(s cluster.Status, _ []string, human bool) error {
		return a.words(human, holds(s), "This node is holding %s resources.\n")
	})
	return root
}

func (a *app) words(human bool, answer, sentence string) error {
	var err error
	if human {
		_, err = fmt.Fprintf(a.stdout, sentence, answer)
	} else {
		_, err = fmt.Fprintln(a.stdout, answer)
	}
	return err
}

func (a *app) hbstatus(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	_, err := a.client().Local(ctx)
	var refused *api.RefusedError
	switch {
	case err == nil, errors.As(err, &refused):
		fmt.Fprintln(a.stdout, "Heartbeat is running on this machine.")
		return nil
	case errors.Is(err, api.ErrNoDaemon):
		fmt.Fprintln(a.stdout, "Heartbeat is stopped on this machine.")
		return silentError(exitRefused)
	}
	return err
}

func findNode(s cluster.Status, name string) (*cluster.NodeStatus, error) {
	var names []string
	for i := range s.Nodes {
		if strings.EqualFold(s.Nodes[i].Name, name) {
			return &s.Nodes[i], nil
		}
		names = append(names, s.Nodes[i].Name)
	}
	return nil, fmt.Errorf("no node %q; there are %s", name, strings.Join(names, ", "))
}

func (a *app) nodestatus(s cluster.Status, args []string, human bool) error {
	n, err := findNode(s, args[0])
	if err != nil {
		return err
	}
	// heartbeat: dead, up while it starts, active when it may hold resources.
	status := "dead"
	switch n.State {
	case "up", "late":
		status = "active"
	case "joining":
		status = "up"
	}
	if err := a.words(human, status, "The cluster node "+n.Name+" is %s\n"); err != nil || status != "dead" {
		return err
	}
	return silentError(exitRefused)
}

func (a *app) listhblinks(s cluster.Status, args []string, human bool) error {
	n, err := findNode(s, args[0])
	if err != nil {
		return err
	}
	if human {
		fmt.Fprintln(a.stdout, "\tthis node has the following heartbeat links:")
	}
	for _, l := range n.Links {
		fmt.Fprintf(a.stdout, "\t%s\n", linkName(l.Link))
	}
	return nil
}

// linkName is how heartbeat calls a link: by its interface alone.
func linkName(link string) string {
	_, name, found := strings.Cut(link, " ")
	if !found {
		return link
	}
	return name
}

func (a *app) hblinkstatus(s cluster.Status, args []string, human bool) error {
	n, err := findNode(s, args[0])
	if err != nil {
		return err
	}
	var names []string
	for _, l := range n.Links {
		names = append(names, linkName(l.Link))
		if l.Link != args[1] && linkName(l.Link) != args[1] {
			continue
		}
		status := "up"
		if l.State == "down" {
			status = "dead"
		}
		if err := a.words(human, status, "The node "+n.Name+"'s heartbeat link "+args[1]+" is %s\n"); err != nil || status == "up" {
			return err
		}
		return silentError(exitRefused)
	}
	if n.Name == s.Node {
		return fmt.Errorf("%s is this node: links are those to the others", n.Name)
	}
	return fmt.Errorf("no link %q to %s; there are %s", args[1], n.Name, strings.Join(names, ", "))
}

// holds says which groups this node has, in heartbeat's words.
func holds(s cluster.Status) string {
	local, foreign, others := false, false, false
	for _, g := range s.Groups {
		if (g.State == "moving" || g.State == "starting") && (g.Owner == s.Node || g.Target == s.Node) {
			return "transition"
		}
		switch {
		case g.Owner != s.Node:
			others = true
		case len(g.Prefer) > 0 && g.Prefer[0] == s.Node:
			local = true
		default:
			foreign = true
		}
	}
	switch {
	case !local && !foreign:
		return "none"
	case !others, local && foreign:
		return "all"
	case local:
		return "local"
	}
	return "foreign"
}
