package main

import (
	"context"
	"errors"
	"time"
)

// Idle is what a program takes when no check is due: a part of cpu_percent that
// has nothing to do with the number of checks.
type Idle struct {
	Servers int     `json:"servers"`
	Seconds float64 `json:"seconds"`
	Checks  int     `json:"checks"` // that were made all the same
	CPU     float64 `json:"cpu_percent"`
	PSS     float64 `json:"pss_mib"`
}

const (
	idleServers  = 10
	idleInterval = time.Hour
	idleStart    = 3 * time.Second // what a program does at its start is over
)

// idle watches a program whose servers are checked once an hour.
func (s checkSystem) idle(ctx context.Context, run checkRun) (i *Idle, err error) {
	servers, err := startServers()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, servers.stop()) }()
	table, err := watchTable(ctx, newWatched(idleServers), run.kernel)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, table.close()) }()
	p, err := s.start(table, idleServers, servers.port, idleInterval)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	look := func() (u treeUsage, n int, at time.Time, err error) {
		if err = p.alive(); err != nil {
			return
		}
		if n, err = servers.answered(); err == nil {
			u, err = usageOfTree(p.cmd.Process.Pid)
		}
		return u, n, time.Now(), err
	}
	if err := sleep(ctx, idleStart); err != nil {
		return nil, err
	}
	before, nBefore, began, err := look()
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, run.watch); err != nil {
		return nil, err
	}
	after, n, at, err := look()
	if err != nil {
		return nil, err
	}
	took := at.Sub(began)
	i = &Idle{
		Servers: idleServers, Seconds: round(took.Seconds()), Checks: n - nBefore,
		CPU: round(100 * (after.cpu - before.cpu).Seconds() / took.Seconds()), PSS: round(float64(after.pss) / (1 << 20)),
	}
	say("%s, at rest: %.3f %% of a processor, %.1f MiB", s.name, i.CPU, i.PSS)
	return i, nil
}
