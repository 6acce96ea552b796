package fencing

import (
	"errors"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// retryPause is between two tries: many boards have room for one session and
// need a moment to forget the last.
const retryPause = time.Second

// level is a level of a node's topology, as the course sees it.
type level struct {
	number int // from 1, as the administrator counts
	parts  []part
}

type part struct {
	device string
	delay  time.Duration // before its first try
	tries  int
}

// step is what is to be done next.
type step struct {
	level    int
	device   string
	action   conf.FenceAction
	afterOff bool          // the action switches the node on again; nothing depends on it
	wait     time.Duration // before it
	try      int           // from 1
}

// course is the fencing of one node: it says what to do next and is told what
// became of it. No clock, no device, no goroutine.
//
// Levels are tried in turn; of a level every device has to succeed. A reboot
// with several devices (power supplies) is off with all of them and then on with all:
// each by itself would never take all power away. So is that with a device
// that has no reboot. The node is down when the last off has succeeded, whatever on does.
type course struct {
	action conf.FenceAction
	levels []level
	random time.Duration // before the first step

	at, part, try int              // of the step that is next; try from 0
	doing         conf.FenceAction // Reboot, Off or On
	delayed       bool             // the wait before this part has been
	certain       bool             // the node is down
	done          bool             // a level has succeeded
	over          bool
}

func newCourse(action conf.FenceAction, levels []level, random time.Duration) *course {
	c := &course{action: action, levels: levels, random: random}
	c.enter(0)
	return c
}

func (c *course) enter(level int) {
	c.at, c.part, c.try, c.delayed = level, 0, 0, false
	if c.at >= len(c.levels) {
		c.over = true
		return
	}
	c.doing = c.action
	if c.action == conf.FenceReboot && len(c.levels[c.at].parts) > 1 {
		c.doing = conf.FenceOff
	}
}

// next returns the step to take; false: there is none any more.
func (c *course) next() (step, bool) {
	if c.over {
		return step{}, false
	}
	l := c.levels[c.at]
	p := l.parts[c.part]
	s := step{level: l.number, device: p.device, action: c.doing, afterOff: c.certain, try: c.try + 1}
	switch {
	case c.try > 0:
		s.wait = retryPause
	case !c.delayed && !c.certain && c.action != conf.FenceOn:
		s.wait = p.delay
	}
	s.wait, c.random = s.wait+c.random, 0
	c.delayed = true
	return s, true
}

// took says what became of the step. It returns false when that was no
// attempt: the device has no such action, and another way is taken.
func (c *course) took(err error) bool {
	switch {
	case err == nil:
		c.advance()
	case errors.Is(err, errNoAction) && c.doing == conf.FenceReboot:
		c.doing, c.try = conf.FenceOff, 0 // one part: see enter
		return false
	case errors.Is(err, errNoAction) && c.certain:
		c.advance() // nothing there switches on: a watchdog, a person
		return false
	case c.try+1 < c.levels[c.at].parts[c.part].tries && !isFinal(err):
		c.try++
	case c.certain:
		c.advance() // the others may still be switched on
	default:
		c.enter(c.at + 1)
	}
	return true
}

func (c *course) advance() {
	c.part, c.try, c.delayed = c.part+1, 0, false
	if c.part < len(c.levels[c.at].parts) {
		return
	}
	c.done = true
	if c.doing == conf.FenceOff && c.action == conf.FenceReboot {
		c.doing, c.part, c.certain = conf.FenceOn, 0, true
		return
	}
	c.certain = c.action != conf.FenceOn
	c.over = true
}

// half names the devices of the level that is under way which have cut their part
// off, while it is not certain yet that the node is down.
func (c *course) half() []string {
	if c.doing != conf.FenceOff || c.certain || c.over {
		return nil
	}
	var list []string
	for _, p := range c.levels[c.at].parts[:c.part] {
		list = append(list, p.device)
	}
	return list
}

func isFinal(err error) bool {
	var f final
	return errors.As(err, &f) || errors.Is(err, errNoAction)
}
