package fault

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/test/lab"
)

// kernelKinds are those for the lab kernel: what this machine's may not have
// (netem, dm-delay, dm-flakey), and its clock, which is not ours to set.
func kernelKinds() []kind {
	return []kind{
		{name: "delay and jitter", kernel: true, draw: func(a *arena, r *rand.Rand) plan {
			delay := between(r, 5*time.Millisecond, a.lease/2)
			return a.netem(r, "delay", ms(delay), ms(delay/2))
		}},
		{name: "reordering and doubling", kernel: true, draw: func(a *arena, r *rand.Rand) plan {
			return a.netem(r, "delay", ms(between(r, 5*time.Millisecond, a.lease/4)), "reorder", fmt.Sprint(10+r.IntN(60), "%"), "50%", "duplicate", fmt.Sprint(1+r.IntN(30), "%"))
		}},
		{name: "bit errors on the wire", kernel: true, draw: func(a *arena, r *rand.Rand) plan {
			return a.netem(r, "corrupt", fmt.Sprint(1+r.IntN(30), "%"))
		}},
		{name: "the wall clock steps", kernel: true, draw: func(a *arena, r *rand.Rand) plan {
			p := plan{what: "the wall clock set back and forward"}
			for i := range 3 {
				by := one(r, -20*365*24*time.Hour, -time.Hour, -3*time.Second, 3*time.Second, time.Hour, 10*365*24*time.Hour)
				p.at(time.Duration(i)*between(r, time.Second, 2*time.Second), fmt.Sprintf("the wall clock is set by %v", by), func() { a.stepClock(by) })
			}
			return p
		}},
		{name: "slow fsync", kernel: true, draw: func(a *arena, r *rand.Rand) plan {
			h, delay := a.pick(r), between(r, 50*time.Millisecond, time.Second)
			return a.disk(r, h, fmt.Sprintf("every write to the disk of %s takes %v", h.Name, delay.Round(time.Millisecond)),
				func(dev string) string { return fmt.Sprintf("delay %s 0 0 %s 0 %d", dev, dev, delay.Milliseconds()) })
		}},
		{name: "a disk that fails", kernel: true, draw: func(a *arena, r *rand.Rand) plan {
			h := a.pick(r)
			p := a.disk(r, h, "every write to the disk of "+h.Name+" fails",
				func(dev string) string { return fmt.Sprintf("flakey %s 0 0 1000 1 error_writes", dev) })
			// The file system has gone read-only, and bolt may hold what it could not write:
			// the machine is started again, as it would be, and checks its disk.
			last := p.length()
			p.at(last+100*time.Millisecond, "the disk is well, and "+h.Name+" is switched off and on", func() {
				a.kept[h] = true
				if !h.Dead() {
					h.Die()
				}
				a.checkDisk(h)
				a.switchOn(h)
				a.kept[h] = false
			})
			return p
		}},
	}
}

func ms(d time.Duration) string { return fmt.Sprintf("%dms", max(d.Milliseconds(), 1)) }

// netem spoils what a node, or everybody, sends on the heartbeat links.
func (a *arena) netem(r *rand.Rand, args ...string) plan {
	hosts, who := a.nodes, "every node"
	if r.IntN(2) == 0 {
		h := a.pick(r)
		hosts, who = []*lab.Host{h}, h.Name
	}
	last := a.lease + between(r, 0, 2*a.lease)
	p := plan{what: fmt.Sprintf("what %s sends on both heartbeat links: %s, for %v", who, strings.Join(args, " "), last.Round(time.Millisecond))}
	for _, h := range hosts {
		p.uses = append(p.uses, h.Name) // a death would take the discipline away
	}
	each := func(do string, args ...string) {
		for _, h := range hosts {
			for _, dev := range []string{"eth1", "eth2"} {
				if h.Dead() { // fenced: the discipline is gone with it
					continue
				}
				if out, err := h.Try(append([]string{"tc", "qdisc", do, "dev", dev, "root"}, args...)...); err != nil {
					a.note("%s: tc qdisc %s dev %s: %v: %s", h.Name, do, dev, err, strings.TrimSpace(out))
					if do == "add" && !h.Dead() {
						a.t.Fatalf("netem: %s: %v: %s", h.Name, err, out)
					}
				}
			}
		}
	}
	p.at(0, p.what, func() { each("add", append([]string{"netem"}, args...)...) })
	p.at(last, "the links are as before", func() { each("del") })
	return p
}

// stepClock sets the lab kernel's wall clock: one for all nodes. Never this machine's: kind.kernel.
func (a *arena) stepClock(by time.Duration) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_REALTIME, &ts)
	if err == nil {
		// Not before 1971: the kernel refuses to set what lies before its own start.
		ts = unix.NsecToTimespec(max(ts.Nano()+by.Nanoseconds(), int64(365*24*time.Hour)))
		err = unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
	}
	if err != nil {
		a.t.Fatalf("setting the lab kernel's clock: %v", err)
	}
}

// disk puts another target under a node's file system for a while.
func (a *arena) disk(r *rand.Rand, h *lab.Host, what string, target func(device string) string) plan {
	last := a.lease + between(r, 0, 2*a.lease)
	p := plan{what: fmt.Sprintf("%s, for %v", what, last.Round(time.Millisecond)), uses: []string{h.Name}}
	set := func(target string) {
		if err := setTarget(a.disks[h], target); err != nil {
			a.t.Fatalf("the disk of %s: %v", h.Name, err)
		}
	}
	p.at(0, what, func() { set(target(loopOf(a.disks[h]))) })
	p.at(last, "the disk of "+h.Name+" is well", func() { set("linear " + loopOf(a.disks[h]) + " 0") })
	return p
}

// A slow disk is a file in the lab kernel's memory, a loop device on it, a device
// mapper target on that, and ext4 on top.
const (
	slowDiskMiB = 48
	sectors     = slowDiskMiB << 11
)

func imageOf(disk string) string  { return "/tmp/keepbeat-disk-" + disk }
func mapperOf(disk string) string { return "keepbeat-" + disk }

func loopOf(disk string) string {
	out, err := exec.Command("losetup", "-j", imageOf(disk), "-n", "-O", "NAME").Output()
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(out))
}

func run(input string, args ...string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Env = append(os.Environ(), "DM_DISABLE_UDEV=1") // nobody else makes device nodes there
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// newSlowDisk makes a disk for a file system yet to be made, and mounts it.
func newSlowDisk(disk, at string) error {
	image := imageOf(disk)
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(image, slowDiskMiB<<20); err != nil {
		return err
	}
	if err := attachSlowDisk(disk); err != nil {
		return err
	}
	if err := run("", "mkfs.ext4", "-q", "-E", "lazy_itable_init=1,nodiscard", "-e", "remount-ro", "/dev/mapper/"+mapperOf(disk)); err != nil {
		return err
	}
	return unix.Mount("/dev/mapper/"+mapperOf(disk), at, "ext4", 0, "")
}

// attachSlowDisk makes a device of a disk's image.
func attachSlowDisk(disk string) error {
	if err := run("", "losetup", "-f", imageOf(disk)); err != nil {
		return err
	}
	return run(fmt.Sprintf("0 %d linear %s 0\n", sectors, loopOf(disk)), "dmsetup", "create", mapperOf(disk))
}

func removeSlowDisk(disk string) {
	loop := loopOf(disk)
	// The kernel ends with the test: what cannot be removed goes with it.
	_ = run("", "dmsetup", "remove", "--force", mapperOf(disk))
	_ = run("", "losetup", "-d", loop)
	_ = os.Remove(imageOf(disk))
}

// setTarget exchanges the target under a mounted file system.
func setTarget(disk, target string) error {
	dm := mapperOf(disk)
	if err := run(fmt.Sprintf("0 %d %s\n", sectors, target), "dmsetup", "reload", dm); err != nil {
		return err
	}
	// Without a flush of what waits: that may take for ever on a target that delays or fails.
	if err := run("", "dmsetup", "suspend", "--nolockfs", dm); err != nil {
		return err
	}
	return run("", "dmsetup", "resume", dm)
}

// checkDisk gives a dead node its disk as a machine finds it that is switched on:
// without what was in memory, and checked. It is a copy of the image, since other
// hosts' mount namespaces hold on to the old one.
func (a *arena) checkDisk(h *lab.Host) {
	old := a.disks[h]
	disk := diskName(h)
	err := run("", "cp", "--sparse=always", imageOf(old), imageOf(disk))
	if err == nil {
		err = attachSlowDisk(disk)
	}
	dev := "/dev/mapper/" + mapperOf(disk)
	if err == nil {
		// Status 1 is "repaired".
		if e := run("", "e2fsck", "-p", dev); e != nil && !strings.Contains(e.Error(), "exit status 1:") {
			err = e
		}
	}
	if err == nil {
		err = unix.Mount(dev, h.Path(dataDir), "ext4", 0, "")
	}
	if err != nil {
		a.t.Fatalf("the disk of %s: %v", h.Name, err)
	}
	a.addDisk(h, disk)
}
