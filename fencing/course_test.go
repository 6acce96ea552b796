package fencing

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keepbeat/keepbeat/conf"
)

// TestCourse tells for each story what is done, in order, and what comes of it. A
// device succeeds unless `fails` has "DEVICE ACTION" with how often (-1: always).
func TestCourse(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name   string
		action conf.FenceAction
		levels string // devices of a level with blanks between, levels with |
		tries  int
		fails  map[string]int
		lacks  string // "DEVICE ACTION, ..." that the device does not have
		hard   string // the same, that fail for good
		want   string
		result string
	}{
		{
			name: "one device that reboots is enough", action: conf.FenceReboot, levels: "ipmi", tries: 2,
			want: "1 ipmi reboot", result: "done certain",
		},
		{
			name: "what fails once is tried again after a pause", action: conf.FenceOff, levels: "ipmi | pdu", tries: 3,
			fails: map[string]int{"ipmi off": 1},
			want:  "1 ipmi off: broken\n1s\n1 ipmi off", result: "done certain",
		},
		{
			name: "the next level comes after the last try of one device", action: conf.FenceReboot, levels: "ipmi | pdu", tries: 2,
			fails: map[string]int{"ipmi reboot": -1},
			want:  "1 ipmi reboot: broken\n1s\n1 ipmi reboot: broken\n2 pdu reboot", result: "done certain",
		},
		{
			name: "of a level every device has to succeed", action: conf.FenceOff, levels: "a b | c", tries: 1,
			fails: map[string]int{"b off": -1},
			want:  "1 a off\n1 b off: broken\n2 c off", result: "done certain",
		},
		{
			name: "no level succeeds", action: conf.FenceReboot, levels: "a | b", tries: 1,
			fails: map[string]int{"a reboot": -1, "b reboot": -1},
			want:  "1 a reboot: broken\n2 b reboot: broken", result: "",
		},
		{
			name: "two power supplies are both off before one is on again", action: conf.FenceReboot, levels: "left right", tries: 1,
			want: "1 left off\n1 right off\n1 left on (after off)\n1 right on (after off)", result: "done certain",
		},
		{
			name: "the second supply that does not go off leaves the node running", action: conf.FenceReboot, levels: "left right", tries: 2,
			fails: map[string]int{"right off": -1},
			want:  "1 left off\n1 right off: broken\n1s\n1 right off: broken", result: "",
		},
		{
			name: "a supply that does not come on again changes nothing about the node being down", action: conf.FenceReboot, levels: "left right", tries: 2,
			fails: map[string]int{"left on": -1},
			want:  "1 left off\n1 right off\n1 left on (after off): broken\n1s\n1 left on (after off): broken\n1 right on (after off)", result: "done certain",
		},
		{
			name: "a device without reboot is switched off and on", action: conf.FenceReboot, levels: "pdu", tries: 2, lacks: "pdu reboot",
			want: "1 pdu (no reboot)\n1 pdu off\n1 pdu on (after off)", result: "done certain",
		},
		{
			name: "a device without reboot has all its tries for off", action: conf.FenceReboot, levels: "pdu", tries: 2, lacks: "pdu reboot",
			fails: map[string]int{"pdu off": 1},
			want:  "1 pdu (no reboot)\n1 pdu off: broken\n1s\n1 pdu off\n1 pdu on (after off)", result: "done certain",
		},
		{
			name: "a fabric has no on after off", action: conf.FenceReboot, levels: "san pdu", tries: 1, lacks: "san on",
			want: "1 san off\n1 pdu off\n1 san (no on)\n1 pdu on (after off)", result: "done certain",
		},
		{
			name: "a device without off is no help when several are needed", action: conf.FenceReboot, levels: "ssh pdu | ipmi", tries: 3, lacks: "ssh off",
			want: "1 ssh off: none\n2 ipmi reboot", result: "done certain",
		},
		{
			name: "what cannot get better is not tried again", action: conf.FenceOff, levels: "ipmi | pdu", tries: 5, hard: "ipmi off",
			want: "1 ipmi off: hopeless\n2 pdu off", result: "done certain",
		},
		{
			name: "on is certain of nothing", action: conf.FenceOn, levels: "left right", tries: 1,
			want: "1 left on\n1 right on", result: "done",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var levels []level
			for i, names := range strings.Split(c.levels, "|") {
				l := level{number: i + 1}
				for _, n := range strings.Fields(names) {
					l.parts = append(l.parts, part{device: n, tries: c.tries})
				}
				levels = append(levels, l)
			}
			m := newCourse(c.action, levels, 0)
			var got []string
			for range 100 {
				s, more := m.next()
				if !more {
					break
				}
				if s.wait > 0 {
					got = append(got, s.wait.String())
				}
				what := s.device + " " + s.action.String()
				line := fmt.Sprintf("%d %s", s.level, what)
				if s.afterOff {
					line += " (after off)"
				}
				var err error
				switch {
				case strings.Contains(c.lacks, what):
					err = errNoAction
				case strings.Contains(c.hard, what) && c.hard != "":
					err = final{errors.New("hopeless")}
				case c.fails[what] != 0:
					c.fails[what]--
					err = broken
				}
				switch {
				case !m.took(err):
					line = fmt.Sprintf("%d %s (no %s)", s.level, s.device, s.action)
				case errors.Is(err, errNoAction):
					line += ": none"
				case err != nil:
					line += ": " + err.Error()
				}
				got = append(got, line)
			}
			var result []string
			if m.done {
				result = append(result, "done")
			}
			if m.certain {
				result = append(result, "certain")
			}
			if diff := cmp.Diff(c.want, strings.Join(got, "\n")); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
			if got := strings.Join(result, " "); got != c.result {
				t.Errorf("result %q, not %q", got, c.result)
			}
			if !m.over {
				t.Error("it has no end")
			}
		})
	}
}

func TestCourseWaitsOnceForEachDevice(t *testing.T) {
	m := newCourse(conf.FenceReboot, []level{{1, []part{{"pdu", 5 * time.Second, 2}}}, {2, []part{{"ipmi", 3 * time.Second, 1}}}}, 2*time.Second)
	var got []string
	for _, err := range []error{errNoAction, errors.New("broken"), errors.New("broken"), nil} {
		s, _ := m.next()
		got = append(got, fmt.Sprintf("%s %s after %s", s.device, s.action, s.wait))
		m.took(err)
	}
	want := "pdu reboot after 7s, pdu off after 0s, pdu off after 1s, ipmi reboot after 3s"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}
