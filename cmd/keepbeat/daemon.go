package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"gopkg.in/yaml.v3"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/api"
	"github.com/keepbeat/keepbeat/conf"
)

const defaultConfig = "/etc/keepbeat/ha.yaml"

// nothingHere is the error of a machine that has neither of the two files that say what it runs.
func nothingHere(config string) error {
	if hasRouters(config) || !notThere(config) {
		return nil
	}
	return fmt.Errorf("%s: no such file, nor is there %s: write the first for a node of a cluster, the second for virtual routers as keepalived has them; see the examples that come with keepbeat",
		config, vrrpPath(config))
}

// client speaks to the daemon of this machine.
func (a *app) client() *api.Client {
	if a.socket != "" {
		return api.NewClientAt(a.socket)
	}
	return api.NewClient(runDir(a.config))
}

// runDir finds the run directory. All else in the file may be wrong, or the
// file not be readable for a member of socket_group: that must not keep
// anybody from asking a daemon that runs.
func runDir(config string) string {
	const maxConfig = 1 << 20
	alone := isAlone(config)
	if alone {
		config = vrrpPath(config)
	}
	f, err := os.OpenFile(config, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO would hang the command
	if err != nil {
		return conf.DefaultRunDir
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig))
	var v struct {
		RunDir  string `yaml:"run_dir"`
		Globals struct {
			RunDir string `yaml:"run_dir"`
		} `yaml:"global_defs"`
	}
	if err == nil {
		_ = yaml.Unmarshal(data, &v) // a file that is faulty elsewhere still fills in what it can
	}
	dir := v.RunDir
	if alone {
		dir = v.Globals.RunDir
	}
	if !filepath.IsAbs(dir) {
		return conf.DefaultRunDir
	}
	return dir
}

func (a *app) restartCommand() *cobra.Command {
	wait := time.Minute
	c := &cobra.Command{
		Use:   "restart",
		Short: "Replace the running daemon by the program on disk; nothing moves",
		Long: `The daemon takes a long lease (restart_lease), then executes the program as it
is on disk now. Everything it started stays up. The command returns when the
new daemon takes part in the cluster.

On a machine that runs virtual routers alone (vrrp.yaml) that file is read again.`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.restart(cmd.Context(), wait) },
	}
	c.Flags().Var(span{&wait}, "wait", "how long to wait for the new daemon")
	return c
}

func (a *app) restart(ctx context.Context, wait time.Duration) error {
	client := a.client()
	if v, err := client.VRRP(ctx); err == nil && v.Alone {
		if _, err := client.ReloadVRRP(ctx); err != nil {
			return err
		}
		fmt.Fprintln(a.stdout, "vrrp.yaml was read, and nothing else has moved; a new program on disk is begun by `systemctl restart keepbeat`, which hands over")
		return nil
	}
	before, err := client.Local(ctx)
	if err != nil {
		return err
	}
	if err := client.Restart(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	last := errors.New("it has not ended yet")
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the new daemon does not take part in the cluster after %v: %w; look at its log", wait, last)
		case <-tick.C:
		}
		s, err := client.Status(ctx)
		if err != nil {
			last = err
			continue
		}
		self := node(s, s.Node)
		if self == nil || self.Here == nil || self.Here.Boot == before.Boot {
			continue
		}
		if self.State == "up" {
			fmt.Fprintf(a.stdout, "keepbeat %s runs on %s; nothing was moved\n", self.Here.Version, self.Name)
			return nil
		}
		last = fmt.Errorf("node %s is %s: %s", self.Name, self.State, self.Why)
	}
}

func node(s cluster.Status, name string) *cluster.NodeStatus {
	for i := range s.Nodes {
		if s.Nodes[i].Name == name {
			return &s.Nodes[i]
		}
	}
	return nil
}
