package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// The names of the maps, by which a later daemon finds them behind a filter's
// program. The digit is the layout: a changed key or value gets a new one.
const (
	nameState = "kbguard1_state"
	nameAddrs = "kbguard1_addrs"
	nameVRIDs = "kbguard1_vrids"
)

const (
	// MaxAddresses is how many addresses can be held. The table grows as needed.
	MaxAddresses = 65536
	maxVRIDs     = 4096

	stateSlots   = 8 // those not named are spare, zero, for later versions
	slotDeadline = 0
	slotCut      = 1 // not 0 while an address or a virtual router is cut

	// The values of the maps of addresses and virtual routers.
	heldOpen = 1 // dropped while the lease is not live
	heldCut  = 2 // dropped always
)

// VRID names a virtual router whose advertisements are dropped.
type VRID struct {
	// Ifindex is the interface the advertisements leave by; 0 is every interface.
	Ifindex uint32
	// IPv6 tells the virtual router of IPv6 from that of IPv4 with the same number.
	IPv6 bool
	// ID is the virtual router identifier, 1 to 255.
	ID uint8
}

func (v VRID) String() string {
	family := 4
	if v.IPv6 {
		family = 6
	}
	return fmt.Sprintf("vrid %d ipv%d ifindex %d", v.ID, family, v.Ifindex)
}

// addrKey is the key of the address map: IPv4 as ::ffff:a.b.c.d.
type addrKey [16]byte

// vridKey is the key of the VRID map: ifindex in host order, family, VRID, two zeros.
type vridKey [8]byte

func (v VRID) key() vridKey {
	var k vridKey
	binary.NativeEndian.PutUint32(k[:], v.Ifindex)
	k[4] = 4
	if v.IPv6 {
		k[4] = 6
	}
	k[5] = v.ID
	return k
}

func (k vridKey) vrid() VRID {
	return VRID{Ifindex: binary.NativeEndian.Uint32(k[:]), IPv6: k[4] == 6, ID: k[5]}
}

// maps are the three maps of a guard. They live as long as a program in a filter uses them.
type maps struct {
	state *ebpf.Map // array: the deadline
	addrs *ebpf.Map // hash: held addresses
	vrids *ebpf.Map // hash: held VRIDs
	page  []byte    // state, mapped into this process; nil unless mapState was called
}

func stateSpec() *ebpf.MapSpec {
	return &ebpf.MapSpec{
		Name: nameState, Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: stateSlots,
		Flags: unix.BPF_F_MMAPABLE,
	}
}

func addrsSpec() *ebpf.MapSpec {
	return &ebpf.MapSpec{
		Name: nameAddrs, Type: ebpf.Hash, KeySize: 16, ValueSize: 4, MaxEntries: MaxAddresses,
		Flags: unix.BPF_F_NO_PREALLOC,
	}
}

func vridsSpec() *ebpf.MapSpec {
	return &ebpf.MapSpec{
		Name: nameVRIDs, Type: ebpf.Hash, KeySize: 8, ValueSize: 4, MaxEntries: maxVRIDs,
		Flags: unix.BPF_F_NO_PREALLOC,
	}
}

// newMaps makes empty maps, whose deadline is 0: not live.
func newMaps() (*maps, error) {
	m := &maps{}
	for _, x := range []struct {
		to   **ebpf.Map
		spec *ebpf.MapSpec
	}{{&m.state, stateSpec()}, {&m.addrs, addrsSpec()}, {&m.vrids, vridsSpec()}} {
		made, err := ebpf.NewMap(x.spec)
		if err != nil {
			m.close()
			return nil, fmt.Errorf("making map %s: %w", x.spec.Name, err)
		}
		*x.to = made
	}
	return m, nil
}

// errNotOurs is returned by openMaps for a program whose maps are not of this layout.
var errNotOurs = errors.New("its program has not the maps of this version's guard")

// openMaps opens the maps of a program that is in the kernel. The error wraps
// os.ErrNotExist when the program went away meanwhile.
func openMaps(id ebpf.ProgramID) (*maps, ebpf.MapID, error) {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil, 0, fmt.Errorf("opening program %d: %w", id, err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return nil, 0, fmt.Errorf("reading program %d: %w", id, err)
	}
	ids, ok := info.MapIDs()
	if !ok {
		return nil, 0, fmt.Errorf("program %d: %w", id, errNotOurs)
	}
	m := &maps{}
	var stateID ebpf.MapID
	for _, mid := range ids {
		opened, err := ebpf.NewMapFromID(mid)
		if err != nil {
			m.close()
			return nil, 0, fmt.Errorf("program %d: opening map %d: %w", id, mid, err)
		}
		mi, err := opened.Info()
		if err != nil {
			opened.Close()
			m.close()
			return nil, 0, fmt.Errorf("program %d: reading map %d: %w", id, mid, err)
		}
		switch {
		case m.state == nil && fits(mi, stateSpec()):
			m.state, stateID = opened, mid
		case m.addrs == nil && fits(mi, addrsSpec()):
			m.addrs = opened
		case m.vrids == nil && fits(mi, vridsSpec()):
			m.vrids = opened
		default:
			opened.Close()
		}
	}
	if m.state == nil || m.addrs == nil || m.vrids == nil {
		m.close()
		return nil, 0, fmt.Errorf("program %d: %w", id, errNotOurs)
	}
	return m, stateID, nil
}

// fits compares name and shape, so that a map of another kind by our name is not taken over.
func fits(mi *ebpf.MapInfo, s *ebpf.MapSpec) bool {
	return mi.Name == s.Name && mi.Type == s.Type && mi.KeySize == s.KeySize &&
		mi.ValueSize == s.ValueSize && mi.MaxEntries == s.MaxEntries && mi.Flags == s.Flags
}

func (m *maps) close() {
	if m.page != nil {
		_ = unix.Munmap(m.page) // ours and mapped: cannot fail
		m.page = nil
	}
	for _, x := range []*ebpf.Map{m.state, m.addrs, m.vrids} {
		if x != nil {
			_ = x.Close()
		}
	}
}

// mapState maps the state into this process, so that the deadline is written
// by one store: a system call copies the value byte by byte on some machines,
// and a process stopped in between would leave a deadline that nobody set.
func (m *maps) mapState() error {
	page, err := unix.Mmap(m.state.FD(), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mapping %s: %w", nameState, err)
	}
	m.page = page
	return nil
}

func (m *maps) deadlineWord() *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&m.page[slotDeadline*8]))
}

func (m *maps) cutWord() *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&m.page[slotCut*8]))
}

// anyCut says whether an address or a virtual router is cut.
func (m *maps) anyCut() (bool, error) {
	if cut, err := cutIn[vridKey](m.vrids); cut || err != nil {
		return cut, err
	}
	return cutIn[addrKey](m.addrs)
}

func cutIn[K addrKey | vridKey](m *ebpf.Map) (bool, error) {
	keys, err := keysOf[K](m)
	if err != nil {
		return false, err
	}
	for _, k := range keys {
		var v uint32
		if err := m.Lookup(k, &v); err == nil && v == heldCut {
			return true, nil
		}
	}
	return false, nil
}

// readDeadline reads it from a map that is not mapped.
func (m *maps) readDeadline() (time.Duration, error) {
	var v uint64
	if err := m.state.Lookup(uint32(slotDeadline), &v); err != nil {
		return 0, fmt.Errorf("reading the deadline: %w", err)
	}
	return time.Duration(v), nil
}

// keysOf lists a map that another process may be changing.
func keysOf[K addrKey | vridKey](m *ebpf.Map) ([]K, error) {
	var err error
	for range 5 {
		var (
			keys []K
			k    K
			v    uint32
		)
		it := m.Iterate()
		for it.Next(&k, &v) {
			keys = append(keys, k)
		}
		if err = it.Err(); err == nil {
			return keys, nil
		}
		if !errors.Is(err, ebpf.ErrIterationAborted) {
			break
		}
	}
	return nil, fmt.Errorf("listing what is held: %w", err)
}

func (m *maps) listAddrs() ([]netip.Addr, error) {
	keys, err := keysOf[addrKey](m.addrs)
	if err != nil {
		return nil, err
	}
	out := make([]netip.Addr, 0, len(keys))
	for _, k := range keys {
		out = append(out, netip.AddrFrom16(k).Unmap())
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out), nil
}

func (m *maps) listVRIDs() ([]VRID, error) {
	keys, err := keysOf[vridKey](m.vrids)
	if err != nil {
		return nil, err
	}
	out := make([]VRID, 0, len(keys))
	for _, k := range keys {
		out = append(out, k.vrid())
	}
	slices.SortFunc(out, compareVRID)
	return slices.Compact(out), nil
}

func compareVRID(a, b VRID) int {
	ka, kb := a.key(), b.key()
	return slices.Compare(ka[:], kb[:])
}
