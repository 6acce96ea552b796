package ipvs

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keepbeat/keepbeat/checks"
	"github.com/keepbeat/keepbeat/conf"
)

var update = flag.Bool("update", false, "write testdata anew")

// TestServiceStories plays testdata/service/*.txt: a service is described, and
// then, line by line behind ">", what happens to it after how long. Below each
// stands what was decided: quorum, when time alone changes something, what there
// is to tell and what the table ought to hold.
func TestServiceStories(t *testing.T) {
	files, err := filepath.Glob("testdata/service/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d stories, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := newStory(t).play(string(b))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if d := cmp.Diff(string(b), got); d != "" {
				t.Errorf("%s (go test -update writes it anew):\n%s", file, d)
			}
		})
	}
}

// story is a service and its surroundings.
type story struct {
	t       *testing.T
	v       conf.Virtual
	s       service
	now     time.Time
	health  map[string]checks.Status
	checked time.Time
	assumed map[netip.AddrPort]bool
	kept    map[netip.AddrPort]bool
	stood   map[netip.AddrPort]bool
	earlier *earlier
	orders  map[netip.AddrPort]Order
	file    string
}

func newStory(t *testing.T) *story {
	return &story{t: t, v: virtual("10.0.0.1:80"), now: noon, health: map[string]checks.Status{},
		assumed: map[netip.AddrPort]bool{}, kept: map[netip.AddrPort]bool{}, stood: map[netip.AddrPort]bool{}, orders: map[netip.AddrPort]Order{}}
}

func (y *story) play(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "> "):
			out.WriteString(line + "\n" + y.happens(line[2:]))
		case strings.HasPrefix(line, "#"), line == "":
			out.WriteString(line + "\n")
		case strings.HasPrefix(line, "  "): // what was decided last time
		default:
			out.WriteString(line + "\n")
			y.described(line)
		}
	}
	return out.String()
}

func (y *story) described(line string) {
	words := strings.Fields(line)
	switch words[0] {
	case "service":
		for _, w := range words[1:] {
			y.set(w)
		}
	case "real", "fallback":
		r := real(words[1], conf.Gate, 1)
		if words[0] == "fallback" {
			r.Check = conf.Check{}
		}
		for _, w := range words[2:] {
			key, value, _ := strings.Cut(w, "=")
			switch key {
			case "weight":
				r.Weight = y.number(value)
			case "masq":
				r.Forward = conf.Masq
			case "checked":
				r.Check = real(words[1], conf.Gate, 1).Check
			case "also":
				also := netip.AddrPortFrom(r.Address.Addr(), uint16(y.number(value)))
				r.Also = append(r.Also, real(also.String(), conf.Gate, 1).Check)
			case "on":
				r.Check = conf.Check{Type: conf.On}
			case "off":
				r.Check = conf.Check{Type: conf.Off}
			default:
				y.t.Fatalf("%q?", line)
			}
		}
		if words[0] == "real" {
			y.v.Reals = append(y.v.Reals, r)
		} else {
			y.v.Fallbacks = append(y.v.Fallbacks, r)
		}
	default:
		y.t.Fatalf("%q?", line)
	}
}

func (y *story) set(word string) {
	key, value, _ := strings.Cut(word, "=")
	switch key {
	case "quorum":
		y.v.Quorum = y.number(value)
	case "hysteresis":
		y.v.Hysteresis = y.number(value)
	case "quiescent":
		y.v.Quiescent = value != "no"
	case "slow_start":
		y.v.SlowStart = y.duration(value)
	case "every":
		y.v.Email.Every = y.duration(value)
	case "alpha":
		y.v.Alpha = true
	case "omega":
		y.v.Omega = true
	default:
		y.t.Fatalf("%q?", word)
	}
}

func (y *story) happens(line string) string {
	at, rest, _ := strings.Cut(line, " ")
	y.now = noon.Add(y.duration(at))
	var b strings.Builder
	for _, what := range strings.Split(rest, ";") {
		words := strings.Fields(what)
		if len(words) == 0 {
			continue
		}
		arg := func(i int) string {
			if i < len(words) {
				return words[i]
			}
			return ""
		}
		switch words[0] {
		case "up":
			st := checks.Status{Known: true, Up: true, OK: true, Detail: "ok"}
			if w, weighed := strings.CutPrefix(arg(2), "weight="); weighed {
				st.Weighed, st.Weight = true, y.number(w)
			}
			y.health[words[1]] = st
		case "down":
			y.health[words[1]] = checks.Status{Known: true, Detail: strings.Join(words[2:], " ")}
		case "unknown":
			delete(y.health, words[1])
		case "found":
			y.assumed[ap(words[1])] = true
		case "kept":
			y.kept[ap(words[1])] = true
		case "left": // by an earlier daemon, as found before
			y.earlier = &earlier{serves: len(y.assumed)+len(y.stood) > 0, stood: len(y.stood) > 0}
		case "stood":
			y.stood[ap(words[1])] = true
		case "drain", "disable", "weight":
			o := Order{Action: map[string]conf.RealAction{"drain": Drain, "disable": Disable, "weight": SetWeight}[words[0]], By: "alice"}
			for _, w := range words[2:] {
				o.Weight = y.number(w)
			}
			y.orders[ap(words[1])] = o
		case "enable":
			delete(y.orders, ap(words[1]))
		case "file":
			y.file = arg(1)
		case "removed":
			y.s.removed(ap(words[1]), y.now)
		case "checked":
			y.checked = y.now
		case "set":
			y.set(words[1])
		case "add":
			y.described(strings.Join(words[1:], " "))
		case "drop":
			for i, r := range y.v.Reals {
				if r.Address == ap(words[1]) {
					y.v.Reals = append(y.v.Reals[:i:i], y.v.Reals[i+1:]...)
					break
				}
			}
		case "end":
			for _, e := range y.s.end(y.v, y.now) {
				b.WriteString("  " + tellEvent(e) + "\n")
			}
			return b.String()
		default:
			y.t.Fatalf("%q?", what)
		}
	}
	d := y.s.step(y.v, input{
		now: y.now, base: noon,
		health:  func(c conf.Check) checks.Status { return y.health[c.Target.String()] },
		checked: func(conf.Check) time.Time { return y.checked },
		assumed: func(a netip.AddrPort) bool { return y.assumed[a] },
		kept:    func(a netip.AddrPort) bool { return y.kept[a] },
		stood:   func(a netip.AddrPort) bool { return y.stood[a] },
		earlier: y.earlier,
		order:   func(a netip.AddrPort) (Order, bool) { o, found := y.orders[a]; return o, found },
		file: func(r conf.Real) string {
			if r.Address.String() == y.file {
				return y.file
			}
			return ""
		},
	})
	fmt.Fprintf(&b, "  quorum %s, weight %d", d.quorum, d.sum)
	if !d.next.IsZero() {
		fmt.Fprintf(&b, "; again at %v", d.next.Sub(noon))
	}
	b.WriteString("\n")
	for _, e := range d.events {
		b.WriteString("  " + tellEvent(e) + "\n")
	}
	for _, dest := range d.entry.Dests {
		b.WriteString("    " + dest.rule() + "\n")
	}
	return b.String()
}

func tellEvent(e event) string {
	s := [...]string{"", "up", "down", "still down", "quorum", "no quorum", "fallback on", "fallback off"}[e.kind]
	if e.server().IsValid() {
		s += " " + e.server().String()
	}
	if e.kind == serverUp {
		s += fmt.Sprintf(" weight %d", e.weight)
	}
	if e.why != "" {
		s += ": " + e.why
	}
	if e.found {
		s += " (found so)"
	}
	if e.ending {
		s += " (ending)"
	}
	return "* " + s
}

func (y *story) number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		y.t.Fatal(err)
	}
	return n
}

func (y *story) duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		y.t.Fatal(err)
	}
	return d
}
