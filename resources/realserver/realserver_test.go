package realserver

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// fake is a machine in memory: sysctls by name, and the other steps that stand.
type fake struct {
	sysctl map[string]string
	stands map[string]bool
	fails  string // making this step fails
	log    []string
}

func (f *fake) look(s Step) (bool, string, error) {
	if s.Kind == Sysctl {
		now, found := f.sysctl[s.Name]
		return found && enough(s, now, "1"), now, nil
	}
	return f.stands[s.String()], "", nil
}

func (f *fake) make(s Step) error {
	if s.String() == f.fails {
		return errors.New("permission denied")
	}
	f.log = append(f.log, s.String())
	switch s.Kind {
	case Sysctl:
		f.sysctl[s.Name] = s.Value
	case Module:
		f.stands[s.String()] = true
		f.sysctl[filter4] = "1"
	default:
		f.stands[s.String()] = true
	}
	return nil
}

func (f *fake) undo(d Done) (string, error) {
	s := d.step()
	f.log = append(f.log, "undo "+s.String())
	if s.Kind == Sysctl {
		if now := f.sysctl[s.Name]; now != s.Value {
			return s.Name + " stays " + now, nil
		}
		f.sysctl[s.Name] = d.Before
		return "", nil
	}
	delete(f.stands, s.String())
	return "", nil
}

func (f *fake) String() string {
	var all []string
	for k, v := range f.sysctl {
		all = append(all, k+"="+v)
	}
	all = append(all, slices.Collect(maps.Keys(f.stands))...)
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func newFake(t *testing.T) (*Host, *fake) {
	f := &fake{sysctl: map[string]string{arpIgnore: "0", arpAnnounce: "1"}, stands: map[string]bool{}}
	return &Host{dir: t.TempDir(), boot: func() (string, error) { return "boot 1", nil }, kernel: f}, f
}

func TestStopPutsBackWhateverWasThere(t *testing.T) {
	h, f := newFake(t)
	f.sysctl[arpIgnore] = "2" // the administrator's, and enough
	before := f.String()
	if err := h.Start("command", []conf.RealServer{side("192.0.2.1", conf.Gate), side("192.0.2.2", conf.IPIP)}); err != nil {
		t.Fatal(err)
	}
	if f.sysctl[arpIgnore] != "2" || f.sysctl[arpAnnounce] != "2" || f.sysctl[filter4] != "2" {
		t.Errorf("after start:\n%v", f)
	}
	notes, err := h.Stop("command", nil)
	if err != nil || len(notes) > 0 {
		t.Fatal(notes, err)
	}
	delete(f.sysctl, filter4) // goes with its module
	if f.String() != before {
		t.Errorf("after stop:\n%v\nbefore:\n%s", f, before)
	}
}

func TestAnAddressStaysWhileSomebodyHoldsIt(t *testing.T) {
	h, f := newFake(t)
	one := []conf.RealServer{side("192.0.2.1", conf.Gate)}
	for _, by := range []string{"command", "resource web/real", "command"} {
		if err := h.Start(by, one); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.Stop("command", one); err != nil {
		t.Fatal(err)
	}
	if !f.stands["ip address add 192.0.2.1/32 dev lo"] || f.sysctl[arpIgnore] != "1" {
		t.Errorf("after the first stop:\n%v", f)
	}
	if _, err := h.Stop("resource web/real", nil); err != nil {
		t.Fatal(err)
	}
	if f.stands["ip address add 192.0.2.1/32 dev lo"] || f.sysctl[arpIgnore] != "0" {
		t.Errorf("after the last stop:\n%v", f)
	}
}

func TestTheAddressComesLastAndGoesFirst(t *testing.T) {
	h, f := newFake(t)
	if err := h.Start("command", []conf.RealServer{side("192.0.2.1", conf.Gate)}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Stop("command", nil); err != nil {
		t.Fatal(err)
	}
	want := `sysctl -w net.ipv4.conf.all.arp_ignore=1
sysctl -w net.ipv4.conf.all.arp_announce=2
ip address add 192.0.2.1/32 dev lo
undo ip address add 192.0.2.1/32 dev lo
undo sysctl -w net.ipv4.conf.all.arp_announce=2
undo sysctl -w net.ipv4.conf.all.arp_ignore=1`
	if got := strings.Join(f.log, "\n"); got != want {
		t.Errorf("done:\n%s\nwant:\n%s", got, want)
	}
}

func TestAStartThatFailsLeavesNothing(t *testing.T) {
	h, f := newFake(t)
	before := f.String()
	f.fails = "ip address add 192.0.2.1/32 dev lo"
	err := h.Start("command", []conf.RealServer{side("192.0.2.1", conf.Gate)})
	if err == nil || err.Error() != "ip address add 192.0.2.1/32 dev lo: permission denied" {
		t.Errorf("error: %v", err)
	}
	if f.String() != before {
		t.Errorf("left:\n%v", f)
	}
	if holders, _, _ := h.Status(); len(holders) > 0 {
		t.Errorf("still held: %v", holders)
	}
}

func TestWhatSomebodyElseHasChangedMeanwhileIsLeft(t *testing.T) {
	h, f := newFake(t)
	if err := h.Start("command", []conf.RealServer{side("192.0.2.1", conf.Gate)}); err != nil {
		t.Fatal(err)
	}
	f.sysctl[arpIgnore] = "8"
	notes, err := h.Stop("command", nil)
	if err != nil || len(notes) != 1 || f.sysctl[arpIgnore] != "8" {
		t.Errorf("notes %q, error %v, arp_ignore %s", notes, err, f.sysctl[arpIgnore])
	}
}

func TestWhatWasUndoneIsMadeAgainAndStillPutBackAsItWas(t *testing.T) {
	h, f := newFake(t)
	one := []conf.RealServer{side("192.0.2.1", conf.Gate)}
	if err := h.Start("command", one); err != nil {
		t.Fatal(err)
	}
	f.sysctl[arpAnnounce] = "0" // sysctl --system
	if err := h.Start("command", one); err != nil {
		t.Fatal(err)
	}
	if f.sysctl[arpAnnounce] != "2" {
		t.Errorf("arp_announce %s after the second start", f.sysctl[arpAnnounce])
	}
	if _, err := h.Stop("command", nil); err != nil || f.sysctl[arpAnnounce] != "1" {
		t.Errorf("error %v, arp_announce %s, and it was 1", err, f.sysctl[arpAnnounce])
	}
}

func TestOneAddressHasOneForwardMethod(t *testing.T) {
	h, _ := newFake(t)
	if err := h.Start("command", []conf.RealServer{side("192.0.2.1", conf.Gate)}); err != nil {
		t.Fatal(err)
	}
	err := h.Start("command", []conf.RealServer{side("192.0.2.1", conf.IPIP)})
	want := "virtual address 192.0.2.1 is set up for forward method gate already, by command; stop it there first"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestAStoreOfAnEarlierBootIsOver(t *testing.T) {
	h, f := newFake(t)
	one := []conf.RealServer{side("192.0.2.1", conf.Gate)}
	if err := h.Start("command", one); err != nil {
		t.Fatal(err)
	}
	h.boot = func() (string, error) { return "boot 2", nil }
	*f = fake{sysctl: map[string]string{arpIgnore: "3", arpAnnounce: "0"}, stands: map[string]bool{}}
	if err := h.Start("command", one); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Stop("command", nil); err != nil || f.sysctl[arpAnnounce] != "0" || f.sysctl[arpIgnore] != "3" {
		t.Errorf("error %v after stop:\n%v", err, f)
	}
}

func TestADamagedStoreIsRefusedWithTheWayOut(t *testing.T) {
	h, _ := newFake(t)
	if err := os.WriteFile(filepath.Join(h.dir, "realserver.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := h.Start("command", []conf.RealServer{side("192.0.2.1", conf.Gate)})
	if err == nil || !strings.Contains(err.Error(), "realserver.json: unexpected EOF; it says what has to be put back") {
		t.Errorf("error: %v", err)
	}
}

// A store is a file that root reads back into the kernel.
func FuzzParseStore(f *testing.F) {
	f.Add([]byte(`{"version":1,"boot":"b","addresses":[{"address":{"address":"192.0.2.1","forward":"gate"},"by":["command"]}],"done":[{"kind":3,"name":"net.ipv4.conf.all.arp_ignore","value":"1","before":"0"}]}`))
	f.Add([]byte(`{"version":1,"boot":"b","done":[{"kind":4,"name":"192.0.2.1/32","value":"eth0"}]}`))
	f.Add([]byte(`{"version":1,"boot":"b","done":[{"kind":3,"name":"kernel.core_pattern","value":"|/bin/sh"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseStore(b, "b")
		if err != nil {
			return
		}
		for _, d := range s.Done {
			if !known(d.step()) {
				t.Errorf("took %v", d)
			}
		}
		All(s.wanted())
	})
}

func TestAStoreNamesOnlyWhatAStepCanName(t *testing.T) {
	for _, done := range []string{
		`{"kind":4,"name":"192.0.2.1/32","value":"eth0"}`,
		`{"kind":4,"name":"192.0.2.0/24","value":"lo"}`,
		`{"kind":3,"name":"kernel.core_pattern","value":"|/bin/sh"}`,
		`{"kind":1,"name":"usb_storage"}`,
		`{"kind":9,"name":"x"}`,
	} {
		_, err := parseStore(fmt.Appendf(nil, `{"version":1,"boot":"b","addresses":null,"done":[%s]}`, done), "b")
		if err == nil || !strings.Contains(err.Error(), "unknown step") {
			t.Errorf("%s: %v", done, err)
		}
	}
}

func TestSetGivesBackWhatIsGoneFromTheFile(t *testing.T) {
	h, f := newFake(t)
	if err := h.Start("command", []conf.RealServer{side("192.0.2.1", conf.Gate), side("192.0.2.2", conf.Gate)}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Set("command", []conf.RealServer{side("192.0.2.2", conf.Gate), side("192.0.2.3", conf.Gate)}); err != nil {
		t.Fatal(err)
	}
	want := `ip address add 192.0.2.2/32 dev lo
ip address add 192.0.2.3/32 dev lo
net.ipv4.conf.all.arp_announce=2
net.ipv4.conf.all.arp_ignore=1`
	if f.String() != want {
		t.Errorf("machine:\n%v\nwant:\n%s", f, want)
	}
}

// The clock of the bubble makes waiting short.
func TestAStoreThatSomebodyHoldsIsNotWaitedForForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		f, _, err := openStore(dir, "boot")
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := openStore(dir, "boot"); err == nil || !strings.Contains(err.Error(), "another keepbeat has held "+filepath.Join(dir, "realserver.lock")+" for 20s") {
			t.Error(err)
		}
		time.AfterFunc(time.Second, f.close)
		g, _, err := openStore(dir, "boot")
		if err != nil {
			t.Fatal(err)
		}
		g.close()
	})
}
