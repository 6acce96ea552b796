package fencing

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// agent is a program of the fence-agents package. It is told what to do in
// lines key=value on its standard input, where no list of processes shows a
// password, and answers by its exit status: 0 done (status: on), 2 to status: off.
type agent struct {
	f    *Fencer
	spec conf.FenceDevice
	path string
}

const agentOff = 2 // exit status to action=status

// metadataTimeout is long for a machine that is busy: agents are Python programs.
const metadataTimeout = 20 * time.Second

func (a *agent) program() string { return a.path }

func (a *agent) act(ctx context.Context, j job) error {
	m, err := a.f.meta.of(ctx, a)
	if err != nil {
		return err
	}
	p, err := resolve(a.spec.Params, a.f.cfg.Getenv)
	if err != nil {
		return err
	}
	action := j.action.String()
	switch {
	case !m.actions[action]:
		return errNoAction
	case j.ends && m.onItself:
		return final{fmt.Errorf("it cuts %s off and does not end it: as long as no majority has ended its lease, what runs there goes on", j.node)}
	case j.action == conf.FenceOn && (j.afterOff && m.onItself || m.onTarget && j.node != a.f.cfg.Node):
		// It would give the node its disks back, and nobody has seen it rebooted.
		return errNoAction
	}
	if err := a.do(ctx, m, p, action, j.port, j.node); err != nil {
		return err
	}
	if j.action != conf.FenceOff || !m.actions["status"] {
		return nil
	}
	return a.isOff(ctx, m, p, j)
}

// DefaultVerify is for devices whose status lags; the agent has looked itself, mostly.
const DefaultVerify = 5 * time.Second

// isOff asks until the device says off.
func (a *agent) isOff(ctx context.Context, m *metadata, p params, j job) error {
	for until := time.Now().Add(a.f.cfg.Verify); ; {
		err := a.do(ctx, m, p, "status", j.port, j.node)
		var exit *exitError
		switch {
		case errors.As(err, &exit) && exit.code == agentOff:
			return nil
		case err == nil:
			err = errors.New("the agent says that off is done, and its status that the node is on")
		default:
			err = fmt.Errorf("the agent says that off is done, and its status cannot tell: %w", err)
		}
		if !time.Now().Before(until) || sleep(ctx, time.Second) != nil {
			return err
		}
	}
}

func (a *agent) look(ctx context.Context, each []conf.FenceTarget) error {
	m, err := a.f.meta.of(ctx, a)
	if err != nil {
		return err
	}
	p, err := resolve(a.spec.Params, a.f.cfg.Getenv)
	if err != nil {
		return err
	}
	if m.actions["monitor"] {
		t := a.spec.Targets[0]
		if err := a.do(ctx, m, p, "monitor", t.Port, t.Node); err != nil {
			return fmt.Errorf("monitor: %w", err)
		}
	} else if len(each) == 0 {
		each = a.spec.Targets[:1]
	}
	if !m.actions["status"] {
		return nil
	}
	for _, t := range each {
		err := a.do(ctx, m, p, "status", t.Port, t.Node)
		var exit *exitError
		if err != nil && !(errors.As(err, &exit) && exit.code == agentOff) {
			return fmt.Errorf("status of %s: %w", t.Node, err)
		}
	}
	return nil
}

// do runs the agent once.
func (a *agent) do(ctx context.Context, m *metadata, p params, action, port, node string) error {
	in, err := a.input(m, p, action, port, node)
	if err != nil {
		return final{err}
	}
	_, err = program{path: a.path, env: a.f.cfg.environment(), stdin: in, secrets: p.secrets}.run(ctx)
	return err
}

// input is what an agent reads.
func (a *agent) input(m *metadata, p params, action, port, node string) ([]byte, error) {
	lines := []string{"action=" + action}
	add := func(name, v string) error {
		if why := notLine(v); why != "" {
			return fmt.Errorf("parameter %s: its value %s, which agents do not read as it is written", name, why)
		}
		lines = append(lines, name+"="+v)
		return nil
	}
	// The plug of a single machine stands for the address of its board, and
	// the name of a node is none.
	_, board := m.params["port_as_ip"]
	if name := m.target(); name != "" && (port != "" || !board) {
		if err := add(name, called(port, node)); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.values)) {
		if err := add(name, string(p.values[name])); err != nil {
			return nil, err
		}
	}
	return []byte(strings.Join(lines, "\n") + "\n"), nil
}

// notLine says why a value would not arrive: agents read lines, cut blanks off
// and take quotation marks away.
func notLine(v string) string {
	switch {
	case strings.ContainsAny(v, "\n\r\x00"):
		return "has a line break"
	case v != strings.TrimSpace(v):
		return "begins or ends with a blank"
	case len(v) > 1 && v[0] == '"' && v[len(v)-1] == '"':
		return "stands in quotation marks"
	}
	return ""
}

// metadataCache has what agents say of themselves, until the file changes.
type metadataCache struct {
	mu    sync.Mutex // guards known
	known map[string]knownMetadata
}

type knownMetadata struct {
	size     int64
	modified time.Time
	m        *metadata
}

// of returns what the agent says of itself.
func (c *metadataCache) of(ctx context.Context, a *agent) (*metadata, error) {
	st, err := os.Stat(a.path)
	if err != nil {
		return nil, final{notThere(a.path, err)}
	}
	if m := c.have(a.path, st); m != nil {
		return m, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, metadataTimeout, fmt.Errorf("no end within %s", metadataTimeout))
	defer cancel()
	text, err := program{path: a.path, env: a.f.cfg.environment(), stdin: []byte("action=metadata\n"), answer: maxMetadata}.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: its metadata: %w", a.path, err)
	}
	m, err := parseMetadata(text)
	if err != nil {
		return nil, final{fmt.Errorf("%s: %w; is it a fence agent?", a.path, err)}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) > 1000 {
		c.known = map[string]knownMetadata{}
	}
	c.known[a.path] = knownMetadata{st.Size(), st.ModTime(), m}
	return m, nil
}

// have returns what is known already; nil: nothing.
func (c *metadataCache) have(path string, st os.FileInfo) *metadata {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.known[path]
	if k.m == nil || k.size != st.Size() || !k.modified.Equal(st.ModTime()) {
		return nil
	}
	return k.m
}

func notThere(path string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w; install the package that has it (fence-agents, cluster-glue), or correct its name", err)
	}
	return err
}

func (a *agent) problems(ctx context.Context) []Problem {
	var list []Problem
	add := func(warning bool, param, format string, args ...any) {
		list = append(list, Problem{a.spec.Name, param, warning, fmt.Sprintf(format, args...)})
	}
	m, err := a.f.meta.of(ctx, a)
	if err != nil {
		add(false, "", "%v", err)
		return list
	}
	p, given := a.f.resolved(a.spec, &list)
	agentName := a.spec.Program
	for _, name := range slices.Sorted(maps.Keys(a.spec.Params)) {
		v, has := given[name]
		about, known := m.params[name]
		switch {
		case slices.Contains(told, name) || name == m.target():
			add(false, name, "keepbeat itself tells the agent; take it out (the plug of each node belongs into targets)")
		case !known:
			add(false, name, "%s knows none of that name%s", agentName, didYouMean(name, m.names()))
		case has && notLine(string(v)) != "":
			add(false, name, "its value %s, which agents do not read as it is written", notLine(string(v)))
		case has && len(about.options) > 0 && !slices.Contains(about.options, string(v)) && !slices.Contains(p.secrets, v):
			add(false, name, "%s takes %s", agentName, strings.Join(about.options, ", "))
		case m.newer(name) != "" && given[m.newer(name)] != "":
			add(true, name, "is the older name of %s, which is given too; take one of them out", m.newer(name))
		case (name == "verbose" || name == "debug" || name == "debug_file" || name == "verbose_level") && v != "" && v != "0":
			add(true, name, "makes some agents write passwords into logs")
		case name == "method" && v == "cycle":
			add(true, name, "with cycle the agent does not look whether the node was ever off; onoff does")
		}
	}
	if names := m.missing(given); len(names) > 0 {
		add(false, "", "%s needs %s under params", agentName, strings.Join(names, " and "))
	}
	a.targetProblems(m, given, add)
	a.actionProblems(m, given, add)
	return list
}

func (a *agent) targetProblems(m *metadata, given map[string]secret, add func(bool, string, string, ...any)) {
	for _, t := range a.spec.Targets {
		switch {
		case t.Port == "":
		case m.target() == "":
			add(false, "", "%s operates one machine and has no plugs; take %q of %s out", a.spec.Program, t.Port, t.Node)
		case m.single(given):
			add(true, "", "%s looks at plug %q of %s only with port_as_ip: \"1\" under params", a.spec.Program, t.Port, t.Node)
		case notLine(t.Port) != "":
			add(false, "", "the plug of %s %s, which agents do not read as it is written", t.Node, notLine(t.Port))
		}
	}
	if len(a.spec.Targets) > 1 && m.single(given) {
		add(false, "", "%s operates one machine, and here it is to be %d; make a device for each node", a.spec.Program, len(a.spec.Targets))
	}
}

func (a *agent) actionProblems(m *metadata, given map[string]secret, add func(bool, string, string, ...any)) {
	want := a.f.wanted()
	if !m.actions["off"] && !(want == conf.FenceReboot && m.actions["reboot"]) {
		add(false, "", "%s has no action %s", a.spec.Program, want)
	}
	if !m.actions["status"] && !m.actions["reboot"] {
		add(true, "", "%s has no status: that the node is off is believed and not looked at", a.spec.Program)
	}
	if t := m.mayTake(given, want.String()); t > a.spec.Timeout {
		add(true, "", "by its own time-outs %s may need %s for %s, and timeout is %s; raise timeout, or lower power_timeout and its like under params", a.spec.Program, t, want, a.spec.Timeout)
	}
}

// resolved returns the parameters as this machine has them, and notes those it has not.
func (f *Fencer) resolved(d conf.FenceDevice, list *[]Problem) (params, map[string]secret) {
	p := params{values: map[string]secret{}}
	given := map[string]secret{}
	for _, name := range slices.Sorted(maps.Keys(d.Params)) {
		one, err := resolve(map[string]conf.Param{name: d.Params[name]}, f.cfg.Getenv)
		if err != nil {
			*list = append(*list, Problem{Device: d.Name, Param: name, Msg: strings.TrimPrefix(err.Error(), "parameter "+name+": ")})
			given[name] = "?" // it is given, and not known
			continue
		}
		p.values[name], given[name] = one.values[name], one.values[name]
		p.secrets = append(p.secrets, one.secrets...)
	}
	return p, given
}
