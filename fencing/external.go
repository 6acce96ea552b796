package fencing

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// external is a plugin of cluster-glue, external/NAME: a program with the
// command as its first argument and the host as its second, and its parameters
// as environment variables. Exit status 0 is the only success, and for reset
// and off it has to mean that the host is certainly down.
type external struct {
	f    *Fencer
	spec conf.FenceDevice
	path string
}

const (
	describeTimeout = 20 * time.Second
	maxAnswer       = 64 << 10 // bytes, of getconfignames and gethosts
)

func (x *external) program() string { return x.path }

func (x *external) act(ctx context.Context, j job) error {
	command := map[conf.FenceAction]string{conf.FenceOff: "off", conf.FenceReboot: "reset", conf.FenceOn: "on"}[j.action]
	_, err := x.run(ctx, 0, command, called(j.port, j.node))
	return err
}

func (x *external) look(ctx context.Context, each []conf.FenceTarget) error {
	if _, err := x.run(ctx, 0, "status"); err != nil {
		return fmt.Errorf("status: %w", err)
	}
	if len(each) == 0 {
		return nil
	}
	out, err := x.run(ctx, maxAnswer, "gethosts")
	if err != nil {
		return fmt.Errorf("gethosts: %w", err)
	}
	hosts := strings.Fields(string(out))
	for _, t := range each {
		name := called(t.Port, t.Node)
		if !slices.ContainsFunc(hosts, func(h string) bool { return strings.EqualFold(h, name) }) {
			return fmt.Errorf("gethosts does not name %s%s", name, didYouMean(name, hosts))
		}
	}
	return nil
}

func (x *external) run(ctx context.Context, answer int, args ...string) ([]byte, error) {
	p, err := resolve(x.spec.Params, x.f.cfg.Getenv)
	if err != nil {
		return nil, err
	}
	env, err := variables(p)
	if err != nil {
		return nil, err
	}
	return program{path: x.path, args: args, env: append(env, x.f.cfg.glueEnvironment()...), secrets: p.secrets, answer: answer}.run(ctx)
}

func (c *Config) glueEnvironment() []string {
	env := c.environment()
	env[0] += ":" + glueDir // after the others
	return env
}

// describe runs a command that needs no parameters.
func (x *external) describe(ctx context.Context, command string, limit int) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, describeTimeout, fmt.Errorf("no end within %s", describeTimeout))
	defer cancel()
	return program{path: x.path, args: []string{command}, env: x.f.cfg.glueEnvironment(), answer: limit}.run(ctx)
}

func (x *external) problems(ctx context.Context) []Problem {
	var list []Problem
	add := func(param, format string, args ...any) {
		list = append(list, Problem{Device: x.spec.Name, Param: param, Msg: fmt.Sprintf(format, args...)})
	}
	out, err := x.describe(ctx, "getconfignames", maxAnswer)
	if err != nil {
		add("", "%v", notThere(x.path, err))
		return list
	}
	names, err := configNames(out)
	if err != nil {
		add("", "%s: getconfignames: %v", x.path, err)
		return list
	}
	var required []string
	// Some plugins name in their XML what getconfignames leaves out; it may be absent or no XML.
	if out, err := x.describe(ctx, "getinfo-xml", maxMetadata); err == nil {
		if m, err := parseMetadata(out); err == nil {
			for _, name := range m.names() {
				if !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
			required = m.missing(x.asGiven())
		}
	}
	_, _ = x.f.resolved(x.spec, &list)
	for _, name := range slices.Sorted(maps.Keys(x.spec.Params)) {
		if !slices.Contains(names, name) {
			add(name, "external %s knows none of that name%s", x.spec.Program, didYouMean(name, names))
		} else if err := variableOK(name); err != nil {
			add("", "%v", err)
		}
	}
	if len(required) > 0 {
		add("", "external %s needs %s under params", x.spec.Program, strings.Join(required, " and "))
	}
	return list
}

func (x *external) asGiven() map[string]secret {
	given := map[string]secret{}
	for name := range x.spec.Params {
		given[name] = "?"
	}
	return given
}

// configNames reads what getconfignames prints: names with blanks or line breaks between.
func configNames(out []byte) ([]string, error) {
	names := strings.Fields(string(out))
	for _, n := range names {
		if !wordOfMetadata.MatchString(n) {
			return nil, fmt.Errorf("%.80q is not the name of a parameter", n)
		}
	}
	if len(names) > maxNamed {
		return nil, errors.New("more names than any plugin has")
	}
	return names, nil
}
