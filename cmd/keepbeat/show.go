package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/api"
	"github.com/keepbeat/keepbeat/cluster/api/screen"
	"github.com/keepbeat/keepbeat/resources/vrrp/site"
)

func (a *app) statusCommand() *cobra.Command {
	var asJSON, watch bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Show nodes, links, groups and services, trouble first",
		Args:  noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch {
				return a.watch(cmd.Context(), asJSON)
			}
			b, err := a.status(cmd.Context(), asJSON)
			if err != nil {
				return err
			}
			_, err = a.stdout.Write(b)
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "show it anew each second until interrupted, also while the daemon restarts")
	return c
}

func (a *app) status(ctx context.Context, asJSON bool) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	// A daemon of an earlier version knows no routers, and one that does not
	// answer is told of below.
	v, _ := a.client().VRRP(ctx)
	if v.Alone && v.Routers != nil {
		if asJSON {
			return marshal(v)
		}
		return []byte(screen.VRRP(*v.Routers, true, time.Now(), a.screen())), nil
	}
	s, err := a.client().Status(ctx)
	if err != nil {
		return nil, err
	}
	if asJSON {
		return marshal(struct {
			cluster.Status
			Routers *site.Status `json:"vrrp,omitempty"`
		}{s, v.Routers})
	}
	page := screen.Status(s, a.screen())
	if v.Routers != nil {
		page += screen.VRRP(*v.Routers, false, s.Time, a.screen())
	}
	return []byte(page), nil
}

func marshal(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	return append(b, '\n'), err
}

const watchEvery = time.Second

// watch shows the status until it is interrupted. A daemon that does not
// answer is part of what is watched.
func (a *app) watch(ctx context.Context, asJSON bool) error {
	terminal := isTerminal(a.stdout)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		b, err := a.status(ctx, asJSON)
		if ctx.Err() != nil {
			return nil
		}
		var refused *api.RefusedError
		switch {
		case errors.As(err, &refused):
			return err
		case err != nil:
			b = fmt.Appendf(nil, "%s  %v\n", time.Now().Format(time.TimeOnly), err)
			if asJSON {
				fmt.Fprint(a.stderr, string(b))
				b = nil
			}
		}
		if terminal {
			// Each line is cleared to its end and the rest of the screen after it: nothing flickers.
			b = append([]byte("\x1b[H"), bytes.ReplaceAll(b, []byte("\n"), []byte("\x1b[K\n"))...)
			b = append(b, "\x1b[J"...)
		} else if !asJSON {
			b = append(b, '\n')
		}
		if _, err := a.stdout.Write(b); err != nil {
			return nil // the reader has gone: `keepbeat status --watch | head`
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// screen says how wide and how colourful the output may be.
func (a *app) screen() screen.Options {
	o := screen.Options{Width: 80}
	f, ok := a.stdout.(*os.File)
	if !ok || !isTerminal(f) {
		return o
	}
	if ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && ws.Col >= 40 {
		o.Width = int(ws.Col)
	}
	o.Colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return o
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func (a *app) whyCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "why GROUP",
		Short: "Explain why a group is where it is",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), answerTime)
			defer cancel()
			w, err := a.client().Why(ctx, args[0])
			if err != nil {
				return err
			}
			return a.print(asJSON, w, func() string { return screen.Why(w, time.Now(), a.screen()) })
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object")
	return c
}

func (a *app) historyCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "history [GROUP]",
		Short: "Print the decisions of the cluster, oldest first",
		Args:  atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			group := ""
			if len(args) > 0 {
				group = args[0]
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), answerTime)
			defer cancel()
			h, err := a.client().History(ctx, group)
			if err != nil {
				return err
			}
			return a.print(asJSON, h, func() string { return screen.History(h.Decisions, a.screen()) })
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object")
	return c
}

func (a *app) print(asJSON bool, v any, text func() string) error {
	if !asJSON {
		_, err := io.WriteString(a.stdout, text())
		return err
	}
	b, err := marshal(v)
	if err != nil {
		return err
	}
	_, err = a.stdout.Write(b)
	return err
}
