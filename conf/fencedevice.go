package conf

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Defaults of fencing.
const (
	DefaultPriorityDelay        = time.Second
	DefaultFenceTimeout         = 60 * time.Second
	DefaultFenceRetries         = 1
	DefaultFenceMonitorInterval = 60 * time.Second
	DefaultManualTimeout        = 30 * time.Minute // FenceManual: a person has to come
)

const (
	maxFenceDelay   = 5 * time.Minute
	maxFenceTimeout = 30 * time.Minute
	// maxFenceTotal bounds what one device may take with all its tries: while
	// it lasts, the groups of the node are nowhere.
	maxFenceTotal = time.Hour
	maxDevices    = 200
)

// fenceReader is where things of `fencing:` are written, for the checks that
// need the whole file.
type fenceReader struct {
	at         *yaml.Node // the section; nil: there is none
	priorityAt *yaml.Node // the value of priority_fencing_delay
	faulty     bool       // so what is missing may be what is faulty
	deviceAt   map[string]*yaml.Node
	fencedAt   *yaml.Node // the first resource of class fenced
}

func (s *specReader) fencingFields(f *Fencing, devices, topology **yaml.Node) []field {
	delay := s.duration(0, maxFenceDelay)
	return []field{
		{"action", "What is done to a node that must be fenced: reboot or off. Default reboot.", func(n *yaml.Node) {
			if a, ok := s.fenceAction(n); ok {
				f.Action = a
			}
		}},
		{"priority_fencing_delay", "How long the node of a pair that has less at stake waits before it fences the other, 0s to 5m. Default 1s.", func(n *yaml.Node) {
			s.fence.priorityAt = n
			if d, ok := delay(n); ok {
				f.PriorityDelay = d
			}
		}},
		{"random_delay", "Bound of a random wait before each fencing, against two nodes that fence each other at the same moment, 0s to 5m. Default 0s.", func(n *yaml.Node) {
			if d, ok := delay(n); ok {
				f.RandomDelay = d
			}
		}},
		{"devices", "The devices by name. Required.", func(n *yaml.Node) { *devices = n }},
		{"topology", "By node: the levels that are tried in turn, each the name of a device or a list of names; of a list every device has to succeed. A node that is not named has a level for each device that has it as a target, in the order of the file.", func(n *yaml.Node) { *topology = n }},
	}
}

func (s *specReader) fenceAction(n *yaml.Node) (FenceAction, bool) {
	switch {
	case n.Kind == yaml.ScalarNode && (n.Value == "reset" || n.Value == "cycle"):
		s.errorf(n, "action %s is called reboot here", n.Value)
		return 0, false
	case n.Kind == yaml.ScalarNode && n.Value == "on":
		s.errorf(n, "action on does not stop a node; write reboot or off")
		return 0, false
	}
	return oneOf(s.reader, []string{"reboot", "off"}, FenceReboot, FenceOff)(n)
}

// fencing reads the section.
func (s *specReader) fencing(n *yaml.Node) {
	before := len(s.errs)
	s.fence.at = n
	s.fence.deviceAt = map[string]*yaml.Node{}
	f := &Fencing{Action: FenceReboot, PriorityDelay: DefaultPriorityDelay}
	var devices, topology *yaml.Node
	elsewhere := map[string]string{
		"stonith-enabled":        `"stonith-enabled" has no use here: fencing is on where devices are; take it out`,
		"stonith-action":         `"stonith-action" is called "action" here`,
		"stonith-timeout":        `"stonith-timeout" is "timeout" of each device here`,
		"priority-fencing-delay": `"priority-fencing-delay" is written with underscores: "priority_fencing_delay"`,
		"watchdog":               `a watchdog that is waited for is a device: devices: {NAME: {watchdog: yes, timeout: 90s, targets: [NODE]}}; the node's own watchdog device is named in ha.yaml`,
		"levels":                 `"levels" is called "topology" here: topology: {NODE: [DEVICE, [DEVICE, DEVICE]]}`,
		"priority":               `"priority" belongs into a group: groups: {web: {priority: 10, resources: [...]}}`,
	}
	if s.mapping(n, "fencing", s.fencingFields(f, &devices, &topology), elsewhere) {
		switch {
		case devices != nil:
			s.pairs(devices, "devices", func(key, value *yaml.Node) { s.device(f, key, value) })
			if len(f.Devices) == 0 && len(s.errs) == before {
				s.errorf(devices, "there are no devices; name one: \"ipmi-director1: {agent: fence_ipmilan, targets: [director1], params: {...}}\"")
			}
		case s.odd == 0 && len(s.errs) == before:
			s.errorf(n, "fencing has no \"devices\"; name one: \"devices: {ipmi-director1: {agent: fence_ipmilan, targets: [director1], params: {...}}}\"")
		}
		if topology != nil {
			s.topology(f, topology)
		}
	}
	s.fence.faulty = len(s.errs) > before
	s.spec.Fencing = f
}

// rawDevice is a device as it is written.
type rawDevice struct {
	kind                    string     // agent, external ...
	program                 *yaml.Node // its value
	targets                 *yaml.Node
	runOn                   opt[[]string]
	timeout, delay, monitor opt[time.Duration]
	retries                 opt[int]
	params                  opt[map[string]Param]
	paramsAt                map[string]*yaml.Node
}

func (s *specReader) deviceFields(raw *rawDevice) []field {
	fields := []field{
		{"agent", "A program of the fence-agents package, by its name or path: `agent: fence_ipmilan`.", nil},
		{"external", "A plugin of cluster-glue, by its name: `external: ipmi`.", nil},
		{"script", "A program of yours, by its path: `script: /etc/keepbeat/fence.sh`.", nil},
		{"manual", "A person, who sees to it that the node is off and says `keepbeat fence confirm NODE`: `manual: yes`.", nil},
		{"watchdog", "The target's own watchdog, which is waited for: `watchdog: yes`. For three nodes and more.", nil},
		{"targets", "The nodes that the device can fence: a list of names, or a mapping with what the device calls each (a plug, a port, a domain): `{director1: 3, director2: 4}`. Required.", func(n *yaml.Node) { raw.targets = n }},
		{"run_on", "The directors that can operate the device. Default: every director but the target.", into(&raw.runOn, s.runOn)},
		{"params", "Parameters of the device: a value, or where a secret is on the node that operates the device: `{file: /etc/keepbeat/ipmi.secret}` (its first line) or `{env: NAME}` (of the daemon). A secret that is written out is refused, since this file is replicated and kept.", into(&raw.params, func(n *yaml.Node) (map[string]Param, bool) { return s.params(raw, n) })},
		{"timeout", "How long one try of an action may take, 1s to 30m. Of a watchdog device: how long the target's reset may take from its last sign of life, at least 2 leases, the longest stop of a group of class fenced, 5s and twice the timeout of its watchdog; with less it is not believed to have reset itself. Default 60s; manual: 30m.", into(&raw.timeout, s.duration(time.Second, maxFenceTimeout))},
		{"retries", "Tries after the first, 0 to 20. Default 1; manual and watchdog: none.", into(&raw.retries, s.integer(0, 20))},
		{"delay", "Wait before the first try, 0s to 5m. Default 0s.", into(&raw.delay, s.duration(0, maxFenceDelay))},
		{"monitor_interval", "Time between looks whether the device still answers, 5s to 24h; 0s: never. Default 60s; manual and watchdog: never.", into(&raw.monitor, s.monitorInterval)},
	}
	for i := range fields[:5] {
		name := fields[i].name
		fields[i].read = func(n *yaml.Node) {
			if raw.kind != "" {
				s.errorf(n, "a device has one type, and this one is %s already; make a device of its own for %s", raw.kind, name)
				return
			}
			raw.kind, raw.program = name, n
		}
	}
	return fields
}

func (s *specReader) monitorInterval(n *yaml.Node) (time.Duration, bool) {
	d, ok := s.duration(0, 24*time.Hour)(n)
	if ok && d > 0 && d < 5*time.Second {
		s.errorf(n, "%s is out of range: 5s to 24h, or 0s for never", quote(n.Value))
		return 0, false
	}
	return d, ok
}

// device reads one entry of `devices:`.
func (s *specReader) device(f *Fencing, key, value *yaml.Node) {
	d := FenceDevice{Name: key.Value}
	switch {
	case !groupNameOK(d.Name):
		s.errorf(key, "%s cannot name a device: letters, digits, - . _ : and at most 64 of them", quote(d.Name))
		return
	case s.fence.deviceAt[d.Name] != nil:
		s.errorf(key, "duplicate device %s; it is already in line %d", quote(d.Name), s.fence.deviceAt[d.Name].Line)
		return
	case len(f.Devices) == maxDevices:
		s.errorf(key, "more than %d devices; the limit is %d", maxDevices, maxDevices)
	}
	if len(f.Devices) >= maxDevices {
		return
	}
	s.fence.deviceAt[d.Name] = key
	raw := rawDevice{paramsAt: map[string]*yaml.Node{}}
	odd := s.odd
	if !s.mapping(value, "device "+quote(d.Name), s.deviceFields(&raw), deviceElsewhere()) {
		return
	}
	if raw.kind == "" {
		if s.odd == odd {
			s.errorf(key, "device %s has no type; write one of \"agent: fence_...\", \"external: PLUGIN\", \"script: /PATH\", \"manual: yes\", \"watchdog: yes\"", quote(d.Name))
		}
		return
	}
	if !s.deviceType(&d, &raw) {
		return
	}
	if raw.targets == nil {
		if s.odd == odd {
			s.errorf(key, "device %s has no \"targets\"; list the nodes that it can fence", quote(d.Name))
		}
	} else {
		s.targets(&d, raw.targets)
	}
	d.RunOn = raw.runOn.v
	s.deviceParams(&d, &raw)
	s.deviceTimes(&d, &raw)
	s.deviceRunOn(&d, &raw)
	f.Devices = append(f.Devices, d)
}

// deviceElsewhere are the words of heartbeat and Pacemaker that are called otherwise here.
func deviceElsewhere() map[string]string {
	m := map[string]string{}
	for word, here := range map[string]string{
		"pcmk_host_list": "targets", "pcmk_host_map": "targets", "hostlist": "targets", "host": "targets", "nodes": "targets",
		"port": "\"targets: {director1: 3}\"", "plug": "\"targets: {director1: 3}\"",
		"pcmk_delay_base": "delay", "pcmk_delay_max": "random_delay for all devices together, beside devices,",
		"pcmk_reboot_timeout": "timeout", "pcmk_off_timeout": "timeout", "pcmk_reboot_retries": "retries", "pcmk_off_retries": "retries",
		"parameters": "params", "options": "params", "interval": "monitor_interval", "level": "topology, beside devices,",
		"action": "action for all devices together, beside devices,", "type": "agent, external, script, manual or watchdog", "plugin": "external",
		"meatware": "\"manual: yes\"",
	} {
		m[word] = fmt.Sprintf("%q is no key of a device; write %s instead", word, here)
	}
	return m
}

// deviceType reads the value of agent, external, script, manual or watchdog.
func (s *specReader) deviceType(d *FenceDevice, raw *rawDevice) bool {
	n := raw.program
	switch raw.kind {
	case "agent":
		d.Type = FenceAgent
		text, ok := s.text(n)
		if !ok {
			return false
		}
		d.Program = text
		if filepath.IsAbs(text) {
			d.Program = filepath.Clean(text)
			return true
		}
		if !programName(text) || !strings.HasPrefix(text, "fence_") {
			s.errorf(n, "%s is not a program of fence-agents%s", quote(text), agentHint(text))
			return false
		}
	case "external":
		d.Type = FenceExternal
		text, ok := s.text(n)
		if !ok {
			return false
		}
		// `stonith_host` and `stonith -t` call them external/ipmi.
		d.Program = strings.TrimPrefix(text, "external/")
		switch {
		case d.Program == "meatware":
			s.errorf(n, "a person is \"manual: yes\" here")
			return false
		case !programName(d.Program):
			s.errorf(n, "%s is not the name of a plugin in stonith/plugins/external, such as ipmi", quote(text))
			return false
		case d.Program == "ssh" || d.Program == "null":
			s.warnf(n, "external %s is for tests: it cannot stop a node that hangs or is cut off", d.Program)
		}
	case "script":
		d.Type = FenceScript
		var ok bool
		if d.Program, ok = s.path(n); !ok {
			return false
		}
	case "manual":
		d.Type = FenceManual
		return s.onlyYes(n, "manual")
	case "watchdog":
		d.Type = FenceWatchdog
		return s.onlyYes(n, "watchdog")
	}
	return true
}

func (s *specReader) onlyYes(n *yaml.Node, word string) bool {
	if n.Kind == yaml.ScalarNode && strings.HasPrefix(n.Value, "/") {
		s.errorf(n, "%s of a device is yes; the path of the watchdog belongs into ha.yaml of the node that has it: %s", word, quote("watchdog: "+n.Value))
		return false
	}
	yes, ok := s.boolean(n)
	if ok && !yes {
		s.errorf(n, "a device that is no %s has another type; write \"%s: yes\", or take the device out", word, word)
	}
	return ok && yes
}

// programName says whether a name stays inside of the directory where it is looked for.
func programName(name string) bool {
	return groupNameOK(name) && name[0] != '.' && !strings.Contains(name, ":")
}

func agentHint(text string) string {
	last := text[strings.LastIndexAny(text, ":/")+1:]
	switch {
	case strings.HasPrefix(text, "external/"):
		return fmt.Sprintf("; plugins of cluster-glue are %q", "external: "+last)
	case strings.HasPrefix(last, "fence_") && programName(last):
		return fmt.Sprintf("; write %q", last)
	case programName(last) && last == text:
		return fmt.Sprintf("; did you mean %q?", "fence_"+last)
	}
	return "; those are called fence_..., or give an absolute path"
}

const maxPort = 256

// targets reads the nodes, with or without what the device calls them.
func (s *specReader) targets(d *FenceDevice, n *yaml.Node) {
	before := len(s.errs)
	add := func(n *yaml.Node, port string) {
		if len(d.Targets) >= maxNodesNamed {
			s.errorf(n, "more than %d targets; the limit is %d", maxNodesNamed, maxNodesNamed)
			return
		}
		name, ok := s.nodeName(n)
		if !ok || !s.fenceable(n, name) {
			return
		}
		if slices.ContainsFunc(d.Targets, func(t FenceTarget) bool { return t.Node == name }) {
			s.errorf(n, "duplicate node %q in targets", name)
			return
		}
		d.Targets = append(d.Targets, FenceTarget{name, port})
	}
	switch n.Kind {
	case yaml.ScalarNode:
		add(n, "")
	case yaml.SequenceNode:
		s.list(n, "targets", func(_ int, n *yaml.Node) { add(n, "") })
	default:
		s.pairs(n, "targets", func(key, value *yaml.Node) {
			port := ""
			if !isNull(value) {
				var ok bool
				if port, ok = s.text(value); ok && len(port) > maxPort {
					s.errorf(value, "a port has at most %d characters", maxPort)
				}
			}
			if port != "" && (d.Type == FenceManual || d.Type == FenceWatchdog) {
				s.errorf(value, "%s devices have no ports; list the names of the nodes", d.Type)
			}
			add(key, port)
		})
	}
	if len(d.Targets) == 0 && len(s.errs) == before {
		s.errorf(n, "targets is empty; list the nodes that the device can fence")
	}
}

func (s *specReader) runOn(n *yaml.Node) (names []string, good bool) {
	good = true
	add := func(n *yaml.Node) {
		name, ok := s.nodeName(n)
		switch {
		case ok && len(names) >= maxNodesNamed:
			s.errorf(n, "more than %d nodes in run_on; the limit is %d", maxNodesNamed, maxNodesNamed)
			ok = false
		case ok && slices.Contains(names, name):
			s.errorf(n, "duplicate node %q in run_on", name)
			ok = false
		}
		if ok = ok && s.isNode(n, name); ok {
			names = append(names, name)
		}
		good = good && ok
	}
	if n.Kind == yaml.ScalarNode {
		add(n)
		return names, good
	}
	if !s.list(n, "run_on", func(_ int, n *yaml.Node) { add(n) }) {
		return nil, false
	}
	if good && len(names) == 0 {
		s.errorf(n, "run_on is empty; leave it out, and every director but the target operates the device")
		good = false
	}
	return names, good
}

// isNode says whether a node has that name, whatever its role.
func (s *specReader) isNode(n *yaml.Node, name string) bool {
	if s.local == nil {
		return true
	}
	var names []string
	for _, x := range s.local.Nodes {
		if x.Name == name {
			return true
		}
		names = append(names, x.Name)
	}
	s.errorf(n, "no node is called %s%s", quote(name), didYouMean(name, names))
	return false
}

// deviceRunOn refuses a device that only its own target would operate.
func (s *specReader) deviceRunOn(d *FenceDevice, raw *rawDevice) {
	if !raw.runOn.ok {
		return
	}
	for _, t := range d.Targets {
		if len(d.RunOn) == 1 && d.RunOn[0] == t.Node {
			s.errorf(raw.runOn.at, "only %s itself would operate the device that fences it; name another node in run_on, or leave it out", t.Node)
			return
		}
	}
}

// deviceTimes fills in the defaults of the type and looks at what they add up to.
func (s *specReader) deviceTimes(d *FenceDevice, raw *rawDevice) {
	d.Timeout, d.Retries, d.Delay = raw.timeout.or(DefaultFenceTimeout), raw.retries.or(DefaultFenceRetries), raw.delay.or(0)
	d.MonitorInterval = raw.monitor.or(DefaultFenceMonitorInterval)
	if d.Type == FenceManual || d.Type == FenceWatchdog {
		if d.Type == FenceManual {
			d.Timeout = raw.timeout.or(DefaultManualTimeout)
		}
		d.Retries, d.MonitorInterval = 0, 0
		for _, k := range []struct {
			name string
			at   *yaml.Node
		}{{"params", raw.params.at}, {"retries", raw.retries.at}, {"monitor_interval", raw.monitor.at}} {
			if k.at != nil {
				s.errorf(k.at, "%s has no use for a %s device; take it out", k.name, d.Type)
			}
		}
	}
	if total := d.Delay + time.Duration(d.Retries+1)*d.Timeout; total > maxFenceTotal {
		at := raw.retries.at
		if at == nil {
			at = raw.timeout.at
		}
		s.errorf(at, "device %s may take %s (delay %s, and %d tries of %s each) while the groups of the node are nowhere; at most %s: less timeout, or fewer retries",
			quote(d.Name), brief(total), brief(d.Delay), d.Retries+1, brief(d.Timeout), brief(maxFenceTotal))
	}
}
