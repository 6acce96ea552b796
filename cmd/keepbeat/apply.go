package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keepbeat/keepbeat/cluster/api"
)

func (a *app) applyCommand() *cobra.Command {
	var r api.Apply
	c := &cobra.Command{
		Use:   "apply",
		Short: "Make this node's haresources.yaml and pools the cluster's",
		Long: `Checks haresources.yaml and the pools it names on this node, shows what differs
from the version that the cluster runs, and makes them the next version. Every
node then writes that version to its own files. Faulty files change nothing. When more than half of
the groups that run would stop it is refused, with exit code 3, without --force.`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("base") && r.Base == 0 {
				return usageError{errors.New("--base: versions start at 1")}
			}
			return a.apply(cmd.Context(), r)
		},
	}
	c.Flags().BoolVar(&r.Dry, "dry-run", false, "only show what would change")
	c.Flags().BoolVar(&r.Force, "force", false, "also when most of what runs would stop")
	c.Flags().Uint64Var(&r.Base, "base", 0, "refuse unless this version is still the one that the cluster runs")
	return c
}

func (a *app) apply(ctx context.Context, r api.Apply) error {
	ctx, cancel := context.WithTimeout(ctx, 3*answerTime)
	defer cancel()
	c, err := a.client().Apply(ctx, r)
	var refused *api.RefusedError
	if errors.As(err, &refused) {
		if refused.Files {
			fmt.Fprintln(a.stderr, refused.Reason)
		} else {
			a.complain(refused)
		}
		if !refused.Unknown {
			fmt.Fprintln(a.stderr, "nothing was changed")
		}
		return silentError(a.refusal(err))
	}
	if err != nil {
		return err
	}
	// The daemon's words: it has looked the names up.
	for _, w := range c.Warnings {
		fmt.Fprintln(a.stderr, w)
	}
	if len(c.Lines) == 0 {
		_, err := fmt.Fprintf(a.stdout, "nothing to apply: the files are version %d, which the cluster runs\n", c.Base)
		return err
	}
	for _, l := range c.Lines {
		fmt.Fprintln(a.stdout, l)
	}
	if r.Dry && c.Cost != "" && !r.Force {
		fmt.Fprintf(a.stdout, "%s: it is refused without --force\n", c.Cost)
	}
	if r.Dry {
		_, err = fmt.Fprintf(a.stdout, "not applied (--dry-run); the cluster runs version %d\n", c.Base)
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "version %d is in force\n", c.Version)
	return err
}
