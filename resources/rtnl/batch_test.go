package rtnl

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// namespace makes a network namespace with lo up, and opens it.
func namespace(t *testing.T) (*Kernel, string) {
	t.Helper()
	name := fmt.Sprintf("kbrtnl-%d", os.Getpid())
	for _, args := range [][]string{{"netns", "add", name}, {"-n", name, "link", "set", "lo", "up"}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v (needs root): %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	k, err := Open("/run/netns/" + name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k, name
}

func TestRefusedChangesAreNamedAndTheRestIsMade(t *testing.T) {
	k, _ := namespace(t)
	var changes []Change
	want := map[int]error{}
	for n := range 3 * batchChanges {
		a := Address{Index: 1, Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 32), Valid: Forever, Preferred: Forever}
		switch n % 5 {
		case 3:
			a.Index, want[n] = 999, unix.ENODEV
		case 4:
			a.Prefix = netip.MustParsePrefix("10.0.0.1/32")
			want[n] = unix.EEXIST
		}
		changes = append(changes, AddAddress(a))
	}
	got := map[int]error{}
	if err := k.Apply(changes, func(n int, err error) { got[n] = err }); err != nil {
		t.Fatal(err)
	}
	for n := range changes {
		if !errors.Is(got[n], want[n]) || (want[n] == nil) != (got[n] == nil) {
			t.Errorf("change %d: %v, want %v", n, got[n], want[n])
		}
	}
	there := 0
	if err := k.Addresses(func(a Address) {
		if !a.Prefix.Addr().IsLoopback() {
			there++
		}
	}); err != nil {
		t.Fatal(err)
	}
	if there != len(changes)-len(want) {
		t.Errorf("%d addresses", there)
	}
}

func TestRefusalHasTheKernelsWords(t *testing.T) {
	k, _ := namespace(t)
	err := k.Do(AddRoute(Route{To: netip.MustParsePrefix("10.1.0.0/16"), Via: netip.MustParseAddr("10.9.9.9"), Type: unix.RTN_UNICAST}))
	if err == nil || err.Error() != "network is unreachable (Nexthop has invalid gateway)" || !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("%v", err)
	}
	if err := k.Do(RemoveRoute(Route{To: netip.MustParsePrefix("10.1.0.0/16"), Type: unix.RTN_UNICAST})); !errors.Is(err, unix.ESRCH) {
		t.Errorf("%v", err)
	}
}

// FuzzAnswer: whatever stands in an acknowledgement.
func FuzzAnswer(f *testing.F) {
	f.Add(make([]byte, 20), uint16(0))
	f.Add(make([]byte, 40), uint16(nlmFlagAckTLVs))
	f.Fuzz(func(t *testing.T, b []byte, flags uint16) {
		_, err, ok := answer(Message{Type: unix.NLMSG_ERROR, Flags: flags, Body: b}, 1)
		if ok && err != nil {
			_ = err.Error()
		}
	})
}
