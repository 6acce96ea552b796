package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/keepbeat/keepbeat/checks"
	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/api"
	"github.com/keepbeat/keepbeat/cluster/autoreload"
	"github.com/keepbeat/keepbeat/cluster/consensus"
	"github.com/keepbeat/keepbeat/cluster/lease"
	"github.com/keepbeat/keepbeat/cluster/lease/guard"
	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/cluster/pair/wire"
	"github.com/keepbeat/keepbeat/cluster/transport"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/fencing"
	"github.com/keepbeat/keepbeat/fencing/watchdog"
	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/ipvs"
	"github.com/keepbeat/keepbeat/resources/realserver"
	"github.com/keepbeat/keepbeat/resources/vip"
	"github.com/keepbeat/keepbeat/resources/vrrp/announce"
)

// stopLimit bounds a clean stop's handover; the unit's TimeoutStopSec is longer.
const stopLimit = 4 * time.Minute

// agents are the makers of resources and what they stand on.
type agents struct {
	registry resources.Registry
	vips     *vip.Maker
	pools    *ipvs.Maker
	checks   *checks.Scheduler
	close    func() error
}

func newAgents(local *conf.Local, logger *slog.Logger) agents {
	scheduler := checks.NewScheduler(checks.Config{Logger: logger})
	kernel := ipvs.NewKernel(ipvs.KernelConfig{Logger: logger})
	vips := vip.NewMaker(vip.Config{Logger: logger})
	announcers := announce.NewMaker(announce.Config{Logger: logger})
	pools := ipvs.NewMaker(ipvs.Config{Checks: scheduler, Table: kernel})
	return agents{
		registry: resources.Registry{
			conf.KindVIP:        vips,
			conf.KindLdirectord: pools,
			conf.KindRealServer: realserver.Maker{Host: realserver.New(local.RunDir)},
			conf.KindVRRP:       announcers,
		},
		vips:   vips,
		pools:  pools,
		checks: scheduler,
		close:  func() error { return errors.Join(vips.Close(), announcers.Close(), kernel.Close()) },
	}
}

func journal(local *conf.Local) resources.Journal {
	return resources.Journal{Dir: filepath.Join(local.RunDir, "journal")}
}

// run is the daemon.
func run(configPath string, logger *slog.Logger) error {
	local, warnings, err := conf.LoadLocal(configPath)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		logger.Warn(w.String())
	}
	keys, active, err := conf.LoadAuthKeys(local.AuthKeys)
	if err != nil {
		return err
	}
	socket, err := api.Listen(local.RunDir, groupsOf(local))
	if err != nil {
		return err
	}
	defer socket.Close()
	// What runs here must be known before a lease opens the guard: another node
	// may own it by now. The guard that stands keeps it silent meanwhile.
	if _, err := journal(local).Read(); err != nil {
		return err
	}
	data, err := cluster.OpenData(local.DataDir)
	if err != nil {
		return err
	}
	if data.Renewed != "" {
		logger.Info("this node joins as a new one", "why", data.Renewed, "uuid", data.UUID)
	}
	if err := consensus.CheckLog(data.RaftDir); err != nil {
		return err
	}
	stores, err := consensus.OpenBolt(data.RaftDir, transport.HCLog(logger, "raft"))
	if err != nil {
		return err
	}

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var background sync.WaitGroup
	defer background.Wait()
	defer cancel()
	failed := make(chan error, 4)
	start := func(what string, f func(context.Context) error) {
		background.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("%s: %w", what, err)
			}
		})
	}

	edits := autoreload.New(local.ConfDir, logger)
	calls := newCallbacks(local.Name, local.ConfDir, data.SpecDir, logger)
	boot := link.Boot(rand.Uint64() | 1) // 0 is "none"
	cfg := cluster.Config{
		Local: local, UUID: data.UUID, Boot: boot, Version: version,
		Stores: stores, Promises: data.Promises, Promised: data.Promised,
		Generations: data.Generations, Generation: data.Generation, Carry: takeCarry(),
		Clock: &lease.KernelClock{}, Journal: journal(local), Logger: logger,
		Files: func() (*conf.Spec, conf.Files, error) {
			files, err := conf.ReadFiles(local.ConfDir)
			if err != nil {
				return nil, files, err
			}
			// ha.yaml seeds the replicated settings: as it is now, not as it was at the start.
			now, _, err := conf.LoadLocal(configPath)
			if err != nil {
				return nil, files, err
			}
			spec, warnings, err := conf.ParseSpec(trying(files, now), now)
			for _, w := range warnings {
				logger.Warn(w.String())
			}
			files.Warnings = warnings
			if few := tooFewDescriptors(spec, now, checks.Descriptors()); few != "" {
				logger.Warn(few)
			}
			if err == nil {
				err = checkDevices(spec.Fencing, now, func(w string) { logger.Warn(w) })
			}
			if err == nil && hasRouters(configPath) {
				_, err = loadRouters(vrrpPath(configPath), spec, logger)
			}
			return spec, files, err
		},
		Write: func(v uint64, files conf.Files) error {
			return edits.Write(v, files, func() error {
				calls.before(v)
				unapplied, err := conf.WriteBack(local.ConfDir, data.SpecDir, v, files, time.Now())
				for _, path := range unapplied {
					logger.Warn("a local edit that was not applied has been put aside; compare and `keepbeat apply` what you still want", "file", path)
				}
				if err != nil {
					return err
				}
				calls.after(v, files)
				if err := conf.Forget(data.SpecDir, v); err != nil {
					logger.Warn("old versions of the specification cannot be removed", "err", err)
				}
				return nil
			})
		},
	}
	director := isDirector(local)
	dog, err := watchdog.New(watchdog.Config{Device: watchdogDevice(local, director), Timeout: local.Watchdog.Timeout, Reset: watchdog.ResetNow, Logger: logger})
	if err != nil {
		return err
	}
	cfg.Watchdog = dog
	var node *cluster.Node
	cfg.Fencing = fencing.New(fencing.Config{
		Node: local.Name, Nodes: local.Nodes, Logger: logger,
		Resets: func(name string, within time.Duration) error { return node.Resets(name, within) }, // it is node that fences
	})
	if director {
		if local.Guard == conf.GuardOn {
			g, err := guard.Open(ctx, guard.Config{Logger: logger, Alarm: func(msg string) { logger.Error("ALARM: " + msg) }})
			if err != nil {
				return fmt.Errorf("%w; without it a daemon that hangs keeps its addresses: write `guard: off` in %s to accept that", err, configPath)
			}
			defer g.Close()
			start("guard", func(ctx context.Context) error { g.Run(ctx); return nil })
			cfg.Guard = kernelGuard{g}
		}
		a := newAgents(local, logger)
		defer a.close()
		start("checks", a.checks.Run)
		cfg.Registry = a.registry
		cfg.RealOrders = a.pools.SetOrders
		if local.Quorum == conf.QuorumPing {
			w := wire.New(wire.Config{Vips: a.vips, Logger: logger})
			defer w.Close()
			cfg.Wire = w
		}
	}

	linkKeys, secrets := keysFor(keys, active)
	var names []string
	for _, n := range local.Nodes {
		names = append(names, n.Name)
	}
	mesh, err := link.New(link.Config{
		Cluster: local.Cluster, Self: local.Name, Nodes: names, Boot: boot, Keys: linkKeys, Active: active,
		Links: local.Links, Keepalive: local.Profile.Keepalive, Logger: logger,
	})
	if err != nil {
		return err
	}
	cfg.Datagrams = mesh
	quic, err := transport.NewQUIC(transport.QUICConfig{Self: local.Name, Nodes: names, Datagrams: mesh, Keys: secrets, Cluster: local.Cluster, Logger: logger})
	if err != nil {
		return err
	}
	defer quic.Close()
	cfg.Streams = quic
	cfg.SetNodes = func(names []string) error { return errors.Join(mesh.SetNodes(names), quic.SetNodes(names)) }
	cfg.RealCost = api.EmptiedNow
	cfg.WriteNodes = func(nodes []conf.Node, rule conf.Quorum) error { return conf.WriteNodes(configPath, nodes, rule) }
	cfg.CheckNodes = func(nodes []conf.Node, rule conf.Quorum) error { return conf.CheckNodes(configPath, nodes, rule) }
	cfg.Keys = cluster.NewKeyRing(local.AuthKeys, local.Cluster, keys, active, func(keys []conf.Key, active int) error {
		linkKeys, secrets := keysFor(keys, active)
		// What the links accept the streams may fail at only for want of memory.
		return errors.Join(mesh.SetKeys(linkKeys, active), quic.SetKeys(secrets))
	})
	if node, err = cluster.New(cfg); err != nil {
		return err
	}
	if director {
		calls.spec = func() *conf.Spec { return node.State().Spec }
		start("callbacks", calls.run)
	}
	again := &reexecutor{config: configPath, node: node, dog: dog, logger: logger}
	control := api.Config{Node: restartable{node, again}, Logger: logger, Restart: func() { go again.exec() }}
	if hasRouters(configPath) {
		r, err := besideCluster(configPath, local, cfg.Registry, node, logger)
		if err != nil {
			return err
		}
		control.Routers, again.routers = r, r
		start("virtual routers", r.Run)
		start("virtual routers and the cluster", r.keepApart)
	}
	start("links", mesh.Run)
	start("control socket", func(ctx context.Context) error { return api.Serve(ctx, socket, control) })
	start("autoreload", func(ctx context.Context) error { return edits.Run(ctx, node) })
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	start("watchdog", func(ctx context.Context) error { feed(ctx, node.Turning); return nil })
	logger.Info("keepbeat runs", "version", version, "node", local.Name, "cluster", local.Cluster, "boot", fmt.Sprintf("%016x", uint64(boot)))
	notify(daemon.SdNotifyReady, logger)
	clean, err := wait(again, cancel, done, failed)
	background.Wait() // the guard's loop would put back what is cleared
	if errors.Is(err, cluster.ErrRejoin) {
		logger.Warn("starting again as an empty node of the other one's generation")
		return rejoin(dog)
	}
	if !clean || err != nil {
		return err // the watchdog, if there is one, runs on: this was no clean stop
	}
	if director && cfg.Guard != nil {
		err = guard.Clear(context.Background(), guard.Config{Logger: logger})
	}
	return errors.Join(err, disarm(dog))
}

// devicesTime bounds the look at the programs of fencing devices.
const devicesTime = 30 * time.Second

// checkDevices asks the programs that operate fencing devices from this node what they
// think of their parameters; nothing is fenced. The error has a line for each fault.
func checkDevices(f *conf.Fencing, local *conf.Local, warn func(string)) error {
	ctx, cancel := context.WithTimeout(context.Background(), devicesTime)
	defer cancel()
	var errs []error
	for _, p := range fencing.Validate(ctx, fencing.Config{Node: local.Name, Nodes: local.Nodes, Pair: local.Quorum == conf.QuorumFencing}, f) {
		if p.Warning {
			warn("fencing: " + p.String())
			continue
		}
		errs = append(errs, errors.New("fencing: "+p.String()))
	}
	return errors.Join(errs...)
}

// disarm stops the watchdog at a clean stop.
func disarm(dog *watchdog.Watchdog) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := dog.Disarm(ctx)
	if errors.Is(err, watchdog.ErrStarved) {
		select {} // the machine is about to be reset; the end of this process would feed the device once more
	}
	return err
}

// watchdogDevice is the device of a director: a witness runs nothing that would need it.
func watchdogDevice(local *conf.Local, director bool) string {
	if !director {
		return ""
	}
	return local.Watchdog.Device
}

// keysFor returns the keys as links and streams want them: these with the active one first.
func keysFor(keys []conf.Key, active int) (links []link.Key, secrets [][]byte) {
	for _, k := range keys {
		links = append(links, link.Key{Index: k.Index, Secret: k.Secret.Bytes()})
		if k.Index == active {
			secrets = append([][]byte{k.Secret.Bytes()}, secrets...)
		} else {
			secrets = append(secrets, k.Secret.Bytes())
		}
	}
	return links, secrets
}

func isDirector(local *conf.Local) bool {
	for _, n := range local.Nodes {
		if n.Name == local.Name {
			return n.Role == conf.Director
		}
	}
	return false
}

// wait runs until a signal or a failure, and ends the daemon; clean says that nothing runs any more.
func wait(again *reexecutor, cancel context.CancelFunc, done, failed chan error) (clean bool, err error) {
	node, logger := again.node, again.logger
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	defer signal.Stop(signals)
	for {
		select {
		case err := <-done:
			cancel()
			return false, err
		case err := <-failed:
			cancel()
			return false, errors.Join(err, <-done)
		case s := <-signals:
			if s == unix.SIGHUP {
				go again.restart()
				continue
			}
			logger.Info("stopping: handing over first", "signal", s.String())
			notify(daemon.SdNotifyStopping, logger)
			err := handOver(node, signals, logger)
			cancel()
			return err == nil, errors.Join(err, <-done)
		}
	}
}

// handOver stops the node cleanly. A second signal ends the wait for others;
// what runs here is stopped in any case.
func handOver(node *cluster.Node, signals <-chan os.Signal, logger *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-signals:
				if s != unix.SIGHUP {
					logger.Warn("a second signal: not waiting for the others any more", "signal", s.String())
					cancel()
					return
				}
			}
		}
	}()
	return node.Stop(ctx)
}

func notify(state string, logger *slog.Logger) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		logger.Warn("systemd was not notified", "err", err)
	}
}

// feed tells systemd's watchdog, if there is one, that the loops turn: turning says
// whether nothing is later than it is told.
func feed(ctx context.Context, turning func(time.Duration) bool) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every <= 0 {
		return
	}
	tick := time.NewTicker(every / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if turning(every / 2) {
				_, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog) // the next one says the same
			}
		}
	}
}

// release takes back what a daemon that died left on this machine.
func release(configPath string, logger *slog.Logger) error {
	local, _, err := conf.LoadLocal(configPath)
	if err != nil {
		return err
	}
	if c, err := net.Dial("unix", filepath.Join(local.RunDir, api.SocketName)); err == nil {
		c.Close()
		return errors.New("keepbeat runs on this machine; use `systemctl stop keepbeat` or `keepbeat standby`")
	}
	a := newAgents(local, logger)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	err = resources.Release(ctx, journal(local), a.registry, local.Name, logger)
	if err = errors.Join(err, a.close()); err != nil {
		return fmt.Errorf("%w; the guard stays up and keeps what is left silent", err)
	}
	return guard.Clear(ctx, guard.Config{Logger: logger})
}
