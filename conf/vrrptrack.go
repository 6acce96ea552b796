package conf

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"gopkg.in/yaml.v3"
)

// The range of weights: 253 turns the lowest priority, 1, into the highest of a
// backup, 254. Those of files and processes may be one more, as keepalived has it.
const (
	maxWeight      = 253
	maxWeightFiles = 254
)

// rawTracked is what scripts, processes and files have in common.
type rawTracked struct {
	weight  opt[[]string] // NUMBER [reverse|noreverse]
	reverse opt[bool]
}

func (w *rawTracked) fields(r *reader, most int, fallback string) []field {
	return []field{
		{"weight", fmt.Sprintf("What it changes the priority by where a track says nothing else, %d to %d: a positive weight is added while it is well, a negative one while it is not; with 0 an instance is in state FAULT while it is not. `5 reverse` is short for reverse: yes. Default %s.", -most, most, fallback), into(&w.weight, r.weight(most))},
		{"reverse", "Whether the priority is lowered where it would be raised, and the reverse; with weight 0: whether well is what is wrong. Default no.", into(&w.reverse, r.boolean)},
	}
}

// over lays what is said here over what t has.
func (w *rawTracked) over(t *VRRPTrack) {
	if w.weight.ok {
		_ = t.weigh(w.weight.v, maxWeightFiles) // weight has looked
	}
	t.Reverse = w.reverse.or(t.Reverse)
}

// weight reads NUMBER [reverse|noreverse].
func (r *reader) weight(most int) func(*yaml.Node) ([]string, bool) {
	return func(n *yaml.Node) ([]string, bool) {
		s, ok := r.scalar(n, "a weight")
		if !ok {
			return nil, false
		}
		words := strings.Fields(s)
		if err := new(VRRPTrack).weigh(words, most); err != nil {
			r.errorf(n, "%s", err)
			return nil, false
		}
		return words, true
	}
}

// weigh reads the words after "weight".
func (t *VRRPTrack) weigh(words []string, most int) error {
	if len(words) == 0 {
		return fmt.Errorf("a weight is wanted, %d to %d", -most, most)
	}
	v, err := parseNumber(words[0], int64(-most), int64(most))
	if err != nil {
		return fmt.Errorf("weight: %w", err)
	}
	t.Weight = int(v)
	for _, w := range words[1:] {
		switch w {
		case "reverse":
			t.Reverse = true
		case "noreverse":
			t.Reverse = false
		default:
			return fmt.Errorf("weight: %s is not understood; write \"weight %d\" or \"weight %d reverse\"", quote(w), v, v)
		}
	}
	return nil
}

// trackedEntry is how an entry of what may be tracked is read.
type trackedEntry struct {
	track    string // the key by which it is tracked, track_script
	fields   []field
	weights  *rawTracked
	fallback int         // its weight unless it says otherwise
	needs    **yaml.Node // where the key stands that it cannot be without
	example  string      // of that
}

// entry reads one, and remembers it with its own weight for those that track it.
func (p *vrrpReader) entry(key, value *yaml.Node, x trackedEntry) (own VRRPTrack, ok bool) {
	what := sections[x.track] + " " + quote(key.Value)
	if !p.mapping(value, what, x.fields, vrrpElsewhere()) {
		return own, false
	}
	if *x.needs == nil {
		word, _, _ := strings.Cut(x.example, ":")
		p.errorf(key, "%s has no %s; write %q", what, word, x.example)
	}
	own = VRRPTrack{Name: key.Value, Weight: x.fallback}
	x.weights.over(&own)
	if p.tracked[x.track] == nil {
		p.tracked[x.track] = map[string]placed[VRRPTrack]{}
	}
	p.tracked[x.track][own.Name] = placed[VRRPTrack]{own, key}
	return own, true
}

type rawScript struct {
	command           opt[[]string]
	interval, timeout opt[time.Duration]
	rise, fall        opt[int]
	user              opt[string]
	initFail          opt[bool]
	rawTracked
}

func (raw *rawScript) fields(r *reader) []field {
	each := r.duration(10*time.Millisecond, 24*time.Hour)
	return append([]field{
		{"script", "The program and its arguments, run without a shell: a text, in which quotes hold words together, or a list. Status 0 says that all is well. Required.", into(&raw.command, r.command("script"))},
		{"interval", "Time from start to start, 10ms to 24h. Default 1s.", into(&raw.interval, each)},
		{"timeout", "Time after which a run is ended and has failed, 10ms to 24h. Default: interval.", into(&raw.timeout, each)},
		{"rise", "Successes in a row until it is well again, 1 to 1000. Default 1.", into(&raw.rise, r.integer(1, 1000))},
		{"fall", "Failures in a row until it is not, 1 to 1000. Default 1.", into(&raw.fall, r.integer(1, 1000))},
		{"user", "User as whom it runs. Default: script_user of global_defs, or the daemon's, root.", into(&raw.user, r.userName)},
		{"init_fail", "Whether it is not well before its first result; otherwise an instance waits for that. Default no.", into(&raw.initFail, r.boolean)},
	}, raw.rawTracked.fields(r, maxWeight, "0")...)
}

func (p *vrrpReader) script(key, value *yaml.Node) {
	var raw rawScript
	own, ok := p.entry(key, value, trackedEntry{"track_script", raw.fields(p.reader), &raw.rawTracked, 0, &raw.command.at, "script: /usr/bin/killall -0 haproxy"})
	if !ok {
		return
	}
	s := VRRPScript{
		Name: key.Value, Command: raw.command.v, Interval: raw.interval.or(DefaultScriptInterval),
		Weight: own.Weight, Reverse: own.Reverse, Rise: raw.rise.or(1), Fall: raw.fall.or(1),
		User: raw.user.or(p.global.user.or("")), InitFail: raw.initFail.or(false),
	}
	s.Timeout = raw.timeout.or(s.Interval)
	p.v.Scripts = append(p.v.Scripts, s)
}

type rawProcess struct {
	process      opt[[]string]
	quorum, most opt[int]
	delay        opt[time.Duration]
	full         opt[bool]
	rawTracked
}

func (raw *rawProcess) fields(r *reader) []field {
	const most = 65535
	return append([]field{
		{"process", "Name of the program, and the first of its arguments if they have to be right, too: a text, in which quotes hold words together, or a list. Required.", into(&raw.process, r.processWords)},
		{"full_command", "Whether process is the path by which the program was called. Default no.", into(&raw.full, r.boolean)},
		{"quorum", "So many of them have to run, 1 to 65535. Default 1.", into(&raw.quorum, r.integer(1, most))},
		{"quorum_max", "And so many may, quorum to 65535. Default: any number.", into(&raw.most, r.integer(1, most))},
		{"delay", "Time that a change has to last before it counts, 0s to 1h. Default 0s.", into(&raw.delay, r.duration(0, time.Hour))},
	}, raw.rawTracked.fields(r, maxWeightFiles, "0")...)
}

func (p *vrrpReader) process(key, value *yaml.Node) {
	var raw rawProcess
	own, ok := p.entry(key, value, trackedEntry{"track_process", raw.fields(p.reader), &raw.rawTracked, 0, &raw.process.at, "process: haproxy"})
	if !ok {
		return
	}
	x := VRRPProcess{
		Name: key.Value, Process: raw.process.v, Weight: own.Weight, Reverse: own.Reverse,
		Quorum: raw.quorum.or(1), Most: raw.most.or(0), Delay: raw.delay.or(0), Full: raw.full.or(false),
	}
	if x.Most != 0 && x.Most < x.Quorum {
		p.errorf(raw.most.at, "quorum_max %d is less than quorum, %d: it would never be well", x.Most, x.Quorum)
	}
	if raw.process.ok && !x.Full && strings.Contains(x.Process[0], "/") {
		p.errorf(raw.process.at, "%s is a path; write the name of the program alone, or add \"full_command: yes\"", quote(x.Process[0]))
	}
	p.v.Processes = append(p.v.Processes, x)
}

type rawFile struct {
	path opt[string]
	rawTracked
}

func (raw *rawFile) fields(r *reader) []field {
	fields := raw.rawTracked.fields(r, maxWeightFiles, "1")
	fields[0].doc = fmt.Sprintf("What the number in the file is multiplied by before it is added to the priority, where a track says nothing else, %d to %d; with 0 an instance is in state FAULT while the number is not 0, otherwise while the product is below -253. Default 1.", -maxWeightFiles, maxWeightFiles)
	fields[1].doc = "Whether the number is taken with its sign changed; with weight 0: whether 0 is what is wrong. Default no."
	return append([]field{{"file", "The file, an absolute path, with a whole number in it. One that is not there counts as 0. Required.", into(&raw.path, r.path)}}, fields...)
}

func (p *vrrpReader) trackFile(key, value *yaml.Node) {
	var raw rawFile
	own, ok := p.entry(key, value, trackedEntry{"track_file", raw.fields(p.reader), &raw.rawTracked, 1, &raw.path.at, "file: /run/maintenance"})
	if ok {
		p.v.Files = append(p.v.Files, VRRPFile{Name: key.Value, Path: raw.path.v, Weight: own.Weight, Reverse: own.Reverse})
	}
}

// rawTracks are the tracks of an instance or a sync group.
type rawTracks struct {
	interfaces, scripts, processes, files []VRRPTrack
	at                                    map[string]*yaml.Node // by key and name
}

func (t *rawTracks) fields(p *vrrpReader) []field {
	const form = ": `NAME [weight N [reverse]]`, or a mapping; one or a list. "
	read := func(key string, most int, to *[]VRRPTrack) func(*yaml.Node) {
		return func(n *yaml.Node) { t.read(p, key, most, n, to) }
	}
	return []field{
		{"track_interface", "Interfaces that have to be up" + form + "Without a weight the state is FAULT while one is down.", read("track_interface", maxWeight, &t.interfaces)},
		{"track_script", "Names of vrrp_script" + form + "Default of the weight: the script's.", read("track_script", maxWeight, &t.scripts)},
		{"track_process", "Names of vrrp_track_process" + form + "Default of the weight: the process's.", read("track_process", maxWeightFiles, &t.processes)},
		{"track_file", "Names of track_file" + form + "Default of the weight: the file's.", read("track_file", maxWeightFiles, &t.files)},
	}
}

// sections are the places in which what is tracked is described.
var sections = map[string]string{"track_script": "vrrp_script", "track_process": "vrrp_track_process", "track_file": "track_file"}

func (t *rawTracks) read(p *vrrpReader, key string, most int, n *yaml.Node, to *[]VRRPTrack) {
	if t.at == nil {
		t.at = map[string]*yaml.Node{}
	}
	p.oneOrList(n, key, func(n *yaml.Node) {
		x, ok := p.track(key, most, n)
		if !ok {
			return
		}
		if first := t.at[key+" "+x.Name]; first != nil {
			p.errorf(n, "duplicate %s %s; it is already in line %d", key, quote(x.Name), first.Line)
			return
		}
		t.at[key+" "+x.Name] = n
		*to = append(*to, x)
	})
}

// track reads NAME [weight N [reverse|noreverse]], or the same as a mapping.
func (p *vrrpReader) track(key string, most int, n *yaml.Node) (VRRPTrack, bool) {
	if n.Kind == yaml.MappingNode {
		return p.trackMapping(key, most, n)
	}
	s, ok := p.scalar(n, "NAME or NAME weight N")
	if !ok {
		return VRRPTrack{}, false
	}
	words := strings.Fields(s)
	if len(words) == 0 {
		p.errorf(n, "%s: a name is wanted, or NAME weight N", key)
		return VRRPTrack{}, false
	}
	for i := 1; i < len(words); i++ {
		switch words[i] {
		case "weight":
			i++ // whatever its value is
			continue
		case "reverse", "noreverse":
			continue
		}
		if p.isTracked(key, words[i]) {
			p.errorf(n, "%s: %s", key, another(words, i))
			return VRRPTrack{}, false
		}
	}
	t, ok := p.trackName(key, words[0], n)
	switch {
	case len(words) == 1 || !ok:
		return t, ok
	case words[1] != "weight":
		p.errorf(n, "%s: %s is not understood; write \"%s weight N\"", key, quote(words[1]), words[0])
		return t, false
	}
	if err := t.weigh(words[2:], most); err != nil {
		p.errorf(n, "%s %s: %s", key, words[0], err)
		return t, false
	}
	return t, true
}

// isTracked says of a word behind a name whether it is another name.
func (p *vrrpReader) isTracked(key, word string) bool {
	if sections[key] == "" {
		// Of interfaces no list exists: what looks like one, and like nothing else.
		return strings.ContainsAny(word, "0123456789") && strings.ContainsFunc(word, unicode.IsLetter) && checkInterface(word) == nil
	}
	_, is := p.tracked[key][word]
	return is
}

func trackFields(r *reader, most int, name *opt[string], w *rawTracked) []field {
	fields := w.fields(r, most, "that of what is tracked")
	fields[0].doc = fmt.Sprintf("What it changes the priority by, %d to %d. Default: the weight of what is tracked, 0 of an interface.", -most, most)
	fields[1].doc = "Whether the priority is lowered where it would be raised, and the reverse; with weight 0: whether well is what is wrong. Default: as what is tracked has it."
	return append([]field{{"name", "What is tracked. Required.", into(name, r.text)}}, fields...)
}

func (p *vrrpReader) trackMapping(key string, most int, n *yaml.Node) (VRRPTrack, bool) {
	var name opt[string]
	var w rawTracked
	before := len(p.errs)
	if len(n.Content) > 0 && isNull(n.Content[1]) && p.isTracked(key, n.Content[0].Value) {
		p.errorf(n.Content[0], "%s: a colon stands behind %s; write a list, each behind a dash: %s", key, quote(n.Content[0].Value), quote("- "+n.Content[0].Value))
		return VRRPTrack{}, false
	}
	if !p.mapping(n, key, trackFields(p.reader, most, &name, &w), nil) {
		return VRRPTrack{}, false
	}
	if name.at == nil {
		p.errorf(n, "%s: \"name\" is missing", key)
	}
	if len(p.errs) > before {
		return VRRPTrack{}, false
	}
	t, ok := p.trackName(key, name.v, name.at)
	w.over(&t)
	return t, ok
}

// trackName finds what is tracked, with its own weight.
func (p *vrrpReader) trackName(key, name string, n *yaml.Node) (VRRPTrack, bool) {
	section := sections[key]
	if section == "" {
		if err := checkInterface(name); err != nil {
			p.errorf(n, "%s: %s", key, err)
			return VRRPTrack{}, false
		}
		return VRRPTrack{Name: name}, true
	}
	own, ok := p.tracked[key][name]
	if ok {
		return own.v, true
	}
	names := make([]string, 0, len(p.tracked[key]))
	for x := range p.tracked[key] {
		names = append(names, x)
	}
	if len(names) == 0 && p.odd > 0 {
		return VRRPTrack{}, false // it may be what was not understood
	}
	slices.Sort(names)
	hint := fmt.Sprintf("; there is no %s in this file", section)
	if len(names) > 0 {
		hint = didYouMean(name, names)
	}
	p.errorf(n, "%s: no %s is called %s%s", key, section, quote(name), hint)
	return VRRPTrack{}, false
}

// oneOrList calls f for a single value, or for each of a list.
func (r *reader) oneOrList(n *yaml.Node, what string, f func(*yaml.Node)) {
	if n = r.resolve(n); n.Kind == yaml.SequenceNode {
		r.list(n, what, func(_ int, n *yaml.Node) { f(n) })
		return
	}
	f(n)
}

// String is how a difference shows it.
func (t VRRPTrack) String() string {
	s := t.Name
	if t.Weight != 0 || t.Reverse {
		s += " weight " + strconv.Itoa(t.Weight)
	}
	if t.Reverse {
		s += " reverse"
	}
	return s
}
