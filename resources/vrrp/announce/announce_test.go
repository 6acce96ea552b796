package announce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/vrrp"
)

var (
	ownAddress = netip.MustParseAddr("192.0.2.5")
	foreign    = netip.MustParseAddr("192.0.2.6")
)

// wire is a network with this node on it.
type wire struct {
	t     *testing.T
	began time.Time

	mu     sync.Mutex // guards the rest
	story  []string
	open   []*endpoint
	local  netip.Addr
	refuse error // what Open says
}

func (w *wire) tell(format string, args ...any) {
	w.story = append(w.story, fmt.Sprintf("%v %s", time.Since(w.began).Round(time.Millisecond), fmt.Sprintf(format, args...)))
}

// said compares the story since it was asked for last.
func (w *wire) said(want string) {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if d := cmp.Diff(strings.TrimSpace(want), strings.Join(w.story, "\n")); d != "" {
		w.t.Errorf("what was heard (+) is not what was wanted (-):\n%s", d)
	}
	w.story = nil
}

func (w *wire) Open(i *conf.VRRPInstance, receive func(vrrp.Packet)) (vrrp.Endpoint, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		return nil, w.refuse
	}
	e := &endpoint{w: w, i: i, receive: receive}
	w.open = append(w.open, e)
	return e, nil
}

func (w *wire) Now() time.Time { return time.Now() }
func (w *wire) Close() error   { return nil }

type endpoint struct {
	w       *wire
	i       *conf.VRRPInstance
	receive func(vrrp.Packet)
}

func (e *endpoint) Local() netip.Addr {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	return e.w.local
}

func (e *endpoint) Close() error {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	e.w.open = slices.DeleteFunc(e.w.open, func(o *endpoint) bool { return o == e })
	return nil
}

func (e *endpoint) Send(message []byte, _ netip.Addr) error {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	e.w.tell("priority %d", message[2])
	return nil
}

// hear has the node hear a foreign router for a while, each second.
func (w *wire) hear(priority uint8, times int) {
	for range times {
		w.mu.Lock()
		open := slices.Clone(w.open)
		w.mu.Unlock()
		for _, e := range open {
			m := vrrp.Encode(e.i, priority)
			vrrp.Seal(m, e.i, foreign, e.i.Group)
			e.receive(vrrp.Packet{Payload: m, From: foreign, To: e.i.Group, TTL: 255})
		}
		time.Sleep(time.Second)
	}
}

func specification(then string) conf.Spec {
	text := `
fencing: {devices: {hands: {manual: yes, targets: [router9]}}}
groups: {web: {resources: [{vip: 10.0.0.1/24/eth0}, {vrrp: {virtual_router_id: 51, on_conflict: ` + then + `}}]}}
`
	spec, _, err := conf.ParseSpec(conf.Files{Haresources: []byte(text)}, nil)
	if err != nil {
		panic(err)
	}
	g := &spec.Groups[0]
	g.Resources = g.Resources[1:] // the vip is another's story
	return *spec
}

// story runs f in a bubble, with a manager of group web that has an announcer.
func story(t *testing.T, then string, f func(t *testing.T, w *wire, m *resources.Manager)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &wire{t: t, began: time.Now(), local: ownAddress}
		maker := NewMaker(Config{Open: func() (Host, error) { return w, nil }})
		m := resources.NewManager(resources.ManagerConfig{
			Node: "director1", Registry: resources.Registry{conf.KindVRRP: maker}, Journal: resources.Journal{Dir: t.TempDir()},
			Report: func(r resources.Report) {
				w.mu.Lock()
				defer w.mu.Unlock()
				switch {
				case r.Outcome == resources.Started:
					w.tell("started")
				case r.Err != nil:
					w.tell("failed: %v", r.Err)
				default:
					w.tell("stopped")
				}
			},
			Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		})
		m.Configure(specification(then))
		synctest.Wait()
		f(t, w, m)
		m.Close()
		if err := maker.Close(); err != nil {
			t.Error(err)
		}
		if len(w.open) > 0 {
			t.Error("an endpoint is open")
		}
	})
}

func own(epoch uint64) map[string]uint64 { return map[string]uint64{"web": epoch} }

func TestTheOwnerAnnouncesAndLeaves(t *testing.T) {
	story(t, "yield", func(t *testing.T, w *wire, m *resources.Manager) {
		time.Sleep(10 * time.Second)
		w.said("")
		m.Own(own(1))
		time.Sleep(2500 * time.Millisecond)
		w.said("10s priority 254\n10s started\n11s priority 254\n12s priority 254")
		m.Own(nil)
		time.Sleep(5 * time.Second)
		w.said("12.5s priority 0\n12.5s stopped")
		m.Own(own(2))
		m.Announce() // not yet active, or once more
		synctest.Wait()
		m.Announce()
		w.said("17.5s priority 254\n17.5s started\n17.5s priority 254")
		m.Replacing(30 * time.Second)
		w.said("17.5s priority 254")
		m.Own(nil)
		synctest.Wait()
		m.Replacing(30 * time.Second)
		w.said("17.5s priority 0\n17.5s stopped")
	})
}

func TestADaemonThatEndsSaysNothing(t *testing.T) {
	story(t, "yield", func(t *testing.T, w *wire, m *resources.Manager) {
		m.Own(own(1))
		synctest.Wait()
		m.Close()
		time.Sleep(5 * time.Second)
		w.said("0s priority 254\n0s started")
	})
}

const yields = "VRID 51 of IPv4 on eth0: the foreign router 192.0.2.6 is master and has the better priority: the group yields (on_conflict: yield)"

func TestAForeignMasterToWhichTheGroupYields(t *testing.T) {
	story(t, "yield", func(t *testing.T, w *wire, m *resources.Manager) {
		m.Own(own(1))
		time.Sleep(100 * time.Millisecond)
		w.hear(255, 20)
		// Silent from the second advertisement on, and no priority 0: it was the foreign router's already.
		w.said("0s priority 254\n0s started\n1s priority 254\n1.1s failed: " + yields)
		if got := m.Ready(); got["web"] != yields {
			t.Errorf("ready: %q", got)
		}
		// It does not even try while it hears the foreign master.
		m.Own(own(2))
		w.said("20.1s failed: " + yields)
		m.Own(nil)
		time.Sleep(5 * time.Second)
		if got := m.Ready(); len(got) > 0 {
			t.Errorf("ready: %q", got)
		}
		m.Own(own(3))
		w.said("25.1s priority 254\n25.1s started")
	})
}

func TestANodeThatHearsAForeignMasterIsNotReady(t *testing.T) {
	story(t, "yield", func(t *testing.T, w *wire, m *resources.Manager) {
		w.hear(255, 2)
		if got := m.Ready(); got["web"] != yields {
			t.Errorf("ready: %q", got)
		}
		w.said("")
	})
}

func TestAForeignMasterBesideWhomTheGroupStays(t *testing.T) {
	for _, c := range []struct {
		then string
		want []resources.Accusation
	}{
		{"keep", nil},
		{"fence, foreign: router9", []resources.Accusation{{Group: "web", Epoch: 1, Target: "router9", Why: "192.0.2.6 is master of VRID 51 of IPv4 on eth0 too",
			Heard: time.Date(2000, 1, 1, 0, 0, 13, 0, time.UTC)}}}, // 13 s after a bubble begins
	} {
		t.Run(c.then, func(t *testing.T) {
			story(t, c.then, func(t *testing.T, w *wire, m *resources.Manager) {
				w.hear(255, 2)
				if got := m.Accusations(); len(m.Ready()) > 0 || len(got) > 0 {
					t.Errorf("before it has the group: %v, %v", m.Ready(), got)
				}
				time.Sleep(10 * time.Second)
				m.Own(own(1))
				synctest.Wait()
				w.hear(255, 2)
				w.said("12s priority 254\n12s started\n13s priority 254\n14s priority 254")
				if d := cmp.Diff(c.want, m.Accusations()); d != "" {
					t.Error(d)
				}
				var d Detail
				if err := json.Unmarshal(m.Status()[0].Resources[0].Detail, &d); err != nil {
					t.Fatal(err)
				}
				if want := "the foreign router 192.0.2.6, priority 255 is master too: there are two masters (on_conflict: " + c.then[:min(5, len(c.then))]; len(d.Trouble) != 1 || !strings.HasPrefix(d.Trouble[0], strings.TrimSuffix(want, ",")) {
					t.Errorf("trouble: %q", d.Trouble)
				}
				time.Sleep(5 * time.Second)
				if got := m.Accusations(); len(got) > 0 {
					t.Errorf("it is gone: %v", got)
				}
			})
		})
	}
}

// Every node of the cluster announces with the group's priority: what is heard with
// that may be another owner, where the rule unsafe or a guard that is off lets two be.
func TestAMasterOfTheSamePriorityIsNotFenced(t *testing.T) {
	story(t, "fence, foreign: router9", func(t *testing.T, w *wire, m *resources.Manager) {
		m.Own(own(1))
		synctest.Wait()
		w.hear(254, 3)
		if got := m.Accusations(); len(got) > 0 {
			t.Errorf("accused: %v", got)
		}
		var d Detail
		if err := json.Unmarshal(m.Status()[0].Resources[0].Detail, &d); err != nil {
			t.Fatal(err)
		}
		if len(d.Trouble) != 1 {
			t.Errorf("trouble: %q", d.Trouble)
		}
		w.hear(255, 1)
		if got := m.Accusations(); len(got) != 1 {
			t.Errorf("accused with more: %v", got)
		}
	})
}

func TestWhoHasTheVRIDForOtherAddressesIsNotFenced(t *testing.T) {
	for name, c := range map[string]struct {
		addresses []string
		accused   int
	}{
		"others":         {[]string{"203.0.113.1/24", "203.0.113.2/24"}, 0},
		"none":           {nil, 1},
		"ours and other": {[]string{"203.0.113.1/24", ""}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, "fence, foreign: router9", func(t *testing.T, w *wire, m *resources.Manager) {
				m.Own(own(1))
				synctest.Wait()
				for range 3 {
					e := w.open[0]
					i := *e.i
					i.Addresses = nil
					for _, a := range c.addresses {
						x := e.i.Addresses[0]
						if a != "" {
							x.Address = netip.MustParsePrefix(a)
						}
						i.Addresses = append(i.Addresses, x)
					}
					p := vrrp.Encode(&i, 255)
					vrrp.Seal(p, &i, foreign, i.Group)
					e.receive(vrrp.Packet{Payload: p, From: foreign, To: i.Group, TTL: 255})
					time.Sleep(time.Second)
				}
				if got := m.Accusations(); len(got) != c.accused {
					t.Errorf("accused: %v", got)
				}
			})
		})
	}
}

func TestARouterThatIsNotUnderstoodIsATrouble(t *testing.T) {
	story(t, "yield", func(t *testing.T, w *wire, m *resources.Manager) {
		trouble := func() []string {
			var d Detail
			if err := json.Unmarshal(m.Status()[0].Resources[0].Detail, &d); err != nil {
				t.Fatal(err)
			}
			return d.Trouble
		}
		other := func(i conf.VRRPInstance) *conf.VRRPInstance { i.Password = "another"; return &i }
		say := func() {
			w.mu.Lock()
			open := slices.Clone(w.open)
			w.mu.Unlock()
			for _, e := range open {
				i := other(*e.i)
				b := vrrp.Encode(i, 255)
				vrrp.Seal(b, i, foreign, i.Group)
				e.receive(vrrp.Packet{Payload: b, From: foreign, To: i.Group, TTL: 255})
			}
		}
		say()
		if got := trouble(); len(got) > 0 {
			t.Errorf("this node does not announce: %q", got)
		}
		m.Own(own(1))
		synctest.Wait()
		say()
		if got := strings.Join(trouble(), ""); !strings.HasPrefix(got, "it refuses the advertisements of 192.0.2.6 for their authentication type") {
			t.Errorf("%q", got)
		}
		time.Sleep(recent)
		if got := trouble(); len(got) > 0 {
			t.Errorf("it has been put right: %q", got)
		}
	})
}

func TestAnAnnouncerWithoutAnAddress(t *testing.T) {
	story(t, "yield", func(t *testing.T, w *wire, m *resources.Manager) {
		m.Own(own(1))
		synctest.Wait()
		w.mu.Lock()
		w.local = netip.Addr{}
		w.mu.Unlock()
		const why = "vrrp 51 on eth0: its interface has no address to send from"
		if got := m.Ready()["web"]; got != why {
			t.Errorf("ready: %q", got)
		}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		w.mu.Lock()
		defer w.mu.Unlock()
		if last := w.story[len(w.story)-1]; !strings.HasSuffix(last, "failed: "+why) {
			t.Errorf("it goes on: %s", last)
		}
	})
}

func TestSocketsThatCannotBeHadAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{t: t, began: time.Now(), local: ownAddress, refuse: errors.New("no more sockets")}
		maker := NewMaker(Config{Open: func() (Host, error) { return w, nil }})
		r, err := maker.New(resources.Env{}, conf.Spec{}, specification("yield").Groups[0].Resources[0])
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go r.(resources.Runner).Run(ctx)
		time.Sleep(time.Second)
		if err := r.Start(ctx); err == nil || err.Error() != "vrrp 51 on eth0: no more sockets" {
			t.Errorf("start: %v", err)
		}
		w.mu.Lock()
		w.refuse = nil
		w.mu.Unlock()
		time.Sleep(listenAgain)
		w.mu.Lock()
		n := len(w.open)
		w.mu.Unlock()
		if n != 1 {
			t.Errorf("%d endpoints", n)
		}
		cancel()
		if err := errors.Join(r.Close(), maker.Close()); err != nil {
			t.Error(err)
		}
	})
}

func TestARecordHasNothingToTakeBack(t *testing.T) {
	maker := NewMaker(Config{})
	spec := specification("yield")
	spec.Groups[0].Resources[0].VRRP.Instance.Password = "secret"
	r, err := maker.New(resources.Env{}, spec, spec.Groups[0].Resources[0])
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.Record()
	if err != nil || string(b) != `{"interface":"eth0","vrid":51}` {
		t.Errorf("%s %v", b, err)
	}
	r, err = maker.Recover(resources.Env{}, b)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Stop(t.Context()), r.Close()); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{``, `{}`, `{"interface":"eth0"}`, `{"interface":"eth0","vrid":300}`} {
		if _, err := maker.Recover(resources.Env{}, json.RawMessage(bad)); err == nil {
			t.Errorf("%q is a record", bad)
		}
	}
}
