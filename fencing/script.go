package fencing

import (
	"context"
	"errors"
	"fmt"

	"github.com/keepbeat/keepbeat/conf"
)

// script is a program of the administrator's, called as
//
//	PROGRAM ACTION NODE
//
// ACTION is off, reboot, on or monitor (does the device answer? NODE is its
// first target then). The environment has the parameters under their names, and
// KEEPBEAT_ACTION, KEEPBEAT_NODE, KEEPBEAT_PORT (what the device calls the node;
// its name, if nothing else is written) and KEEPBEAT_BY (the node that operates it).
// Exit status:
//
//	0  done: off and reboot only when the node is certainly down, or was
//	3  there is no such action: reboot is then done as off and on, and a device
//	   without monitor is taken to answer
//	*  it failed; what it printed last goes into the history
type script struct {
	f    *Fencer
	spec conf.FenceDevice
	path string
}

const scriptNoAction = 3 // exit status; that of LSB for "unimplemented"

func (s *script) program() string { return s.path }

func (s *script) act(ctx context.Context, j job) error {
	return s.run(ctx, j.action.String(), j.node, j.port)
}

func (s *script) look(ctx context.Context, _ []conf.FenceTarget) error {
	t := s.spec.Targets[0]
	err := s.run(ctx, "monitor", t.Node, t.Port)
	if errors.Is(err, errNoAction) {
		return nil
	}
	return err
}

func (s *script) run(ctx context.Context, action, node, port string) error {
	p, err := resolve(s.spec.Params, s.f.cfg.Getenv)
	if err != nil {
		return err
	}
	env, err := variables(p)
	if err != nil {
		return err
	}
	env = append(env, s.f.cfg.environment()...)
	env = append(env, "KEEPBEAT_ACTION="+action, "KEEPBEAT_NODE="+node, "KEEPBEAT_PORT="+called(port, node), "KEEPBEAT_BY="+s.f.cfg.Node)
	_, err = program{path: s.path, args: []string{action, node}, env: env, secrets: p.secrets}.run(ctx)
	var exit *exitError
	if errors.As(err, &exit) && exit.code == scriptNoAction {
		return fmt.Errorf("%w (%w)", errNoAction, err)
	}
	return err
}

func (s *script) problems(context.Context) []Problem {
	var list []Problem
	if err := usable(s.path); err != nil {
		list = append(list, Problem{Device: s.spec.Name, Msg: err.Error()})
	}
	_, given := s.f.resolved(s.spec, &list)
	for name := range given {
		if err := variableOK(name); err != nil {
			list = append(list, Problem{Device: s.spec.Name, Msg: err.Error()})
		}
	}
	return list
}
