package conf

import (
	"fmt"
	"path/filepath"
	"strings"

	"gopkg.in/yaml.v3"
)

const (
	// maxArguments bounds what a program is given.
	maxArguments = 100
	// maxPath is PATH_MAX of the kernel without the closing zero. The other words
	// of a command need no more; the kernel takes 128 KiB (execve(2)).
	maxPath = 4095
)

// splitCommand takes a command line apart: blanks separate words, quotes hold
// them together, \ takes the next character as it is. What only a shell could
// do is refused.
func splitCommand(s string) ([]string, error) {
	var words []string
	var b strings.Builder
	open, quoted := false, rune(0)
	escaped := false
	for _, c := range s {
		switch {
		case escaped:
			escaped = false
			b.WriteRune(c)
		case c == '\\' && quoted != '\'':
			escaped, open = true, true
		case quoted != 0 && c == quoted:
			quoted = 0
		case quoted == '\'':
			b.WriteRune(c)
		case strings.ContainsRune("`$", c), quoted == 0 && strings.ContainsRune("|&;<>()", c):
			return nil, fmt.Errorf("%q is for a shell, and none is run; write a list: [/bin/bash, -c, \"...\"]", string(c))
		case quoted != 0:
			b.WriteRune(c)
		case c == '"' || c == '\'':
			quoted, open = c, true
		case c == ' ' || c == '\t':
			if open {
				words = append(words, b.String())
			}
			b.Reset()
			open = false
		default:
			b.WriteRune(c)
			open = true
		}
	}
	if quoted != 0 || escaped {
		return nil, fmt.Errorf("%s: a quote has no end", quote(s))
	}
	if open {
		words = append(words, b.String())
	}
	return words, nil
}

// commandWords reads a text that is taken apart, or a list of words.
func (r *reader) commandWords(n *yaml.Node, key string) ([]string, bool) {
	n = r.resolve(n)
	var words []string
	good := true
	if n.Kind == yaml.SequenceNode {
		r.list(n, key, func(_ int, n *yaml.Node) {
			s, ok := r.scalar(n, "a word")
			if ok && strings.ContainsAny(s, "\x00") {
				r.errorf(n, "a word cannot have a zero byte")
				ok = false
			}
			words, good = append(words, s), good && ok
		})
	} else {
		s, ok := r.text(n)
		if !ok {
			return nil, false
		}
		var err error
		if words, err = splitCommand(s); err != nil {
			r.errorf(n, "%s: %s", key, err)
			return nil, false
		}
	}
	switch {
	case !good:
	case len(words) == 0 || words[0] == "":
		r.errorf(n, "%s is empty; name the program", key)
		good = false
	case len(words) > maxArguments:
		r.errorf(n, "%s has %d words; the limit is %d", key, len(words), maxArguments)
		good = false
	default:
		for _, w := range words {
			if len(w) > maxPath {
				r.errorf(n, "%s: a word has %d bytes; the limit is %d", key, len(w), maxPath)
				return nil, false
			}
		}
	}
	return words, good
}

// command reads a program, an absolute path, and its arguments.
func (r *reader) command(key string) func(*yaml.Node) ([]string, bool) {
	return func(n *yaml.Node) ([]string, bool) {
		words, ok := r.commandWords(n, key)
		if !ok {
			return nil, false
		}
		switch path := words[0]; {
		case path == "[[" || path == "[":
			r.errorf(n, "%s: %q is for a shell, and none is run; write a list: [/bin/bash, -c, \"...\"]", key, path)
		case !filepath.IsAbs(path):
			r.errorf(n, "%s: %s is not an absolute path; write where the program is, such as %s (command -v %s)", key, quote(path), quote("/usr/bin/"+filepath.Base(path)), filepath.Base(path))
		default:
			return words, true
		}
		return nil, false
	}
}

func (r *reader) processWords(n *yaml.Node) ([]string, bool) { return r.commandWords(n, "process") }

// rawNotify is what is run when a state changes.
type rawNotify struct {
	master, backup, fault, stop, notify opt[[]string]
	user                                opt[string]
	mail                                opt[bool]
}

func (x *rawNotify) fields(r *reader) []field {
	run := func(key, when string, to *opt[[]string]) field {
		return field{key, "Program, an absolute path, and its arguments, run when the state has become " + when + ", one at a time in the order of the changes. Default: none.", into(to, r.command(key))}
	}
	return []field{
		run("notify_master", "MASTER", &x.master),
		run("notify_backup", "BACKUP", &x.backup),
		run("notify_fault", "FAULT", &x.fault),
		run("notify_stop", "STOP, because the daemon ends", &x.stop),
		{"notify", "Program, an absolute path, and its arguments, run at every change after the one of that state, with four more arguments: INSTANCE or GROUP, the name, the state, the priority. Default: none.", into(&x.notify, r.command("notify"))},
		{"script_user", "User as whom these programs run. Default: script_user of global_defs, or the daemon's, root.", into(&x.user, r.userName)},
		{"smtp_alert", "Whether changes are mailed to notification_email of global_defs. Default: smtp_alert there, or no.", into(&x.mail, r.boolean)},
	}
}

func (p *vrrpReader) notify(x *rawNotify) VRRPNotify {
	g := &p.global
	n := VRRPNotify{Master: x.master.v, Backup: x.backup.v, Fault: x.fault.v, Stop: x.stop.v, Notify: x.notify.v}
	if n.Master != nil || n.Backup != nil || n.Fault != nil || n.Stop != nil || n.Notify != nil {
		n.User = first("", x.user, g.user)
	} else if x.user.at != nil && p.odd == 0 && len(p.errs) == 0 {
		p.errorf(x.user.at, "script_user has no effect: no notify program is named; take it out")
	}
	n.Mail = first(false, x.mail, g.alertVRRP, g.alert)
	if n.Mail && !g.to.ok {
		for _, o := range []opt[bool]{x.mail, g.alertVRRP, g.alert} {
			if o.ok && o.v {
				if g.to.at == nil {
					p.errorf(o.at, "a mail needs somebody to be told; add \"notification_email: admin@example.org\" to global_defs")
				}
				break
			}
		}
	}
	return n
}

type rawSyncGroup struct {
	group   *yaml.Node
	weights opt[bool]
	notify  rawNotify
	tracks  rawTracks
}

func (raw *rawSyncGroup) fields(p *vrrpReader) []field {
	f := []field{
		{"group", "Names of two or more vrrp_instance that are master together: one that cannot be keeps all from it. Required.", func(n *yaml.Node) { raw.group = n }},
		{"sync_group_tracking_weight", "Whether weights count in the instances of the group, too; otherwise only what makes FAULT does. Default no.", into(&raw.weights, p.boolean)},
	}
	f = append(f, raw.tracks.fields(p)...)
	return append(f, raw.notify.fields(p.reader)...)
}

func (p *vrrpReader) syncGroup(key, value *yaml.Node) {
	var raw rawSyncGroup
	if !p.mapping(value, "vrrp_sync_group "+quote(key.Value), raw.fields(p), vrrpElsewhere()) {
		return
	}
	g := VRRPSyncGroup{
		Name: key.Value, Weights: raw.weights.or(false), Notify: p.notify(&raw.notify),
		TrackInterfaces: raw.tracks.interfaces, TrackScripts: raw.tracks.scripts, TrackProcesses: raw.tracks.processes, TrackFiles: raw.tracks.files,
	}
	if raw.group == nil {
		p.errorf(key, "vrrp_sync_group %s has no group; write \"group: [VI_1, VI_2]\"", quote(g.Name))
		return
	}
	before := len(p.errs)
	p.oneOrList(raw.group, "group", func(n *yaml.Node) {
		name, ok := p.scalar(n, "the name of a vrrp_instance")
		if !ok {
			return
		}
		i := p.instances[name]
		switch {
		case i == nil && p.broken[name]:
		case i == nil && len(strings.Fields(name)) > 1:
			p.errorf(n, "vrrp_sync_group %s: %s", quote(g.Name), another(strings.Fields(name), 1))
		case i == nil:
			p.errorf(n, "vrrp_sync_group %s: no vrrp_instance is called %s%s", quote(g.Name), quote(name), didYouMean(name, p.instanceNames()))
		case i.group != "":
			p.errorf(n, "vrrp_sync_group %s: %s is in group %s already (line %d), and an instance is in one", quote(g.Name), quote(name), quote(i.group), i.groupAt.Line)
		default:
			i.group, i.groupAt = g.Name, n
			g.Instances = append(g.Instances, name)
		}
	})
	if len(g.Instances) < 2 && len(p.errs) == before && len(p.broken) == 0 {
		p.errorf(raw.group, "vrrp_sync_group %s has %s; a group is for two or more", quote(g.Name), count(len(g.Instances), "instance"))
	}
	p.v.SyncGroups = append(p.v.SyncGroups, g)
}
