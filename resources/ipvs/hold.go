package ipvs

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/dirwatch"
)

// SetOrders tells the pool what operators have ordered for real servers, in
// every virtual service that has them; what is not in it is ordered no more. An
// order for port 0 is for every port of its address that has none of its own.
func (p *pool) SetOrders(orders map[netip.AddrPort]Order) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.orders
	p.orders = make(map[netip.AddrPort]Order, len(orders))
	for a, o := range orders {
		p.orders[plain(a)] = o
	}
	p.touch(func(r conf.Real) bool {
		was, _ := orderFor(old, plain(r.Address))
		is, _ := orderFor(p.orders, plain(r.Address))
		return was != is
	})
}

// touch marks the services that have a server of which changed is true. p.mu is held.
func (p *pool) touch(changed func(conf.Real) bool) {
	for _, v := range p.content.Virtuals {
		if slices.ContainsFunc(v.Reals, changed) || slices.ContainsFunc(v.Fallbacks, changed) {
			p.dirty[KeyOf(v)] = true
		}
	}
	if p.started {
		poke(p.wake)
	}
}

// orderFor finds the order for a server.
func orderFor(orders map[netip.AddrPort]Order, a netip.AddrPort) (Order, bool) {
	o, found := orders[a]
	if !found {
		o, found = orders[netip.AddrPortFrom(a.Addr(), 0)]
	}
	return o, found
}

// fileFor finds the file in maintenancedir that takes a server out; empty: none does.
func fileFor(files map[string]bool, r conf.Real) string {
	if len(files) == 0 {
		return ""
	}
	for _, name := range fileNames(r) {
		if files[name] {
			return name
		}
	}
	return ""
}

// fileNames are the files in maintenancedir that are about a server: its
// address or its name, whole or up to the first dot, each with the port or
// without. An IPv6 address may have its brackets, as in ldirectord.
func fileNames(r conf.Real) []string {
	a := plain(r.Address)
	port := ":" + strconv.Itoa(int(a.Port()))
	ip := a.Addr().String()
	names := []string{a.String(), ip}
	if a.Addr().Is6() {
		names = append(names, "["+ip+"]")
	}
	if host := strings.ToLower(r.Host); host != "" {
		names = append(names, host+port, host)
		if short, _, long := strings.Cut(host, "."); long && short != "" {
			names = append(names, short+port, short)
		}
	}
	return names
}

const (
	// maxFiles bounds how much of maintenancedir is read: no director has as
	// many servers, so that somebody fills it for another reason.
	maxFiles = 200_000
	// dirRetry is how long a directory that cannot be watched is left alone.
	dirRetry = 2 * time.Second
)

// maintain follows maintenancedir until ctx ends. One that is not there yet is
// waited for; while it is not, nothing is held down by it.
func (p *pool) maintain(ctx context.Context) {
	for ctx.Err() == nil {
		dir := p.maintenanceDir()
		if dir == "" {
			p.setFiles(nil, "")
			p.pause(ctx, dir, never)
			continue
		}
		wctx, cancel := context.WithCancel(ctx)
		ended, changed := make(chan error, 1), make(chan struct{}, 1)
		go func() {
			ended <- dirwatch.Notify(wctx, dir, func(name string) {
				if name == "" || p.isOurs(name) {
					poke(changed)
				}
			})
		}()
		var err error
	watch:
		for {
			select {
			case err = <-ended:
				break watch
			case <-changed:
				p.readDir(dir)
			case <-p.moved: // an update may have named another directory, and other servers
				if p.maintenanceDir() != dir {
					cancel()
				} else {
					p.readDir(dir)
				}
			}
		}
		cancel()
		if ctx.Err() != nil || p.maintenanceDir() != dir {
			continue
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, dirwatch.ErrGone) {
			p.setFiles(nil, "maintenancedir "+dir+" is not there; it is waited for")
		} else {
			p.blinded("maintenancedir cannot be watched: " + err.Error())
		}
		p.pause(ctx, dir, dirRetry)
	}
}

// pause waits for a while, or for another directory.
func (p *pool) pause(ctx context.Context, dir string, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	for p.maintenanceDir() == dir {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			return
		case <-p.moved:
		}
	}
}

func (p *pool) maintenanceDir() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.content.MaintenanceDir
}

// readDir takes over which files are there. A directory that cannot be read
// changes nothing: a server in maintenance must not come back by that.
func (p *pool) readDir(dir string) {
	p.mu.Lock()
	ours := p.names
	p.mu.Unlock()
	f, err := os.Open(dir)
	if err != nil {
		p.blinded("maintenancedir cannot be read: " + err.Error())
		return
	}
	defer f.Close()
	files, note := map[string]bool{}, ""
	for n := 0; ; {
		names, err := f.Readdirnames(1000)
		for _, name := range names {
			if name = strings.ToLower(name); ours[name] {
				files[name] = true
			}
		}
		if n += len(names); n > maxFiles {
			note = "maintenancedir " + dir + " has more than " + strconv.Itoa(maxFiles) + " files; not all of them were looked at"
			break
		}
		if err != nil { // io.EOF, too
			break
		}
	}
	p.setFiles(files, note)
}

// namesOf are the names of files in maintenancedir that are about servers of a pool.
func namesOf(c conf.Pool) map[string]bool {
	all := map[string]bool{}
	if c.MaintenanceDir == "" {
		return all
	}
	for _, v := range c.Virtuals {
		for _, r := range slices.Concat(v.Reals, v.Fallbacks) {
			for _, name := range fileNames(r) {
				all[name] = true
			}
		}
	}
	return all
}

// isOurs tells whether a file is about one of our servers: others may come and
// go in the directory as fast as they like.
func (p *pool) isOurs(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.names[strings.ToLower(name)]
}

// setFiles takes over the names that are about our servers.
func (p *pool) setFiles(files map[string]bool, note string) {
	p.blinded(note)
	p.mu.Lock()
	defer p.mu.Unlock()
	if maps.Equal(p.files, files) {
		return
	}
	old := p.files
	p.files = files
	p.touch(func(r conf.Real) bool { return fileFor(old, r) != fileFor(files, r) })
}

// blinded notes why maintenancedir is not seen, and says it once.
func (p *pool) blinded(note string) {
	p.mu.Lock()
	said := p.blind == note
	p.blind = note
	p.mu.Unlock()
	if note != "" && !said {
		p.log.Warn(note)
	}
}
