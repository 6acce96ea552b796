package main

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepbeat/keepbeat/cluster"
)

// completeTime is how long a shell waits for the daemon when somebody presses TAB.
const completeTime = time.Second

// completions has the shell complete what stands in the cluster: groups, nodes
// and real servers, as the daemon knows them. Without a daemon, and where no
// argument is wanted, it offers nothing, and no file names either.
func (a *app) completions(root *cobra.Command) {
	known := map[string]func(cluster.Status) []string{
		"why": groupNames, "history": groupNames,
		"fence": nodeNamesOf, "confirm": nodeNamesOf, "remove": nodeNamesOf,
		"drain": realNames, "disable": realNames, "weight": realNames, "enable": realNames,
	}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		if c.ValidArgs != nil || c.Name() == "check-config" {
			return
		}
		words := known[c.Name()]
		if c.HasParent() && (c.Parent().Name() == "keys" || c.Parent().Name() == "quorum") {
			words = nil
		}
		c.ValidArgsFunction = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			if words == nil || len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
			defer cancel()
			st, err := a.client().Status(ctx)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			all := slices.DeleteFunc(words(st), func(s string) bool { return !strings.HasPrefix(s, begun) })
			slices.Sort(all)
			return slices.Compact(all), cobra.ShellCompDirectiveNoFileComp
		}
	}
	walk(root)
}

func groupNames(st cluster.Status) (names []string) {
	for _, g := range st.Groups {
		names = append(names, g.Name)
	}
	return names
}

func nodeNamesOf(st cluster.Status) (names []string) {
	for _, n := range st.Nodes {
		names = append(names, n.Name)
	}
	return names
}

// realNames are the real servers of the pools, which the owners' answers carry.
func realNames(st cluster.Status) (names []string) {
	for _, n := range st.Nodes {
		if n.Here == nil {
			continue
		}
		for _, g := range n.Here.Groups {
			for _, r := range g.Resources {
				var pool struct {
					Services []struct {
						Reals []struct{ Address string }
					}
				}
				if json.Unmarshal(r.Detail, &pool) != nil {
					continue // not a pool's, or none
				}
				for _, s := range pool.Services {
					for _, real := range s.Reals {
						names = append(names, strings.TrimSuffix(real.Address, ":0")) // of a mark: every port
					}
				}
			}
		}
	}
	return names
}
