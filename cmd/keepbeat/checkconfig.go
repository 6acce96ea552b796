package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/keepbeat/keepbeat/checks"
	"github.com/keepbeat/keepbeat/conf"
)

func (a *app) checkConfigCommand() *cobra.Command {
	var as string
	c := &cobra.Command{
		Use: "check-config [DIR|FILE]", SuggestFor: []string{"validate", "verify", "test", "configtest"},
		Short: "Check ha.yaml, authkeys, haresources.yaml, vrrp.yaml and the pools",
		Long: `Checks the files together, and changes nothing. Each fault is one line on
stderr: file, line, column, what is wrong and the way out; warnings are marked.

Without an argument these are the files that the daemon of this node would
read. DIR is a directory with such files, of any cluster; FILE is one of them,
or a pool on its own. Programs, certificates and files with passwords that the
checks and virtual routers need are looked for when the files are this node's;
so are the groups, interfaces, serial lines and the watchdog of ha.yaml.`,
		Args: atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			k := checker{app: a, as: as}
			if len(args) == 0 {
				k.installed(a.config)
			} else {
				k.path(args[0])
			}
			if k.faulty {
				return silentError(exitRefused)
			}
			fmt.Fprintln(a.stdout, "checked:", strings.Join(k.checked, ", "))
			if k.unseen {
				fmt.Fprintln(a.stdout, "not looked at: programs, certificates and files with passwords that are needed on a director, since these are not the files of this node")
			}
			return nil
		},
	}
	c.Flags().StringVar(&as, "as", "", "check as this node would (default: this machine, or the first of nodes: for files from elsewhere)")
	return c
}

// checker gathers what check-config has to say.
type checker struct {
	*app
	as      string
	checked []string
	faulty  bool
	here    bool // these are this machine's files: its programs are looked at, too
	unseen  bool // they are not, and name some
}

func (k *checker) say(file string, warnings []conf.Warning, err error) bool {
	for _, w := range warnings {
		fmt.Fprintln(k.stderr, w)
	}
	if err != nil {
		k.faulty = true
		fmt.Fprintln(k.stderr, err)
		return false
	}
	if !slices.Contains(k.checked, file) {
		k.checked = append(k.checked, file)
	}
	return true
}

// installed checks what the daemon of this node would read.
func (k *checker) installed(config string) {
	k.here = true
	if err := nothingHere(config); err != nil {
		k.say(config, nil, err)
		return
	}
	routers := vrrpPath(config)
	if isAlone(config) {
		k.routers(routers, nil)
		return
	}
	var spec *conf.Spec
	if hasRouters(config) {
		defer func() { k.routers(routers, spec) }()
	}
	local, _ := k.local(config, false)
	if local == nil {
		// Faults of the others are told all the same, as far as they can be found.
		spec = k.spec(filepath.Dir(config), nil)
		return
	}
	k.machine(config, local)
	k.keys(local.AuthKeys)
	// A node that has never run has no files of the cluster unless they were written there; a daemon does without.
	if path := filepath.Join(local.ConfDir, conf.HaresourcesName); notThere(path) {
		fmt.Fprintf(k.stderr, "%s: warning: not there; this node gets it and the pools from the cluster, of which one director has to have them\n", path)
		return
	}
	spec = k.spec(local.ConfDir, local)
}

func notThere(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// own reads ha.yaml of this node when a file beside it, or in its conf_dir, is
// to be checked; nil: the file is from elsewhere, or ha.yaml is faulty.
func (k *checker) own(dir string) *conf.Local {
	local, _, err := conf.LoadLocal(k.config)
	if err != nil {
		return nil
	}
	a, err := os.Stat(cmp.Or(dir, "."))
	if err != nil {
		return nil
	}
	if b, err := os.Stat(local.ConfDir); err != nil || !os.SameFile(a, b) {
		return nil
	}
	return local
}

// mine says whether a file is the vrrp.yaml of this machine.
func (k *checker) mine(path string) bool {
	a, err := os.Stat(path)
	if err != nil {
		return false
	}
	b, err := os.Stat(vrrpPath(k.config))
	return err == nil && os.SameFile(a, b)
}

// path checks a directory, or one file, from anywhere.
func (k *checker) path(path string) {
	st, err := os.Stat(path)
	if err != nil {
		k.say(path, nil, fmt.Errorf("%s: %w", path, unwrapPath(err)))
		return
	}
	if st.IsDir() {
		if k.as == "" && (k.own(path) != nil || isAlone(k.config) && k.mine(filepath.Join(path, conf.VRRPName))) {
			k.installed(k.config)
			return
		}
		k.directory(path)
		return
	}
	data, err := readSome(path)
	if err != nil {
		k.say(path, nil, err)
		return
	}
	dir, name := filepath.Split(path)
	if filepath.Ext(name) != ".yaml" {
		if old := conf.OldFile(data); old != "" {
			k.say(path, nil, fmt.Errorf("%s: %s", path, old))
			return
		}
	}
	own := k.own(dir)
	k.here = own != nil
	switch kindOf(name, data) {
	case authKeysFile:
		k.keys(path)
	case haFile:
		k.local(path, true)
	case haresourcesFile:
		var local *conf.Local
		if _, err := os.Stat(filepath.Join(dir, haName)); err == nil {
			local, _ = k.local(filepath.Join(dir, haName), true)
		}
		if name == conf.HaresourcesName {
			k.spec(filepath.Clean(dir), local)
			return
		}
		files := conf.Files{Name: path, Haresources: data}
		if err := files.ReadPools(dir); err != nil {
			k.say(path, nil, err)
			return
		}
		k.parse(files, local)
	case routersFile:
		k.here = k.here || k.mine(path)
		k.routers(path, nil)
	case poolFile:
		k.pool(path, name, own)
	}
}

// pool checks a pool on its own, with the files that it executes, as the only
// one of a group; local is nil when it is from elsewhere.
func (k *checker) pool(path, name string, local *conf.Local) {
	resources := []map[string]string{{"ldirectord": name}}
	var exposed []conf.Warning
	parse := func() (*conf.Spec, []conf.Warning, error) {
		generated, err := json.Marshal(map[string]any{"groups": map[string]any{"pool": map[string]any{"resources": resources}}})
		if err != nil {
			return nil, nil, err
		}
		files := conf.Files{Name: filepath.Join(filepath.Dir(path), conf.HaresourcesName), Haresources: generated}
		if err := files.ReadPools(filepath.Dir(path)); err != nil {
			return nil, nil, err
		}
		exposed = conf.Exposed(files)
		return conf.ParseSpec(k.trying(files, local), nil)
	}
	spec, warnings, err := parse()
	if err == nil {
		// Once more with the addresses that its group has to bring it: nobody is to be warned that they are missing.
		seen := map[string]bool{}
		for _, v := range spec.Pools[name].Virtuals {
			if a := v.Address.Addr(); a.IsValid() && !seen[a.String()] {
				seen[a.String()] = true
				resources = append(resources, map[string]string{"vip": a.String()})
			}
		}
		if _, w, err := parse(); err == nil {
			warnings = w
		}
	}
	k.say(path, append(exposed, warnings...), err)
}

const haName = "ha.yaml"

func (k *checker) directory(dir string) {
	var local *conf.Local
	if config := filepath.Join(dir, haName); isAlone(config) {
		k.routers(vrrpPath(config), nil)
		return
	} else if _, err := os.Stat(config); err == nil {
		local, _ = k.local(config, true)
	} else {
		k.say(haName, nil, fmt.Errorf("%s: no such file in this directory", filepath.Join(dir, haName)))
	}
	keys := filepath.Join(dir, "authkeys")
	if local != nil {
		keys = filepath.Join(dir, filepath.Base(local.AuthKeys))
	}
	if notThere(keys) {
		fmt.Fprintf(k.stderr, "%s: warning: not there, so the keys are not checked\n", keys)
	} else {
		k.foreignKeys(keys)
	}
	spec := k.spec(dir, local)
	if path := filepath.Join(dir, conf.VRRPName); !notThere(path) {
		k.routers(path, spec)
	}
}

// local checks ha.yaml. Foreign files are checked as one of their own nodes.
func (k *checker) local(path string, foreign bool) (*conf.Local, bool) {
	data, err := readSome(path)
	if err != nil {
		return nil, k.say(path, nil, err)
	}
	hostname, err := os.Hostname()
	if err != nil {
		return nil, k.say(path, nil, err)
	}
	name := cmp.Or(k.as, hostname)
	if nodes := nodeNames(data); foreign && k.as == "" && len(nodes) > 0 && !slices.ContainsFunc(nodes, func(n string) bool { return strings.EqualFold(n, name) }) {
		name = nodes[0]
	}
	local, warnings, err := conf.ParseLocal(path, data, name)
	if !k.say(path, warnings, err) {
		return nil, false
	}
	return local, true
}

func (k *checker) keys(path string) {
	_, _, err := conf.LoadAuthKeys(path)
	k.say(path, nil, err)
}

// foreignKeys checks keys from elsewhere: who may read them here is a warning,
// since it is said of a copy, such as the examples of a clone.
func (k *checker) foreignKeys(path string) {
	_, _, err := conf.LoadAuthKeys(path)
	if data, rerr := readSome(path); err != nil && rerr == nil {
		if _, _, perr := conf.ParseAuthKeys(data); perr == nil {
			where, what, _ := strings.Cut(err.Error(), ": ")
			fmt.Fprintf(k.stderr, "%s: warning: %s\n", where, what)
			err = nil
		}
	}
	k.say(path, nil, err)
}

// spec checks haresources.yaml and the pools of a directory; nil: they are faulty.
func (k *checker) spec(dir string, local *conf.Local) *conf.Spec {
	files, err := conf.ReadFiles(dir)
	if err != nil {
		k.say(dir, nil, err)
		return nil
	}
	for _, w := range conf.Exposed(files) {
		fmt.Fprintln(k.stderr, w)
	}
	return k.parse(files, local)
}

func (k *checker) parse(files conf.Files, local *conf.Local) *conf.Spec {
	spec, warnings, err := conf.ParseSpec(k.trying(files, local), local)
	if few := tooFewDescriptors(spec, local, checks.Descriptors()); few != "" && k.here {
		fmt.Fprintln(k.stderr, "warning: "+few)
	}
	if err == nil && k.here && local != nil {
		err = checkDevices(spec.Fencing, local, func(w string) { fmt.Fprintln(k.stderr, "warning: "+w) })
	}
	if !k.say(files.Name, warnings, err) {
		return nil
	}
	names := make([]string, 0, len(files.Pools))
	for name := range files.Pools {
		names = append(names, filepath.Join(filepath.Dir(files.Name), name))
	}
	slices.Sort(names)
	k.checked = append(k.checked, names...)
	return spec
}

// The kinds of a file that is checked on its own.
const (
	haFile = iota
	haresourcesFile
	poolFile
	authKeysFile
	routersFile
)

// kindOf tells by the name, and when that says nothing by the keys, what a file is.
func kindOf(name string, data []byte) int {
	switch {
	case name == conf.HaresourcesName:
		return haresourcesFile
	case name == haName:
		return haFile
	case name == conf.VRRPName:
		return routersFile
	case strings.HasPrefix(name, "authkeys"):
		return authKeysFile
	}
	for _, key := range rootKeys(data) {
		switch key.Value {
		case "nodes", "links", "cluster":
			return haFile
		case "groups", "haresources":
			return haresourcesFile
		case "vrrp_instance", "global_defs", "vrrp_script", "vrrp_sync_group":
			return routersFile
		case "virtual":
			return poolFile
		}
	}
	return poolFile
}

// rootKeys returns the keys of a document that is a mapping, as far as it can be read.
func rootKeys(data []byte) []*yaml.Node {
	var doc yaml.Node
	if yaml.Unmarshal(data, &doc) != nil || len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return nil
	}
	var keys []*yaml.Node
	for i := 0; i < len(doc.Content[0].Content); i += 2 {
		keys = append(keys, doc.Content[0].Content[i])
	}
	return keys
}

func nodeNames(data []byte) []string {
	var doc struct {
		Nodes yaml.Node `yaml:"nodes"`
	}
	if yaml.Unmarshal(data, &doc) != nil || doc.Nodes.Kind != yaml.MappingNode {
		return nil
	}
	var names []string
	for i := 0; i < len(doc.Nodes.Content); i += 2 {
		names = append(names, doc.Nodes.Content[i].Value)
	}
	return names
}

func readSome(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err == nil && !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: is not a file; name a plain file", path)
	}
	if err == nil && st.Size() > conf.MaxFile {
		return nil, fmt.Errorf("%s: the file has more than %d bytes, the limit", path, conf.MaxFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, unwrapPath(err))
	}
	return data, nil
}

// unwrapPath leaves the reason: the path stands before it already.
func unwrapPath(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
