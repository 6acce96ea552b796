package netdev

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/rtnl"
)

const journalVersion = 1

// record is what is written down of an instance before the kernel is asked for
// it: what a run that was killed has left.
type record struct {
	Version  int    `json:"version"`
	Boot     string `json:"boot"` // of the kernel: after a start of the machine nothing is left
	Instance string `json:"instance"`

	Addresses []recordedAddress `json:"addresses,omitempty"`
	Routes    []conf.VRRPRoute  `json:"routes,omitempty"`
	Rules     []rule            `json:"rules,omitempty"`
	VMAC      *recordedVMAC     `json:"vmac,omitempty"`
	Sysctls   []recordedSysctl  `json:"sysctls,omitempty"`
}

type recordedAddress struct {
	Interface string       `json:"interface"`
	Address   netip.Prefix `json:"address"`
}

// recordedVMAC is a macvlan that we have made.
type recordedVMAC struct {
	Name string `json:"name"`
	MAC  []byte `json:"mac"`
}

// recordedSysctl is a setting of an interface that is not ours.
type recordedSysctl struct {
	Name   string `json:"name"`
	Before string `json:"before"`
	Set    string `json:"set"`
}

func (r *record) empty() bool {
	return len(r.Addresses)+len(r.Routes)+len(r.Rules)+len(r.Sysctls) == 0 && r.VMAC == nil
}

// journal is a file for each instance in the run directory.
type journal struct {
	dir  string // empty: none is kept
	boot string

	mu      *sync.Mutex // guards records; held while a file is written. Taken after Host.mu
	records map[string]*record
}

func openJournal(runDir string) (journal, error) {
	j := journal{mu: &sync.Mutex{}, records: map[string]*record{}}
	if runDir == "" {
		return j, nil
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return j, fmt.Errorf("journal: %w", err)
	}
	j.boot, j.dir = strings.TrimSpace(string(boot)), filepath.Join(runDir, "vrrp")
	if err := os.MkdirAll(j.dir, 0o700); err != nil {
		return j, fmt.Errorf("journal: %w", err)
	}
	return j, nil
}

// path is the file of an instance, whatever its name.
func (j *journal) path(instance string) string {
	return filepath.Join(j.dir, "i-"+url.PathEscape(instance)+".json")
}

// update changes the record of an instance. It is in the run directory's memory
// when it returns, which outlives the process; a machine that loses power starts
// without what is recorded.
func (j *journal) update(instance string, change func(*record)) error {
	if j.dir == "" {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	r := j.records[instance]
	if r == nil {
		r = &record{Version: journalVersion, Boot: j.boot, Instance: instance}
		j.records[instance] = r
	}
	change(r)
	path := j.path(instance)
	if r.empty() {
		delete(j.records, instance)
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("journal: %w", err)
		}
		return nil
	}
	b, err := json.Marshal(r)
	if err == nil {
		err = os.WriteFile(path+".new", b, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// parseRecord reads a record.
func parseRecord(b []byte) (record, error) {
	var r record
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return record{}, fmt.Errorf("journal: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return record{}, errors.New("journal: data after the end")
	}
	if r.Version != journalVersion {
		return record{}, fmt.Errorf("journal: version %d, this program knows %d", r.Version, journalVersion)
	}
	for _, a := range r.Addresses {
		if !a.Address.IsValid() || a.Address.Addr().Is4In6() {
			return record{}, fmt.Errorf("journal: %s: no address", r.Instance)
		}
	}
	for _, o := range r.Routes {
		if !o.To.IsValid() {
			return record{}, fmt.Errorf("journal: %s: a route without destination", r.Instance)
		}
	}
	for _, o := range r.Sysctls {
		if !o.known() {
			return record{}, fmt.Errorf("journal: %s: %q is not a setting of an interface", r.Instance, o.Name)
		}
	}
	return r, nil
}

// clean takes back what an earlier run has left, and forgets its journal.
func (h *Host) clean() error {
	if err := h.drops.destroy(); err != nil {
		h.log.Warn("the packet filter of an earlier run could not be removed", "err", err)
	}
	var files []string
	if h.journal.dir != "" {
		var err error
		if files, err = filepath.Glob(filepath.Join(h.journal.dir, "i-*")); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err == nil && strings.HasSuffix(file, ".json") {
			var r record
			if r, err = parseRecord(b); err == nil && r.Boot == h.journal.boot {
				err = h.takeBack(&r)
			}
		}
		if err != nil {
			h.log.Error("what an earlier run has left could not all be removed", "file", file, "err", err)
		}
		_ = os.Remove(file) // the next run knows no more of it than this one
	}
	// What bears our mark is ours, journal or not.
	if err := h.view(); err != nil {
		return err
	}
	var all []rtnl.Address
	for _, a := range h.seen.addrs {
		if a.Proto == Mark {
			all = append(all, a)
		}
	}
	h.mu.Unlock()
	var p problems
	h.removeAddresses(all, &p)
	if len(all) > 0 {
		h.log.Warn("removed addresses that an earlier run had left", "count", len(all))
	}
	return p.err("addresses that an earlier run has left")
}

// takeBack undoes what a record says.
func (h *Host) takeBack(r *record) error {
	h.log.Warn("an earlier run has left its addresses, routes, rules or interfaces; they are removed", "instance", r.Instance)
	var p problems
	for _, o := range slices.Backward(r.Rules) {
		h.removeRule(o, &p)
	}
	for _, o := range slices.Backward(r.Routes) {
		h.removeRoute(o, 0, &p)
	}
	if err := h.view(); err != nil {
		return err
	}
	var all []rtnl.Address
	for _, o := range r.Addresses {
		if l, ok := h.seen.link(o.Interface); ok {
			a, there := h.seen.addrs[standing{l.Index, o.Address.Addr()}]
			if there && a.Prefix == o.Address && (a.Proto == Mark || !h.k.Marks) {
				all = append(all, a)
			}
		}
	}
	vmac := 0
	if r.VMAC != nil {
		if l, ok := h.seen.link(r.VMAC.Name); ok && l.Kind == "macvlan" && l.MAC == string(r.VMAC.MAC) {
			vmac = l.Index
		}
	}
	h.mu.Unlock()
	h.removeAddresses(all, &p)
	if vmac != 0 {
		if err := h.k.Do(rtnl.RemoveLink(vmac)); err != nil && !errors.Is(err, unix.ENODEV) {
			p.add("removing %s: %w", r.VMAC.Name, err)
		}
	}
	for _, o := range r.Sysctls {
		h.restore(o)
	}
	return p.err(title(&conf.VRRPInstance{Name: r.Instance}))
}
