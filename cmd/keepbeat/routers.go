package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/api"
	"github.com/keepbeat/keepbeat/cluster/api/screen"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/vrrp/site"
)

// vrrpPath is where the virtual routers of this machine stand: beside ha.yaml.
func vrrpPath(configPath string) string {
	return filepath.Join(filepath.Dir(configPath), conf.VRRPName)
}

// isAlone says whether this machine runs virtual routers and is no node of a cluster.
func isAlone(configPath string) bool {
	_, err := os.Stat(configPath)
	return errors.Is(err, fs.ErrNotExist) && hasRouters(configPath)
}

func hasRouters(configPath string) bool {
	_, err := os.Stat(vrrpPath(configPath))
	return err == nil
}

// routers is a site and the file that it follows.
type routers struct {
	*site.Site
	path   string
	spec   func() *conf.Spec // of the cluster beside it; nil: there is none
	logger *slog.Logger

	mu     sync.Mutex // of reloads, guards what follows
	v      *conf.VRRP // that was read last
	unread error      // why the file was refused since
	apart  error      // what of v is the cluster's, and not run here
	left   bool       // for a restart: nothing of v is run

	told    sync.Mutex // guards what follows
	trouble []string   // of the file
}

// Status implements api.Routers.
func (r *routers) Status() site.Status {
	st := r.Site.Status()
	r.told.Lock()
	defer r.told.Unlock()
	st.Trouble = append(st.Trouble, r.trouble...)
	return st
}

// note makes what status says of the file. r.mu is held.
func (r *routers) note() {
	var lines []string
	if r.unread != nil {
		lines = append(lines, "what runs is not what "+r.path+" has, which was refused: "+firstLine(r.unread))
	}
	if r.apart != nil {
		lines = append(lines, "not all of "+r.path+" is run: "+firstLine(r.apart))
	}
	r.told.Lock()
	defer r.told.Unlock()
	r.trouble = lines
}

// firstLine is the first of the faults of a file, and how many more there are.
func firstLine(err error) string {
	line, rest, more := strings.Cut(err.Error(), "\n")
	if more {
		line += fmt.Sprintf(" (and %d more)", 1+strings.Count(rest, "\n"))
	}
	return line
}

// loadRouters reads vrrp.yaml. What is the cluster's, too, is a fault.
func loadRouters(path string, spec *conf.Spec, logger *slog.Logger) (*conf.VRRP, error) {
	v, warnings, err := conf.LoadVRRP(path)
	for _, w := range warnings {
		logger.Warn(w.String())
	}
	if err != nil {
		return nil, err
	}
	// Better now than when the other machine has died.
	for _, p := range programsOf(v) {
		if err := p.usable(); err != nil {
			logger.Warn(path + ": " + p.what + " cannot be run: " + err.Error())
		}
	}
	return v, conf.CheckWorlds(v, spec)
}

// Reload implements api.Routers.
func (r *routers) Reload() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Ended() {
		return errors.New("keepbeat is stopping")
	}
	if r.left {
		return errors.New("the daemon is being replaced, and the new one reads the file; ask it again in a moment")
	}
	v, err := loadRouters(r.path, r.clusters(), r.logger)
	if err != nil {
		r.logger.Error(r.path+" is not read: what runs goes on as it was", "err", err)
		r.unread = err
		r.note()
		return err
	}
	for _, key := range notReloaded(r.v, v, r.spec == nil) {
		r.logger.Warn(r.path + ": " + key + " has changed, which counts from the next start on: systemctl restart keepbeat")
	}
	r.v, r.unread, r.apart = v, nil, nil
	r.note()
	r.Update(v)
	r.logger.Info(r.path+" was read", "instances", len(v.Instances), "pools", len(v.Pools))
	return nil
}

// notReloaded are the keys of global_defs that have changed, and that a daemon
// reads when it starts; most are of one that is alone.
func notReloaded(was, is *conf.VRRP, alone bool) (keys []string) {
	for _, k := range []struct {
		name, was, is string
		counts        bool
	}{
		{"router_id", was.RouterID, is.RouterID, true}, {"run_dir", was.RunDir, is.RunDir, alone},
		{"socket_group", was.SocketGroup, is.SocketGroup, alone}, {"admin_group", was.AdminGroup, is.AdminGroup, alone},
	} {
		if k.counts && k.was != k.is {
			keys = append(keys, k.name)
		}
	}
	return keys
}

// clusters is the specification of the cluster beside it, nil without one.
func (r *routers) clusters() *conf.Spec {
	if r.spec == nil {
		return nil
	}
	return r.spec()
}

// routersOfNode reads vrrp.yaml of a director. What the cluster has is not theirs;
// of files that cannot be read nothing is known yet, and keepApart looks later.
func routersOfNode(configPath string, local *conf.Local, logger *slog.Logger) (*conf.VRRP, error) {
	if !isDirector(local) {
		return nil, fmt.Errorf("%s: this node is a witness, which owns no addresses: take the file away, or make the node a director", vrrpPath(configPath))
	}
	var spec *conf.Spec
	if files, err := conf.ReadFiles(local.ConfDir); err == nil {
		spec, _, _ = conf.ParseSpec(files, local)
	}
	return loadRouters(vrrpPath(configPath), spec, logger)
}

// besideCluster makes the virtual routers of a director.
func besideCluster(configPath string, local *conf.Local, registry resources.Registry, node *cluster.Node, logger *slog.Logger) (*routers, error) {
	v, err := routersOfNode(configPath, local, logger)
	if err != nil {
		return nil, err
	}
	s, err := site.New(site.Config{Node: local.Name, RunDir: local.RunDir, Registry: registry, Logger: logger}, v)
	if err != nil {
		return nil, err
	}
	makeRoom()
	collectSeldom(v)
	return &routers{Site: s, path: vrrpPath(configPath), spec: func() *conf.Spec { return node.State().Spec }, logger: logger, v: v}, nil
}

// apartEvery is how often a specification that others have applied is looked at.
const apartEvery = 500 * time.Millisecond

// keepApart takes out here what a new specification gives to the cluster. The
// cluster's rules keep it on one node; VRRP's do not.
func (r *routers) keepApart(ctx context.Context) error {
	tick := time.NewTicker(apartEvery)
	defer tick.Stop()
	var seen *conf.Spec
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		spec := r.spec()
		if spec == seen {
			continue
		}
		seen = spec
		r.separate(spec)
	}
}

// separate runs what is not the cluster's, and what is not any more.
func (r *routers) separate(spec *conf.Spec) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left {
		return
	}
	before := r.apart
	r.apart = conf.CheckWorlds(r.v, spec)
	switch {
	case r.apart != nil:
		r.logger.Error("ALARM: vrrp.yaml has what is the cluster's now; it is not run here", "err", r.apart)
	case before != nil:
		r.logger.Info("nothing of vrrp.yaml is the cluster's any more; all of it is run again")
	default:
		return
	}
	r.note()
	r.Update(conf.Apart(r.v, spec))
}

// leaveTime is how long a restart waits for addresses to be given back and notify
// programs to end; meanwhile nobody does anything for the cluster's long lease.
const leaveTime = 2 * time.Second

// leave stops all virtual routers: masters say so, and others take over at once.
func (r *routers) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = true
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	if err := r.Leave(ctx); err != nil {
		r.logger.Warn("the restart does not wait any longer; the next daemon takes back what is left", "err", err)
	}
}

// stay takes leave back: what ran before runs again.
func (r *routers) stay() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.left {
		return
	}
	r.left = false
	v := r.v
	if spec := r.clusters(); spec != nil {
		v = conf.Apart(v, spec)
	}
	r.Update(v)
}

// hostName is what mails call this machine.
func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return strings.ToLower(name)
}

// runAlone is the daemon on a machine that has vrrp.yaml and no ha.yaml: VRRP
// alone decides, as with keepalived.
func runAlone(path string, logger *slog.Logger) error {
	v, err := loadRouters(path, nil, logger)
	if err != nil {
		return err
	}
	socket, err := api.Listen(v.RunDir, api.Groups{Read: v.SocketGroup, Admin: v.AdminGroup})
	if err != nil {
		return err
	}
	defer socket.Close()
	a := newAgents(&conf.Local{RunDir: v.RunDir}, logger)
	defer a.close()
	s, err := site.New(site.Config{Node: hostName(), RunDir: v.RunDir, Registry: a.registry, Logger: logger}, v)
	if err != nil {
		return err
	}
	r := &routers{Site: s, path: path, logger: logger, v: v}
	makeRoom()
	collectSeldom(v)

	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	defer signal.Stop(signals)
	serving, end := context.WithCancel(context.Background())
	defer end()
	running, stop := context.WithCancel(context.Background())
	defer stop()
	failed := make(chan error, 2)
	var background sync.WaitGroup
	defer background.Wait()
	defer end()
	background.Go(func() {
		if err := a.checks.Run(serving); err != nil && serving.Err() == nil {
			failed <- fmt.Errorf("checks: %w", err)
		}
	})
	background.Go(func() {
		if err := api.Serve(serving, socket, api.Config{Routers: r, Logger: logger}); err != nil && serving.Err() == nil {
			failed <- fmt.Errorf("control socket: %w", err)
		}
	})
	background.Go(func() { feed(serving, s.Turning) })
	done := make(chan error, 1)
	go func() { done <- s.Run(running) }()
	logger.Info("keepbeat runs virtual routers alone: there is no ha.yaml beside "+path, "version", version, "instances", len(v.Instances), "pools", len(v.Pools))
	notify(daemon.SdNotifyReady, logger)
	for {
		select {
		case err := <-done:
			return err
		case err := <-failed:
			stop()
			return errors.Join(err, <-done)
		case sig := <-signals:
			if sig == unix.SIGHUP {
				_ = r.Reload() // it has said why not
				continue
			}
			logger.Info("stopping", "signal", sig.String())
			notify(daemon.SdNotifyStopping, logger)
			stop()
			return <-done
		}
	}
}

// releaseAlone takes back what a daemon that died left on such a machine, whatever
// vrrp.yaml looks like by now.
func releaseAlone(runDir string, logger *slog.Logger) error {
	if c, err := net.Dial("unix", filepath.Join(runDir, api.SocketName)); err == nil {
		c.Close()
		return errors.New("keepbeat runs on this machine; use `systemctl stop keepbeat`")
	}
	a := newAgents(&conf.Local{RunDir: runDir}, logger)
	defer a.close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return errors.Join(resources.Release(ctx, site.PoolJournal(runDir), a.registry, hostName(), logger), site.Release(runDir, logger))
}

func (a *app) vrrpCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "vrrp",
		Short: "Show the virtual routers of this machine (vrrp.yaml), or read the file again",
		Args:  noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), answerTime)
			defer cancel()
			v, err := a.client().VRRP(ctx)
			if err != nil {
				return err
			}
			if v.Routers == nil {
				return errors.New("this machine runs no virtual routers: there was no vrrp.yaml beside ha.yaml when keepbeat started")
			}
			return a.print(asJSON, v.Routers, func() string { return screen.VRRP(*v.Routers, true, time.Now(), a.screen()) })
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object")
	c.AddCommand(&cobra.Command{
		Use:   "reload",
		Short: "Read vrrp.yaml again; what has not changed is not disturbed, and a faulty file changes nothing",
		Args:  noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), answerTime)
			defer cancel()
			v, err := a.client().ReloadVRRP(ctx)
			if err != nil {
				return err
			}
			what := "virtual routers"
			if len(v.Routers.Instances) == 1 {
				what = "virtual router"
			}
			fmt.Fprintf(a.stdout, "vrrp.yaml was read: %d %s\n", len(v.Routers.Instances), what)
			return nil
		},
	})
	return c
}
