package fencing

import (
	"fmt"
	"os"
	"strings"

	"github.com/keepbeat/keepbeat/conf"
)

// Plan implements Service. It runs nothing: of an agent that has not been asked yet
// what it can do it says both.
func (f *Fencer) Plan(node string, action conf.FenceAction) []string {
	spec := f.current()
	names := levelsOf(spec, node)
	if len(names) == 0 {
		return []string{fmt.Sprintf("nothing: %v fences %s", ErrNoDevice, node)}
	}
	var lines []string
	if spec.RandomDelay > 0 && action != conf.FenceOn {
		lines = append(lines, fmt.Sprintf("wait at random, up to %s", spec.RandomDelay))
	}
	for i, level := range names {
		lines = append(lines, fmt.Sprintf("level %d: %s", i+1, f.planLevel(spec, level, node, action)))
	}
	return lines
}

func (f *Fencer) planLevel(spec *conf.Fencing, names []string, node string, action conf.FenceAction) string {
	if err := f.lacks(spec, names, node); err != nil {
		return "cannot be done from here: " + err.Error()
	}
	var words []string
	for _, name := range names {
		d, _ := find(spec, name)
		words = append(words, f.planDevice(d, node, action, len(names) > 1))
	}
	text := strings.Join(words, "; and ")
	if action == conf.FenceReboot && len(names) > 1 {
		text += "; then on with all of them"
	}
	return text
}

func (f *Fencer) planDevice(d conf.FenceDevice, node string, action conf.FenceAction, several bool) string {
	switch d.Type {
	case conf.FenceManual:
		return fmt.Sprintf("device %s: wait up to %s until a person says: keepbeat fence confirm %s", d.Name, d.Timeout, node)
	case conf.FenceWatchdog:
		return fmt.Sprintf("device %s: wait until %s has been silent for %s, when its watchdog has reset it", d.Name, node, d.Timeout)
	}
	t, _ := targetOf(d, node)
	what := action.String()
	if action == conf.FenceReboot {
		what = f.planReboot(d, several)
	}
	text := fmt.Sprintf("device %s (%s", d.Name, kind(d))
	if t.Port != "" {
		text += ", as " + t.Port
	}
	text += "): " + what
	if d.Delay > 0 {
		text += fmt.Sprintf(" after %s", d.Delay)
	}
	if d.Retries == 0 {
		return text + fmt.Sprintf(", one try of at most %s", d.Timeout)
	}
	return text + fmt.Sprintf(", at most %d tries of %s, %s apart", d.Retries+1, d.Timeout, retryPause)
}

func (f *Fencer) planReboot(d conf.FenceDevice, several bool) string {
	if several {
		return "off"
	}
	if d.Type != conf.FenceAgent {
		return "reboot"
	}
	path := f.cfg.programPath(d)
	st, err := os.Stat(path)
	if err != nil {
		return "reboot"
	}
	switch m := f.meta.have(path, st); {
	case m == nil:
		return "reboot (or off, where it has no reboot)"
	case m.actions["reboot"]:
		return "reboot"
	case m.onItself:
		return "off (it has no reboot, and on is for the node itself when it is back)"
	}
	return "off, then on (it has no reboot)"
}
