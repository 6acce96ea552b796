package ipvs

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// ErrNoIPVS is the error of a kernel without IPVS.
var ErrNoIPVS = errors.New("this kernel has no IPVS (module ip_vs): load it with `modprobe ip_vs`, or boot a kernel that has it")

// client speaks the IPVS family over one socket. One goroutine uses it. After
// an error of one of its methods it is not used any more: answers may be
// outstanding.
type client struct {
	conn   conn
	family uint16
	seq    uint32
	stop   func() error // asked between the parts of a long call

	tunnels support // of tunnels other than IPIP
}

// open finds the number that the kernel gave the family. Without it requests
// would go to nobody, and be acknowledged.
func (c *client) open() error {
	c.seq++
	c.family = 0
	if err := c.conn.send(encodeGetFamily(c.seq)); err != nil {
		return fmt.Errorf("asking the kernel for IPVS: %w", err)
	}
	return c.answers(func(r reply) (bool, error) {
		if r.seq != c.seq {
			return false, nil
		}
		if r.kind == unix.NLMSG_ERROR {
			errno, _, err := r.errno()
			switch {
			case err != nil:
				return true, err
			case errno == unix.ENOENT:
				return true, ErrNoIPVS
			case errno != 0:
				return true, fmt.Errorf("asking the kernel for IPVS: %w", errno)
			case c.family == 0:
				return true, fmt.Errorf("%w: no family id", errMalformed)
			}
			return true, nil
		}
		id, err := decodeFamily(r.payload)
		c.family = id
		return err != nil, err
	})
}

// answers calls f for each message from the kernel until f is done.
func (c *client) answers(f func(reply) (done bool, err error)) error {
	for {
		b, err := c.conn.receive()
		if err != nil {
			return fmt.Errorf("waiting for the kernel: %w", err)
		}
		rs, err := replies(b)
		if err != nil {
			return err
		}
		finished := false
		for _, r := range rs {
			done, err := f(r)
			if err != nil {
				return err
			}
			finished = finished || done
		}
		if finished {
			return nil
		}
	}
}

// batch is how many operations go into one datagram. Only refusals and the
// last one are answered, so at most so many answers (768 bytes of the
// receive buffer each) wait to be read: less than the default buffer of 208 KiB.
const batch = 128

func (c *client) apply(ops []Op) ([]Refused, error) {
	var refused []Refused
	for len(ops) > 0 {
		if err := c.stop(); err != nil {
			return refused, err
		}
		do, n := c.applyPart, min(len(ops), batch)
		if c.tunnels != supported {
			if i := slices.IndexFunc(ops[:n], needsTunnel); i == 0 {
				do, n = c.applyTunnel, 1
			} else if i > 0 {
				n = i
			}
		}
		some, err := do(ops[:n])
		refused = append(refused, some...)
		if err != nil {
			return refused, err
		}
		ops = ops[n:]
	}
	return refused, nil
}

// applyPart does at most batch operations with one datagram.
func (c *client) applyPart(part []Op) ([]Refused, error) {
	first, last := c.seq+1, uint32(len(part)-1)
	var b []byte
	for i, op := range part {
		c.seq++
		var flags uint16
		if i == len(part)-1 {
			flags = unix.NLM_F_ACK
		}
		m, err := encode(c.family, flags, c.seq, op)
		if err != nil {
			return nil, err
		}
		b = append(b, m...) // each a multiple of four bytes long
	}
	if err := c.conn.send(b); err != nil {
		return nil, fmt.Errorf("sending %d changes to IPVS: %w", len(part), err)
	}
	var refused []Refused
	err := c.answers(func(r reply) (bool, error) {
		at := r.seq - first
		if at > last || r.kind != unix.NLMSG_ERROR {
			return false, nil
		}
		errno, words, err := r.errno()
		if err != nil {
			return true, err
		}
		if errno != 0 {
			refused = append(refused, Refused{part[at], refusal(part[at], errno, words)})
		}
		return at == last, nil
	})
	return refused, err
}

// refusal puts the kernel's number into words, with the way out where one is known.
func refusal(op Op, errno unix.Errno, words string) error {
	hint := words
	switch {
	case hint != "":
	case errno == unix.EPERM:
		hint = "CAP_NET_ADMIN is needed"
	case errno == unix.ENOENT && (op.Verb == AddService || op.Verb == EditService) && op.Service.PE != "":
		hint = fmt.Sprintf("this kernel has no scheduler %q (module ip_vs_%s) or no persistence engine %q (module ip_vs_pe_%s)",
			op.Service.Scheduler, op.Service.Scheduler, op.Service.PE, op.Service.PE)
	case errno == unix.ENOENT && (op.Verb == AddService || op.Verb == EditService):
		hint = fmt.Sprintf("this kernel has no scheduler %q (module ip_vs_%s)", op.Service.Scheduler, op.Service.Scheduler)
	case errno == unix.EINVAL && (op.Verb == AddDest || op.Verb == EditDest) && op.Dest.Address.Addr().Is6() != op.Service.IPv6:
		hint = "a server of the other family than the service's is reached by ipip tunnel only, and not while connections are synchronised: the kernel's sync daemon cannot tell them"
	case errno == unix.EINVAL && (op.Verb == AddDest || op.Verb == EditDest):
		hint = "the kernel does not take this address for a real server"
	case errno == unix.EAFNOSUPPORT:
		hint = "this kernel's IPVS has no IPv6"
	}
	if hint != "" {
		return fmt.Errorf("ipvs: %s: %w (%s)", op, errno, hint)
	}
	return fmt.Errorf("ipvs: %s: %w", op, errno)
}

// errInterrupted says that the table changed under a dump.
var errInterrupted = errors.New("the kernel's table changed while it was read")

// dumpTries is how often a dump that was interrupted by a change is repeated.
const dumpTries = 5

// dump reads all of what cmd lists. It calls begin before each try.
func (c *client) dump(cmd uint8, of *Service, begin func(), each func(payload []byte) error) error {
	for range dumpTries {
		if err := c.stop(); err != nil {
			return err
		}
		begin()
		interrupted, err := c.dumpOnce(cmd, of, each)
		if err != nil || !interrupted {
			return err
		}
	}
	return errInterrupted
}

func (c *client) dumpOnce(cmd uint8, of *Service, each func(payload []byte) error) (interrupted bool, err error) {
	c.seq++
	if err := c.conn.send(encodeList(c.family, c.seq, cmd, of)); err != nil {
		return false, fmt.Errorf("reading the IPVS table: %w", err)
	}
	err = c.answers(func(r reply) (bool, error) {
		if r.seq != c.seq {
			return false, nil
		}
		interrupted = interrupted || r.flags&unix.NLM_F_DUMP_INTR != 0
		switch r.kind {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			errno, words, err := r.errno()
			if err == nil && errno != 0 {
				err = fmt.Errorf("reading the IPVS table: %w %s", errno, words)
			}
			return true, err
		case c.family:
			return false, each(r.payload)
		default:
			return false, nil
		}
	})
	return interrupted, err
}

// list reads the services of the keys, sorted, and with dests their servers.
func (c *client) list(keys []Key, dests bool) ([]Entry, error) {
	ours := make(map[Key]bool, len(keys))
	for _, k := range keys {
		ours[k] = true
	}
	var entries []Entry
	var seen map[Key]bool
	begin := func() { entries, seen = nil, make(map[Key]bool, len(keys)) }
	each := func(payload []byte) error {
		s, ok, err := decodeService(payload)
		// A change during the dump may show a service twice.
		if err == nil && ok && ours[s.Key] && !seen[s.Key] {
			seen[s.Key] = true
			entries = append(entries, Entry{Service: s})
		}
		return err
	}
	var err error
	if len(keys) <= few {
		begin()
		err = c.get(keys, each)
	} else {
		err = c.dump(cmdGetService, nil, begin, each)
	}
	if err != nil {
		return nil, err
	}
	for i := 0; dests && i < len(entries); i++ {
		if err := c.listDests(&entries[i]); err != nil {
			return nil, err
		}
	}
	sortEntries(entries)
	return entries, nil
}

// few services are asked for one by one: what one server's failure costs must
// not grow with the services of the others.
const few = 8

func (c *client) get(keys []Key, each func(payload []byte) error) error {
	for _, k := range keys {
		err := c.request(cmdGetService, func(m *message) { m.service(Service{Key: k}, false) }, each)
		if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EAFNOSUPPORT) { // then it is not there
			return fmt.Errorf("reading the IPVS table: %w", err)
		}
	}
	return nil
}

func (c *client) listDests(e *Entry) error {
	type counted struct {
		Dest
		Counters
	}
	var all []counted
	err := c.dump(cmdGetDest, &e.Service,
		func() { all = all[:0] },
		func(payload []byte) error {
			d, n, err := decodeDest(payload, e.Service.IPv6)
			all = append(all, counted{d, n})
			return err
		})
	if err != nil {
		return err
	}
	slices.SortStableFunc(all, func(a, b counted) int { return a.Address.Compare(b.Address) })
	var last netip.AddrPort
	for _, d := range all {
		if d.Address == last {
			continue
		}
		last = d.Address
		e.Dests = append(e.Dests, d.Dest)
		e.Counters = append(e.Counters, d.Counters)
	}
	return nil
}

// isTimeout tells an answer that did not come in time.
func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
