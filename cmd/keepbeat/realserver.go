package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/realserver"
)

// commandHolder is who holds what the command has started.
const commandHolder = "command"

// exitStopped is what status returns when nothing is set up, as LSB has it.
const exitStopped = 3

func (a *app) realserverCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "realserver start|stop|status",
		Short: "Make this machine a real server of gate or ipip",
		Long: `Sets a machine up for the packets that a director sends it by gate (direct
routing) or ipip: the virtual address stands on lo or on the tunnel, and nobody
answers ARP for it. stop puts back exactly what start has changed. It needs no
daemon and no cluster.`,
		Args: noWords,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("start, stop or status is missing")}
		},
	}
	var forward string
	start := &cobra.Command{
		Use:   "start [ADDRESS...]",
		Short: "Take virtual addresses; without any, exactly those of realserver.yaml",
		Example: `  keepbeat realserver start 192.168.56.200
  keepbeat realserver start --forward ipip 192.168.56.201`,
		RunE: func(_ *cobra.Command, args []string) error {
			addresses, err := a.realServers(args, forward)
			if err != nil {
				return err
			}
			h := realserver.New(runDir(a.config))
			if len(args) > 0 {
				return h.Start(commandHolder, addresses)
			}
			return a.said(h.Set(commandHolder, addresses))
		},
	}
	start.Flags().StringVar(&forward, "forward", "gate", "forward method of the director: gate or ipip")
	stop := &cobra.Command{
		Use:   "stop [ADDRESS...]",
		Short: "Give virtual addresses back; without any, all that start has taken",
		RunE: func(_ *cobra.Command, args []string) error {
			var addresses []conf.RealServer
			if len(args) > 0 {
				var err error
				if addresses, err = a.realServers(args, forward); err != nil {
					return err
				}
			}
			return a.said(realserver.New(runDir(a.config)).Stop(commandHolder, addresses))
		},
	}
	status := &cobra.Command{
		Use:   "status",
		Short: "Show what is set up, and whether it still stands",
		Long:  "Exit code 0: it stands; 1: something is missing; 3: nothing is set up.",
		Args:  noWords,
		RunE: func(*cobra.Command, []string) error {
			return a.realserverStatus(realserver.New(runDir(a.config)))
		},
	}
	for _, sub := range []*cobra.Command{start, stop, status} {
		sub.DisableFlagsInUseLine = true
		c.AddCommand(sub)
	}
	return c
}

// said tells what was left as somebody else has made it.
func (a *app) said(notes []string, err error) error {
	for _, n := range notes {
		fmt.Fprintf(a.stderr, "%s: %s\n", a.name, n)
	}
	return err
}

// realServers are the addresses of a command line, or of the file.
func (a *app) realServers(args []string, forward string) ([]conf.RealServer, error) {
	if len(args) == 0 {
		return conf.LoadRealServerFile(filepath.Join(filepath.Dir(a.config), conf.RealServerName))
	}
	var all []conf.RealServer
	for _, arg := range args {
		r, err := conf.ParseRealServer(arg + " " + forward)
		if err != nil {
			return nil, usageError{err}
		}
		all = append(all, r)
	}
	return all, nil
}

func (a *app) realserverStatus(h *realserver.Host) error {
	holders, lines, err := h.Status()
	if err != nil {
		return err
	}
	if len(holders) == 0 {
		fmt.Fprintln(a.stdout, "no virtual address is set up")
		return silentError(exitStopped)
	}
	for _, x := range holders {
		fmt.Fprintf(a.stdout, "%s %s, started by %s\n", x.Address.Address, x.Address.Forward, strings.Join(x.By, ", "))
	}
	good := true
	t := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for _, l := range lines {
		state := "stands"
		switch {
		case !l.There && l.Now != "":
			state, good = "MISSING: it is "+l.Now, false
		case !l.There:
			state, good = "MISSING", false
		case !l.Ours && l.Now != "":
			state = "stood before: " + l.Now
		case !l.Ours:
			state = "stood before"
		}
		fmt.Fprintf(t, "  %s\t%s\n", l.Step, state)
	}
	if err := t.Flush(); err != nil || good {
		return err
	}
	return silentError(exitRefused)
}
