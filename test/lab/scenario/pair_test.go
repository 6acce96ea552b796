package scenario

import (
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
)

const limit = 30 * time.Second

func TestTheFenceScriptSwitchesAMachineOff(t *testing.T) {
	p := NewPair(t, Fencing, Options{})
	p.Director2.Run("ip", "address", "add", VIP+"/32", "dev", "eth0")
	sleeper := p.Director2.Start("sleeper", nil, "sleep", "1000")
	client := p.Client.Probe(VIP, lab.ProbeInterval())
	client.WaitAnswer("director2", client.From, limit)

	p.Director1.Run(FenceScript, "monitor", "director2")
	if len(p.Power.Uses()) != 0 || p.Director2.Dead() {
		t.Fatal("a look whether the device answers is no fencing")
	}
	p.Director1.Run(FenceScript, "reboot", "director2")
	fenced := probe.Now()
	if !p.Director2.Dead() || p.Director2.HasAddress(VIP) {
		t.Error("the script has succeeded and director2 is not off")
	}
	if !sleeper.Wait(limit) {
		t.Error("a process has survived")
	}
	time.Sleep(50 * time.Millisecond)
	for _, s := range client.Samples() {
		if s.At > fenced {
			t.Fatalf("director2 answered %v after the script had ended", s.At.Sub(fenced))
		}
	}
	if u := p.Power.Uses(); len(u) != 1 || u[0].Action != "reboot" || u[0].Node != "director2" || u[0].By != "director1" || u[0].Error != "" || u[0].At > fenced {
		t.Errorf("uses: %+v", u)
	}
	// Certain of a machine that is off already, too.
	p.Director1.Run(FenceScript, "off", "director2")

	p.Director2.Revive()
	p.Director2.Run("ip", "address", "add", VIP+"/32", "dev", "eth0")
	client.WaitAnswer("director2", probe.Now(), limit)
	p.Director2.Run(FenceScript, "on", "director1")
	if p.Director1.Dead() {
		t.Error("on is not off")
	}
	p.Director2.Die()
	p.Director1.Run(FenceScript, "reboot", "director2")
}

func TestAFenceScriptThatIsNotCertainFails(t *testing.T) {
	p := NewPair(t, Fencing, Options{})
	refused := func(words string, args ...string) {
		t.Helper()
		out, err := p.Director1.Try(append([]string{FenceScript}, args...)...)
		if err == nil || !strings.Contains(out, words) {
			t.Errorf("%v: %v, want a failure with %q in:\n%s", args, err, words, out)
		}
	}
	refused(`no machine "director9"`, "reboot", "director9")
	refused("there are off, reboot", "burn", "director2")
	refused("there are off, reboot")
	p.Power.Refuse("overload")
	refused("overload", "reboot", "director2")
	refused("overload", "monitor")
	if p.Director2.Dead() {
		t.Error("a switch that refuses has switched director2 off")
	}
	p.Power.Refuse("")

	// Who gives up waiting has not fenced.
	p.Power.Delay(time.Hour)
	if _, err := p.Director1.TryFor(100*time.Millisecond, FenceScript, "reboot", "director2"); err == nil || p.Director2.Dead() {
		t.Errorf("after 100 ms of an hour: %v, director2 is off: %v", err, p.Director2.Dead())
	}
	p.Power.Delay(0)
	p.Director1.Run(FenceScript, "reboot", "director2")
}

func TestOfTwoThatFenceEachOtherOneIsLeft(t *testing.T) {
	p := NewPair(t, Fencing, Options{})
	for range 5 {
		var scripts []*lab.Process
		for _, h := range p.Both() {
			scripts = append(scripts, h.Start("fence", nil, FenceScript, "reboot", p.Other(h).Name))
		}
		for _, s := range scripts {
			if !s.Wait(limit) {
				t.Fatal("a script has not ended")
			}
		}
		if p.Director1.Dead() == p.Director2.Dead() {
			t.Fatalf("director1 is off: %v, director2 is off: %v", p.Director1.Dead(), p.Director2.Dead())
		}
		for _, h := range p.Both() {
			if h.Dead() {
				h.Revive()
			}
		}
	}
}

func TestObserversOfAPairSeeTwoOwners(t *testing.T) {
	p := NewPair(t, Ping, Options{})
	p.Director1.Run("ping", "-c", "1", "-W", "5", TieBreaker)
	p.Director1.Run("ip", "address", "add", VIP+"/32", "dev", "eth0")
	one, two := p.Observe(VIP, time.Millisecond)
	one.WaitAnswer("director1", one.From, limit)
	if d := lab.Overlap(one, two); d != 0 {
		t.Errorf("one owner, and two for %v", d)
	}
	p.Director2.Run("ip", "address", "add", VIP+"/32", "dev", "eth0")
	two.WaitAnswer("director2", two.From, limit)
	// On a busy machine the answers of one may come further apart than those of a time that
	// counts as uninterrupted.
	p.Lab.Eventually(limit, "two owners", func() bool { return lab.Overlap(one, two) > 0 })
	one.Stop()
	two.Stop()
	one, two = p.Observe(VIP, time.Millisecond)
	one.WaitAnswer("director1", one.From, limit)
	two.WaitAnswer("director2", two.From, limit)
}
