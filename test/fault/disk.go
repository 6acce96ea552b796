package fault

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/uml"
)

// diskKinds are what happens to data directories.
func diskKinds() []kind {
	return []kind{
		{name: "a full disk", draw: func(a *arena, r *rand.Rand) plan {
			h, last := a.pick(r), a.long(r)
			p := plan{what: fmt.Sprintf("the disk of %s full for %v", h.Name, last.Round(time.Millisecond)), uses: []string{h.Name}}
			filler := h.Path(dataDir + "/filler")
			p.at(0, "the disk of "+h.Name+" is full", func() { a.fill(filler) })
			if r.IntN(2) == 0 {
				p.at(last/2, "the daemon on "+h.Name+" is killed meanwhile", func() { a.kill(h) })
			}
			p.at(last, "there is room again", func() {
				if err := os.Remove(filler); err != nil {
					a.t.Fatalf("%v", err)
				}
			})
			return p
		}},
		{name: "a read-only data directory", draw: func(a *arena, r *rand.Rand) plan {
			h, last := a.pick(r), a.long(r)
			p := plan{what: fmt.Sprintf("the data directory of %s read-only for %v", h.Name, last.Round(time.Millisecond)), uses: []string{h.Name}}
			// The kernel makes no file system read-only while a file is open for writing.
			p.at(0, "the daemon on "+h.Name+" is killed, its data directory read-only", func() {
				a.kill(h)
				a.remount(h, "ro")
			})
			p.at(last, "it is writable again", func() { a.remount(h, "rw") })
			return p
		}},
		{name: "a lost disk", draw: func(a *arena, r *rand.Rand) plan {
			h := a.pick(r)
			p := plan{what: h.Name + " loses power and its disk", uses: a.names()} // of a majority that dies none may lose its disk
			p.at(0, p.what, func() {
				a.kept[h] = true
				h.Die()
				a.emptyDisk(h)
			})
			p.at(a.long(r), "it has power and an empty disk", func() { a.switchOn(h); a.kept[h] = false })
			return p
		}},
		damaging("a damaged log", "raft/raft.db"),
		damaging("damaged promises", "promises.json"),
		damaging("a damaged identity", "uuid"),
		{name: "a damaged journal", draw: func(a *arena, r *rand.Rand) plan {
			h := a.owner()
			p := plan{what: "the journal of " + h.Name + " damaged while its daemon is dead", uses: []string{h.Name}}
			p.at(0, p.what, func() {
				a.kill(h)
				if h.Dead() { // the journal with it
					return
				}
				// Its /run is the host's own.
				err := h.Do(func() error {
					files, err := filepath.Glob("/run/keepbeat/journal/*.json")
					if err != nil || len(files) == 0 {
						return err
					}
					return flip(r, files[0], one(r, 1, 1, 8))
				})
				if err != nil && !h.Dead() {
					a.t.Fatalf("%s: %v", h.Name, err)
				}
			})
			return p
		}},
	}
}

// damaging flips bits of a file of the data directory while the daemon is dead.
func damaging(name, file string) kind {
	return kind{name: name, draw: func(a *arena, r *rand.Rand) plan {
		h, bits := a.pick(r), one(r, 1, 1, 8, 64)
		p := plan{what: fmt.Sprintf("%d bits of %s on %s flipped while its daemon is dead", bits, file, h.Name), uses: a.names()}
		p.at(0, p.what, func() {
			a.kill(h)
			if err := flip(r, h.Path(filepath.Join(dataDir, file)), bits); err != nil {
				a.t.Fatalf("%s: %v", h.Name, err)
			}
		})
		// Long enough for the daemon to start on it, or to say why it does not.
		p.at(time.Second, "", func() {})
		return p
	}}
}

// flip flips bits at random. Where a file is mostly zeroes, as a bolt file is, it
// chooses among the bytes that are none: those hold something.
func flip(r *rand.Rand, path string, bits int) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var some []int
	for i, c := range b {
		if c != 0 {
			some = append(some, i)
		}
	}
	if len(some) == 0 {
		return fmt.Errorf("%s is empty", path)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	for range bits {
		i := some[r.IntN(len(some))]
		b[i] ^= 1 << r.IntN(8)
		if _, err := f.WriteAt(b[i:i+1], int64(i)); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}

const dataDir = "/var/lib/keepbeat"

// diskSize is that of a data directory: enough for a session.
const diskSize = 64 << 20

// giveDisk gives a node's data directory a file system of its own, that can be
// full, read-only and, in the lab kernel, slow. It is mounted outside of the host,
// so that it outlives its death; this program has mounts of its own (see Main).
func (a *arena) giveDisk(h *lab.Host) {
	at := h.Path(dataDir)
	h.Die() // a host takes what is mounted there when it starts
	var err error
	disk := diskName(h)
	if uml.Inside() {
		err = newSlowDisk(disk, at)
	} else {
		err = unix.Mount("tmpfs", at, "tmpfs", 0, fmt.Sprintf("size=%d,mode=700", diskSize))
	}
	if err != nil {
		a.t.Fatalf("the disk of %s: %v", h.Name, err)
	}
	a.addDisk(h, disk)
	h.Revive()
}

// diskName is another one each time: the device of an earlier cluster's node may still be held.
func diskName(h *lab.Host) string { return fmt.Sprintf("%s-%d", h.Name, probe.Now()) }

// addDisk notes what is now mounted as a node's data directory, until the test ends.
func (a *arena) addDisk(h *lab.Host, disk string) {
	at := h.Path(dataDir)
	a.disks[h] = disk
	a.t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			a.t.Logf("the disk of %s: %v", h.Name, err)
		}
		if uml.Inside() {
			removeSlowDisk(disk)
		}
	})
}

// fill writes a file until there is no room for more.
func (a *arena) fill(path string) {
	f, err := os.Create(path)
	if err != nil {
		a.t.Fatalf("%v", err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				a.t.Fatalf("%v", err)
			}
			size /= 4
		}
	}
}

// remount makes a data directory's file system "ro" or "rw": the file system, and
// not where it is mounted, since a host that starts meanwhile has a copy of that.
func (a *arena) remount(h *lab.Host, flag string) {
	err := func() error {
		fd, err := unix.Fspick(unix.AT_FDCWD, h.Path(dataDir), unix.FSPICK_CLOEXEC)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.FsconfigSetFlag(fd, flag); err != nil {
			return err
		}
		for range 100 { // the killed daemon's last files may just be closing
			if err = unix.FsconfigReconfigure(fd); !errors.Is(err, unix.EBUSY) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		return err
	}()
	if err != nil {
		a.t.Fatalf("the disk of %s %s: %v", h.Name, flag, err)
	}
}

// tidy removes edits that nobody applied: thousands of them collect in a long session.
func (a *arena) tidy() {
	for _, h := range a.nodes {
		files, err := filepath.Glob(h.Path("/etc/keepbeat/*.unapplied-*"))
		if err != nil {
			a.t.Fatalf("%v", err)
		}
		discarded, err := filepath.Glob(h.Path(dataDir + "/raft.discarded-*"))
		if err != nil {
			a.t.Fatalf("%v", err)
		}
		for _, f := range slices.Concat(files, discarded) {
			if err := os.RemoveAll(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
				a.note("%v", err)
			}
		}
	}
}

// firstLine is the first line of what a program said.
func firstLine(b []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return line
}
