package fault

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/test/lab"
)

// perSecond is how many datagrams a flood sends, over all links.
const perSecond = 10_000

// hostileKinds are what somebody does on purpose.
func hostileKinds() []kind {
	return []kind{
		{name: "garbage, 10,000 a second", draw: func(a *arena, r *rand.Rand) plan {
			last := between(r, time.Second, 3*time.Second)
			p := plan{what: fmt.Sprintf("garbage on the heartbeat ports for %v", last.Round(time.Millisecond))}
			a.flood(&p, last, "garbage", fmt.Sprint(perSecond), last.String(), fmt.Sprint(r.Uint64()), strings.Join(a.names(), ","))
			return p
		}},
		{name: "replayed datagrams, 10,000 a second", draw: func(a *arena, r *rand.Rand) plan {
			last := between(r, time.Second, 3*time.Second)
			file := filepath.Join(a.temp, "recorded")
			p := plan{what: fmt.Sprintf("datagrams recorded on both heartbeat links, replayed for %v", last.Round(time.Millisecond))}
			const recording = 700 * time.Millisecond
			var recorder *lab.Process
			p.at(0, "recording", func() {
				recorder = a.help(a.Director1, "record", file, recording.String())
			})
			if r.IntN(2) == 0 { // what is replayed is of an earlier boot then
				h := a.pick(r)
				p.uses = []string{h.Name}
				p.at(recording, "the daemon on "+h.Name+" is killed", func() { a.kill(h) })
			}
			var replay *lab.Process
			var began time.Time
			p.at(recording+100*time.Millisecond, "replaying", func() {
				if a.ends(recorder); recorder == nil || recorder.Err() != nil {
					a.note("the recorder has died with its host: nothing to replay")
					return
				}
				began = time.Now()
				replay = a.help(a.attacker, "replay", file, fmt.Sprint(perSecond), last.String())
			})
			p.at(recording+last+100*time.Millisecond, "the replay ends", func() {
				if a.ends(replay); replay != nil {
					a.refusedSince(began)
				}
			})
			return p
		}},
		{name: "half-open QUIC connections", draw: func(a *arena, r *rand.Rand) plan {
			// Only who has the key can begin one: a node whose place is taken by a program that goes mad.
			h, last := one(r, a.nodes...), between(r, time.Second, 3*time.Second)
			p := plan{what: fmt.Sprintf("%s begins connections and leaves them half-open for %v", h.Name, last.Round(time.Millisecond)), uses: []string{h.Name}}
			var mad *lab.Process
			p.at(0, p.what, func() {
				a.kept[h] = true
				a.kill(h)
				mad = a.help(h, "initials", "1000", last.String(), strings.Join(a.names(), ","), fmt.Sprint(!a.two))
			})
			p.at(last+time.Second, "it is itself again", func() { a.ends(mad); a.kept[h] = false })
			return p
		}},
		{name: "half-open control connections", draw: func(a *arena, r *rand.Rand) plan {
			h, last := a.pick(r), between(r, time.Second, 3*time.Second)
			p := plan{what: fmt.Sprintf("2000 half-open connections to the control socket of %s for %v", h.Name, last.Round(time.Millisecond))}
			var holder, daemon *lab.Process
			p.at(0, p.what, func() {
				if a.runs(h) {
					daemon = a.Daemons[h.Name]
					holder = a.help(h, "half-open", "2000", last.String())
				}
			})
			p.at(last/2, "keepbeat status there", func() { a.command(h, "status") })
			p.at(last, "they are closed", func() {
				if err := a.end(holder); err != nil && !daemon.Ended() { // no fault had it in between
					a.t.Fatalf("%v", err)
				}
			})
			return p
		}},
	}
}

// flood lets a helper of the attacker work for a while.
func (a *arena) flood(p *plan, last time.Duration, args ...string) {
	var helper *lab.Process
	var began time.Time
	p.at(0, p.what, func() { began = time.Now(); helper = a.help(a.attacker, args...) })
	p.at(last, "the flood ends", func() { a.ends(helper); a.refusedSince(began) })
}

// refusedSince ends the test when no node has refused any datagram of a flood that
// began at an instant. Another fault at the same time may have kept them from it.
func (a *arena) refusedSince(began time.Time) {
	if a.two {
		return
	}
	for end := time.Now().Add(allWell()); time.Now().Before(end); a.pass(50 * time.Millisecond) {
		for _, h := range a.nodes {
			st, _ := a.status(h) // who does not answer says nothing
			for _, n := range st.Nodes {
				if n.Name == h.Name && n.Here != nil && slices.ContainsFunc(n.Here.Refused, func(r link.Refused) bool { return r.Last.After(began) }) {
					return
				}
			}
		}
	}
	a.t.Fatalf("no node has refused any datagram of the flood: it arrived nowhere")
}

// ends is end, and ends the test when the helper could not do its work.
func (a *arena) ends(helper *lab.Process) {
	if err := a.end(helper); err != nil {
		a.t.Fatalf("%v", err)
	}
}

// end waits for a helper's end, and says what it did. nil: its host was dead.
func (a *arena) end(helper *lab.Process) error {
	if helper == nil {
		return nil
	}
	if !helper.Wait(30 * time.Second) { // a busy machine takes its time
		a.t.Fatalf("%s does not end: %s", helper.Name, helper.Log())
	}
	a.note("%s: %s", helper.Name, firstLine([]byte(helper.Log())))
	if err := helper.Err(); err != nil && !diedWithItsHost(err) {
		return fmt.Errorf("%s: %w: %s", helper.Name, err, helper.Log())
	}
	return nil
}

// diedWithItsHost says whether a helper was killed: nobody else does that.
func diedWithItsHost(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}

// helperVariable has the arguments of a helper, one a line.
const helperVariable = "KEEPBEAT_FAULT_HELPER"

// Help does a helper's work when this program was started as one, and does not return then.
func Help() {
	args, asked := os.LookupEnv(helperVariable)
	if !asked {
		return
	}
	f := strings.Split(args, "\n")
	helpers := map[string]func([]string) error{
		"arp": watchARP, "pages": pages, "hogs": hogs, "hog": hog, "garbage": garbage,
		"record": record, "replay": replay, "initials": initials, "half-open": halfOpen,
	}
	if err := helpers[f[0]](f[1:]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}
