package realserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

// Store is what stands on disk: who wants which address, and what was changed
// for it. It holds for one run of the kernel, since nothing of it survives a boot.
type Store struct {
	Version   int      `json:"version"`
	Boot      string   `json:"boot"` // /proc/sys/kernel/random/boot_id
	Addresses []Holder `json:"addresses"`
	Done      []Done   `json:"done"` // in the order in which it was made
}

// Holder is an address and who has started it: "command", or a resource of the cluster.
type Holder struct {
	Address conf.RealServer `json:"address"`
	By      []string        `json:"by"`
}

// Done is a step that was made, or was about to be when the program ended.
type Done struct {
	Kind   Kind   `json:"kind"`
	Name   string `json:"name"`
	Value  string `json:"value,omitempty"`
	Before string `json:"before,omitempty"` // value of a sysctl that was found
}

func (d Done) step() Step { return Step{d.Kind, d.Name, d.Value} }

const storeVersion = 1

// maxStore bounds the file; an address takes some 200 bytes.
const maxStore = 8 << 20

// wanted are the addresses that somebody holds.
func (s *Store) wanted() []conf.RealServer {
	var all []conf.RealServer
	for _, h := range s.Addresses {
		all = append(all, h.Address)
	}
	return all
}

func (s *Store) clone() Store {
	c := *s
	c.Done = slices.Clone(s.Done)
	c.Addresses = nil
	for _, h := range s.Addresses {
		c.Addresses = append(c.Addresses, Holder{h.Address, slices.Clone(h.By)})
	}
	return c
}

// hold adds a holder of addresses.
func (s *Store) hold(by string, addresses []conf.RealServer) error {
	for _, a := range addresses {
		i := slices.IndexFunc(s.Addresses, func(h Holder) bool { return h.Address.Address == a.Address })
		switch {
		case i < 0:
			s.Addresses = append(s.Addresses, Holder{a, []string{by}})
		case s.Addresses[i].Address.Forward != a.Forward:
			return fmt.Errorf("virtual address %v is set up for forward method %v already, by %s; stop it there first", a.Address, s.Addresses[i].Address.Forward, s.Addresses[i].By[0])
		case !slices.Contains(s.Addresses[i].By, by):
			s.Addresses[i].By = append(s.Addresses[i].By, by)
		}
	}
	return nil
}

// let takes a holder of addresses away; without addresses, of all that it holds.
func (s *Store) let(by string, addresses []conf.RealServer) {
	for i := range s.Addresses {
		h := &s.Addresses[i]
		if len(addresses) == 0 || slices.ContainsFunc(addresses, func(a conf.RealServer) bool { return a.Address == h.Address.Address }) {
			h.By = slices.DeleteFunc(h.By, func(x string) bool { return x == by })
		}
	}
	s.Addresses = slices.DeleteFunc(s.Addresses, func(h Holder) bool { return len(h.By) == 0 })
}

// parseStore reads a store; one of an earlier boot is an empty one.
func parseStore(b []byte, boot string) (Store, error) {
	var s Store
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return Store{}, err
	}
	if _, err := d.Token(); err != io.EOF {
		return Store{}, errors.New("something follows it")
	}
	if s.Version != storeVersion {
		return Store{}, fmt.Errorf("version %d, and this program knows %d", s.Version, storeVersion)
	}
	if s.Boot != boot {
		return Store{Version: storeVersion, Boot: boot}, nil
	}
	for _, h := range s.Addresses {
		if err := Check(h.Address); err != nil {
			return Store{}, err
		}
		if len(h.By) == 0 {
			return Store{}, fmt.Errorf("nobody holds %v", h.Address.Address)
		}
	}
	// What is put back is written into the kernel: nothing but what a step can name.
	for _, x := range s.Done {
		if !known(x.step()) {
			return Store{}, fmt.Errorf("unknown step %q", x.step().String())
		}
	}
	return s, nil
}

// known tells whether a step is one that Steps can return.
func known(s Step) bool {
	if s.Kind == Address {
		p, err := netip.ParsePrefix(s.Name)
		return err == nil && slices.ContainsFunc([]conf.Forward{conf.Gate, conf.IPIP}, func(f conf.Forward) bool {
			a := conf.RealServer{Address: p.Addr(), Forward: f}
			return Check(a) == nil && slices.Contains(Steps(a), s)
		})
	}
	return slices.ContainsFunc([]string{"192.0.2.1", "2001:db8::1"}, func(any string) bool {
		return slices.Contains(Steps(conf.RealServer{Address: netip.MustParseAddr(any), Forward: conf.IPIP}), s)
	})
}

// storeFile is the store's file, locked against another keepbeat that starts or stops.
type storeFile struct {
	path string
	lock *os.File
}

// A start or a stop takes far less than a second, and may load a module.
const (
	lockWait  = modprobeTime + 5*time.Second
	lockPause = 50 * time.Millisecond
)

// openStore locks the store of a directory and reads it.
func openStore(dir, boot string) (*storeFile, Store, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, Store{}, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "realserver.lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, Store{}, err
	}
	f := &storeFile{path: filepath.Join(dir, "realserver.json"), lock: lock}
	for end := time.Now().Add(lockWait); ; time.Sleep(lockPause) {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EINTR && err != unix.EWOULDBLOCK || time.Now().After(end) {
			break
		}
	}
	switch {
	case err == unix.EWOULDBLOCK:
		lock.Close()
		return nil, Store{}, fmt.Errorf("another keepbeat has held %s for %v; see what it waits for (fuser %s)", lock.Name(), lockWait, lock.Name())
	case err != nil:
		lock.Close()
		return nil, Store{}, fmt.Errorf("%s: %w", lock.Name(), err)
	}
	s, err := f.read(boot)
	if err != nil {
		lock.Close()
		return nil, Store{}, fmt.Errorf("%s: %w; it says what has to be put back: mend it, or put the machine right by hand and remove it", f.path, err)
	}
	return f, s, nil
}

func (f *storeFile) read(boot string) (Store, error) {
	in, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return Store{Version: storeVersion, Boot: boot}, nil
	}
	if err != nil {
		return Store{}, err
	}
	defer in.Close()
	b, err := io.ReadAll(io.LimitReader(in, maxStore+1))
	if err != nil {
		return Store{}, err
	}
	if len(b) > maxStore {
		return Store{}, fmt.Errorf("more than %d bytes", maxStore)
	}
	return parseStore(b, boot)
}

// write replaces the file; afterwards it is on the disk.
func (f *storeFile) write(s Store) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return replace(f.path, append(b, '\n'))
}

func (f *storeFile) close() { f.lock.Close() }

// replace writes a file so that at any time it is the old or the new one.
func replace(path string, b []byte) error {
	tmp := path + ".new"
	out, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = out.Write(b)
	if err == nil {
		err = out.Sync()
	}
	if e := out.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
