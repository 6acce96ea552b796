package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepbeat/keepbeat/cluster/api"
	"github.com/keepbeat/keepbeat/conf"
)

func (a *app) realCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "real drain|disable|enable|weight|list",
		Short: "Take a real server out for a while, or give it another weight",
		Long: `Orders for real servers stand in the replicated log: they survive moves, restarts
and applies, until enable, or until the time of --for is over. SERVER is
ADDRESS:PORT as it stands in the pool; an address alone, or the name that was
written in the pool, means every port of it. An order counts in every virtual
service that has the server.
What would leave a virtual service without a server that takes new connections
is refused, with exit code 3; --force does it all the same.`,
		Args: noWords,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("drain, disable, enable, weight or list is missing")}
		},
	}
	order := func(use, short, long string, action conf.RealAction, args int) *cobra.Command {
		var r api.Real
		o := conf.RealOrder{Action: action}
		sub := &cobra.Command{
			Use: use, Short: short, Long: long, Args: serverAnd(args - 1), DisableFlagsInUseLine: true,
			RunE: func(cmd *cobra.Command, args []string) error {
				if len(args) > 1 {
					w, err := strconv.Atoi(args[1])
					if err != nil || w < 0 || w > 65535 {
						return usageError{fmt.Errorf("weight %q is not a number from 0 to 65535", args[1])}
					}
					o.Weight = w
				}
				if cmd.Flags().Changed("for") && o.For < time.Second {
					return usageError{fmt.Errorf("--for %v: at least 1s", o.For)}
				}
				r.Server, r.Order = args[0], &o
				return a.orderReal(cmd.Context(), r)
			},
		}
		sub.Flags().Var(span{&o.For}, "for", "take the order back by itself after this time, 10m (default: when it is enabled)")
		sub.Flags().StringVar(&o.Reason, "reason", "", "shown in status and history")
		sub.Flags().BoolVar(&r.Force, "force", false, "also if a virtual service has no server left that takes new connections")
		return sub
	}
	enable := &cobra.Command{
		Use: "enable SERVER", Short: "Take an order back", Args: serverAnd(0), DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.orderReal(cmd.Context(), api.Real{Server: args[0]})
		},
	}
	var asJSON bool
	list := &cobra.Command{
		Use: "list [--json]", Short: "Show the real servers that have an order", Args: noWords, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.realOrders(cmd.Context(), asJSON) },
	}
	list.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c.AddCommand(
		order("drain SERVER [--for 10m] [--reason TEXT] [--force]", "No new connections; those that exist go on",
			"Weight 0. A client that is bound to the server by persistence goes elsewhere with its next\nconnection, unless `expire_quiescent_template: no` stands in haresources.yaml.", conf.RealDrain, 1),
		order("disable SERVER [--for 10m] [--reason TEXT] [--force]", "Count as down, whatever the checks say",
			"The server goes as one that has failed: weight 0 with quiescent, out of the table without.", conf.RealDisable, 1),
		order("weight SERVER N [--for 10m] [--reason TEXT] [--force]", "Another weight than the pool says",
			"N is 0 to 65535; the checks go on to take the server out and in.", conf.RealWeight, 2),
		enable, list,
	)
	return c
}

// serverAnd wants the server and so many weights.
func serverAnd(weights int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return usageError{errors.New("which real server? ADDRESS:PORT, ADDRESS or its name in the pool; `keepbeat status` shows them")}
		case len(args) <= weights:
			return usageError{errors.New("which weight? a number from 0 to 65535")}
		case len(args) > 1+weights:
			return usageError{fmt.Errorf("%q is too much; a reason is given by --reason, and each server by its own command", args[1+weights])}
		}
		return nil
	}
}

func (a *app) orderReal(ctx context.Context, r api.Real) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	done, err := a.client().OrderReal(ctx, r)
	if err != nil {
		return err
	}
	for _, s := range done.Servers {
		word := s.Order.String()
		switch {
		case r.Order != nil && s.Was != nil:
			word += "; before: " + s.Was.String()
		case r.Order == nil && s.Was != nil:
			word = "enabled; it was " + s.Was.String()
		case r.Order == nil:
			word = "there was no order for it"
		}
		fmt.Fprintf(a.stdout, "real server %s%s: %s\n", s.Address, named(s.Host), word)
		for _, v := range s.Services {
			fmt.Fprintln(a.stdout, "  "+v)
		}
	}
	if r.Order != nil {
		fmt.Fprintln(a.stdout, wayBack(r))
	}
	return nil
}

// wayBack says what to look at, and how an order ends.
func wayBack(r api.Real) string {
	look := map[conf.RealAction]string{
		conf.RealDrain:   "`keepbeat status` shows the connections that are left; ",
		conf.RealDisable: "its checks go on, and do not count; ",
		conf.RealWeight:  "its checks go on to take it out and in; ",
	}[r.Order.Action]
	end := " ends this"
	if r.Order.For > 0 {
		end += " before its time"
	}
	return look + "`keepbeat real enable " + r.Server + "`" + end
}

func named(host string) string {
	if host == "" {
		return ""
	}
	return " (" + host + ")"
}

func (a *app) realOrders(ctx context.Context, asJSON bool) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	all, err := a.client().RealOrders(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(a.stdout).Encode(all)
	}
	if len(all.Servers) == 0 {
		fmt.Fprintln(a.stdout, "no real server has an order")
		return nil
	}
	t := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for _, s := range all.Servers {
		fmt.Fprintf(t, "%s%s\t%s\t%s\n", s.Address, named(s.Host), s.Order, strings.Join(s.Services, ", "))
	}
	return t.Flush()
}
