// Command keepbeat is the cluster resource manager: the daemon and its
// commands. Called hb_standby, hb_takeover or cl_status it is heartbeat's
// command of that name.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/cluster/api"
	"github.com/keepbeat/keepbeat/cluster/consensus"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/fencing"
)

// version is set by the linker.
var version = "dev"

// How a command ends.
const (
	exitDone    = 0
	exitRefused = 1 // or failed: the reason is on stderr
	exitUsage   = 2
	exitForce   = 3 // refused for what it would cost; with --force it is done
)

func main() {
	consensus.CheckIfAsked()
	fencing.CloseInherited()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	code := execute(ctx, os.Args, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// app is one call of the program.
type app struct {
	name   string // as it was called
	stdout io.Writer
	stderr io.Writer

	config string // --config
	socket string // --socket; empty: in the run directory
	// began says that the command line was understood: what fails before that is usage.
	began bool
}

// usageError is an argument that is wrong although cobra took it.
type usageError struct{ error }

// silentError ends a command with a code, everything having been said.
type silentError int

func (e silentError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// execute runs the command line and returns the exit code.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	a := &app{name: filepath.Base(args[0]), stdout: stdout, stderr: stderr}
	var root *cobra.Command
	switch a.name {
	case "hb_standby":
		root = a.oldStandby()
	case "hb_takeover":
		root = a.oldTakeover()
	case "cl_status":
		root = a.clStatus()
	default:
		a.name = "keepbeat"
		root = a.root()
	}
	root.CompletionOptions.DisableDefaultCmd = a.name != "keepbeat"
	a.common(root)
	root.SetArgs(args[1:])
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SilenceErrors, root.SilenceUsage = true, true
	root.PersistentPreRun = func(*cobra.Command, []string) {
		a.began = true
		if filepath.Base(a.config) == conf.VRRPName {
			a.config = filepath.Join(filepath.Dir(a.config), haName)
		}
	}
	cmd, err := root.ExecuteContextC(ctx)
	var silent silentError
	var usage usageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &silent):
		return int(silent)
	case !a.began, errors.As(err, &usage):
		fmt.Fprintf(stderr, "%s: %v\nusage: %s\n", a.name, err, cmd.UseLine())
		if a.name == "keepbeat" {
			fmt.Fprintf(stderr, "see `%s --help`\n", cmd.CommandPath())
		}
		return exitUsage
	}
	a.complain(err)
	return a.refusal(err)
}

// refusal is the exit code of an error. Heartbeat's commands have no --force, and keep to its codes.
func (a *app) refusal(err error) int {
	var refused *api.RefusedError
	if errors.As(err, &refused) && refused.Force && a.name == "keepbeat" {
		return exitForce
	}
	return exitRefused
}

// complain puts the reason of a failure on stderr, each line with the program's name.
func (a *app) complain(err error) {
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(a.stderr, "%s: %s\n", a.name, line)
	}
}

func (a *app) common(c *cobra.Command) {
	f := c.PersistentFlags()
	f.StringVar(&a.config, "config", defaultConfig, "the node's own configuration; vrrp.yaml is looked for beside it")
	f.StringVar(&a.socket, "socket", "", "the daemon's control socket (default: in run_dir of the configuration, /run/keepbeat)")
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "keepbeat COMMAND",
		Short: "Cluster resource manager for Linux directors",
		Long: `keepbeat keeps virtual addresses and IPVS services on exactly one of several
Linux directors, and moves them when a director dies. With vrrp.yaml, and without
ha.yaml, this machine is in no cluster, and VRRP alone decides, as with keepalived.

Exit codes: 0 done, 1 refused or failed (the reason is on stderr), 2 usage,
3 refused for what it would cost: with --force it is done.`,
		Args:    noWords,
		RunE:    func(*cobra.Command, []string) error { return usageError{errors.New("a command is missing")} },
		Version: version,
	}
	root.SetVersionTemplate("keepbeat {{.Version}}\n")
	root.AddCommand(
		a.runCommand(), a.releaseCommand(), a.restartCommand(),
		a.statusCommand(), a.whyCommand(), a.historyCommand(),
		a.standbyCommand(), a.takeoverCommand(),
		a.fenceCommand(), a.quorumCommand(), a.nodeCommand(),
		a.applyCommand(), a.checkConfigCommand(), a.keysCommand(), a.realCommand(), a.realserverCommand(), a.vrrpCommand(), a.versionCommand(),
	)
	a.completions(root)
	return root
}

func (a *app) runCommand() *cobra.Command {
	var debug bool
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon, in the foreground",
		Long: `Runs the daemon, in the foreground: a node of a cluster with ha.yaml, virtual
routers with vrrp.yaml, or both.`,
		Args: noWords,
		RunE: func(*cobra.Command, []string) error {
			if err := nothingHere(a.config); err != nil {
				return err
			}
			logger, flush := newLogger(os.Stderr, debug)
			defer flush()
			if isAlone(a.config) {
				return runAlone(vrrpPath(a.config), logger)
			}
			return run(a.config, logger)
		},
	}
	debugFlag(c, &debug)
	return c
}

func (a *app) releaseCommand() *cobra.Command {
	var debug bool
	c := &cobra.Command{
		Use:   "release",
		Short: "Take back what a daemon that died left on this machine",
		Long: `Stops, newest first, whatever the journal says was started here, and opens the
guard. For ExecStopPost= of the unit; it refuses while a daemon runs.`,
		Args: noWords,
		RunE: func(*cobra.Command, []string) error {
			logger, flush := newLogger(os.Stderr, debug)
			defer flush()
			if isAlone(a.config) {
				return releaseAlone(runDir(a.config), logger)
			}
			return release(a.config, logger)
		},
	}
	debugFlag(c, &debug)
	return c
}

func debugFlag(c *cobra.Command, debug *bool) {
	c.Flags().BoolVar(debug, "debug", os.Getenv("KEEPBEAT_DEBUG") != "", "log what only a developer wants to know (or set KEEPBEAT_DEBUG)")
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noWords,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(a.stdout, "keepbeat", version)
			return err
		},
	}
}
