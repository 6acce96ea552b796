package fencing

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// device operates one device of the specification. Its methods return when ctx
// ends, or shortly after. They may be called from any goroutine; one use at a
// time is the Fencer's care.
type device interface {
	// act does one action to one node; nil means that it is certain. An error that is
	// errNoAction says that the device cannot do it at all; one that is final
	// does not change when it is tried again.
	act(ctx context.Context, j job) error
	// look finds out whether the device answers. With each it also asks it about
	// those targets, where there is a way.
	look(ctx context.Context, each []conf.FenceTarget) error
	// problems are what would keep the device from working on this machine, in the
	// specification or around it. It runs no action.
	problems(ctx context.Context) []Problem
	// program is what is run; empty: nothing is.
	program() string
}

// job is an action to be done.
type job struct {
	action   conf.FenceAction
	afterOff bool // FenceOn: to end a reboot
	node     string
	port     string                      // as in the specification, maybe empty
	ends     bool                        // the node itself has to end: to be cut off is not enough
	trusted  bool                        // others may hear it
	silence  func() time.Duration        // for how long nothing has been heard of the node
	may      func(context.Context) error // Target.May; nil: not to be asked
	over     func() error                // Target.Over; nil: not to be asked
}

// called is the target as the device calls it.
func called(port, node string) string {
	if port != "" {
		return port
	}
	return node
}

// errNoAction is a device that has no such action.
var errNoAction = errors.New("the device has no such action")

// final is an error that trying again does not cure.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// refused is what Target.May has said: there was no attempt, and there is to be none. Or
// Target.Over, when there is nothing to wait for any more.
type refused struct {
	error
	waited bool // it was Over
}

func (r refused) Unwrap() error { return r.error }

// Defaults of Config.
const (
	DefaultAgentDir  = "/usr/sbin"
	DefaultPluginDir = "/usr/lib/stonith/plugins/external"
	DefaultPath      = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// glueDir has ha_log.sh, which plugins call by its name.
const glueDir = "/usr/share/cluster-glue"

// environment is all that programs get, without what a device adds.
func (c *Config) environment() []string {
	// HOME: ssh and its like look for keys and known hosts there.
	return []string{"PATH=" + c.Path, "HOME=/root", "LANG=C", "LC_ALL=C"}
}

// kind is how status calls a device.
func kind(d conf.FenceDevice) string {
	return strings.TrimSpace(d.Type.String() + " " + d.Program)
}

// programPath is where the program of a device is; empty: it has none.
func (c *Config) programPath(d conf.FenceDevice) string {
	switch {
	case d.Type == conf.FenceManual || d.Type == conf.FenceWatchdog:
		return ""
	case filepath.IsAbs(d.Program):
		return d.Program
	case d.Type == conf.FenceExternal:
		return filepath.Join(c.PluginDir, filepath.Base(d.Program))
	}
	return filepath.Join(c.AgentDir, filepath.Base(d.Program))
}

// device returns what operates d.
func (f *Fencer) device(d conf.FenceDevice) (device, error) {
	path := f.cfg.programPath(d)
	switch d.Type {
	case conf.FenceAgent:
		return &agent{f: f, spec: d, path: path}, nil
	case conf.FenceExternal:
		return &external{f: f, spec: d, path: path}, nil
	case conf.FenceScript:
		return &script{f: f, spec: d, path: path}, nil
	case conf.FenceManual:
		return &manual{f: f, name: d.Name}, nil
	case conf.FenceWatchdog:
		return watchdogDevice{timeout: d.Timeout, believe: func(node string) error { return f.believe(d, node) }}, nil
	}
	return nil, final{fmt.Errorf("device %s: a type that this version does not know (%s)", d.Name, d.Type)}
}

// variables are parameters as environment variables. A name that means
// something to the shell or to the loader is refused.
func variables(p params) ([]string, error) {
	var env []string
	for name, v := range p.values {
		if err := variableOK(name); err != nil {
			return nil, final{err}
		}
		env = append(env, name+"="+string(v))
	}
	return env, nil
}

func variableOK(name string) error {
	if strings.ContainsAny(name, "-.=") || name == "" {
		return fmt.Errorf("parameter %s: no variable can be called that; letters, digits and _", name)
	}
	for _, theirs := range []string{"PATH", "HOME", "IFS", "ENV", "BASH_ENV", "SHELLOPTS", "BASHOPTS", "PS4", "LANG"} {
		if name == theirs {
			return fmt.Errorf("parameter %s: that variable is not the device's to set; take it out", name)
		}
	}
	for _, prefix := range []string{"LD_", "LC_", "PYTHON", "PERL", "KEEPBEAT_", "BASH_FUNC"} {
		if strings.HasPrefix(name, prefix) {
			return fmt.Errorf("parameter %s: variables that begin with %s are not the device's to set; take it out", name, prefix)
		}
	}
	return nil
}

// Problem is what keeps a device from working on this machine, or may.
type Problem struct {
	Device  string
	Param   string // that is meant; empty: the device as a whole
	Warning bool   // it may work nevertheless
	Msg     string // what is wrong and the way out
}

func (p Problem) String() string {
	if p.Param != "" {
		return fmt.Sprintf("device %s: parameter %s: %s", p.Device, p.Param, p.Msg)
	}
	return fmt.Sprintf("device %s: %s", p.Device, p.Msg)
}
