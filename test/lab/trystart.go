package lab

import (
	"fmt"
	"os"
)

// TryStart is Start for a host that somebody else may switch off at any moment: an
// error is returned, and does not end the test.
func (h *Host) TryStart(name string, env []string, args ...string) (*Process, error) {
	h.lab.t.Helper()
	p := h.newProcess(name, args)
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Env = append(p.cmd.Env, env...)
	if err := h.Do(p.cmd.Start); err != nil {
		return nil, fmt.Errorf("on %s: starting %s: %w", h.Name, name, err)
	}
	p.run()
	return p, nil
}
