package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

// filesKey is the name under which conf.Files stands in the log.
const filesKey = "files"

func packFiles(f conf.Files) (map[string][]byte, error) {
	b, err := json.Marshal(f)
	return map[string][]byte{filesKey: b}, err
}

func unpackFiles(m map[string][]byte) (conf.Files, error) {
	var f conf.Files
	return f, json.Unmarshal(m[filesKey], &f)
}

// followSpec configures this node by the newest committed version, writes its
// files, and proposes version 1 when the cluster has none and this is a
// director with valid files.
func (n *Node) followSpec(st *state.State) {
	n.mu.Lock()
	version := n.specVer
	n.mu.Unlock()
	switch {
	case st.SpecInfo.Version == 0:
		if n.director && n.admitted(st) {
			n.jobs.start("first specification", n.wake, n.proposeFirst)
		}
	case st.SpecInfo.Version != version && st.Spec != nil:
		n.mu.Lock()
		n.specVer = st.SpecInfo.Version
		n.mu.Unlock()
		n.logger.Info("following the specification", "version", st.SpecInfo.Version, "from", st.SpecInfo.From)
		n.keeper.SetLength(st.Spec.Settings.Profile.Lease)
		if p := st.Spec.Settings.Profile; p != n.cfg.Local.Profile {
			n.logger.Warn("the cluster runs another profile than this node's ha.yaml says; leases follow it now, hellos and raft when ha.yaml does", "cluster", p.Name, "ha.yaml", n.cfg.Local.Profile.Name)
		}
		if n.manager != nil {
			n.manager.Configure(*st.Spec)
		}
		n.writeFiles(st)
	}
}

func (n *Node) writeFiles(st *state.State) {
	if n.cfg.Write == nil {
		return
	}
	n.jobs.start("write files", n.wake, func(context.Context) error {
		f, err := unpackFiles(st.SpecFiles)
		if err == nil {
			err = n.cfg.Write(st.SpecInfo.Version, f)
		}
		if err != nil {
			n.logger.Error("the files of the specification were not written here; the committed version runs all the same", "version", st.SpecInfo.Version, "err", err)
			n.setSpecErr(err.Error())
			return nil
		}
		n.setSpecErr("")
		return nil
	})
}

func (n *Node) setSpecErr(s string) {
	n.mu.Lock()
	n.specErr = s
	n.mu.Unlock()
}

func (n *Node) proposeFirst(ctx context.Context) error {
	if n.cfg.Files == nil {
		return nil
	}
	spec, files, err := n.cfg.Files()
	if err == nil {
		_, err = n.setSpec(ctx, 0, spec, files)
	}
	if err != nil {
		var refused *state.RefusedError
		if errors.As(err, &refused) {
			return nil // another director was first
		}
		n.setSpecErr(err.Error())
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return err
}

func (n *Node) setSpec(ctx context.Context, base uint64, spec *conf.Spec, files conf.Files) (uint64, error) {
	packed, err := packFiles(files)
	if err != nil {
		return 0, err
	}
	r, err := n.cons.Propose(ctx, state.Command{Spec: &state.SetSpec{Base: base, From: n.self, Spec: spec, Files: packed}})
	return r.Number, err
}

// Changes is what an apply would do.
type Changes struct {
	Base    uint64   `json:"base"`              // version it was made against
	Version uint64   `json:"version,omitempty"` // after it was applied
	Lines   []string `json:"changes"`
}

// Apply makes this node's files the next version, if they are valid and base
// (0: whatever is in force now) is still the present one. With dry it only says what would change.
func (n *Node) Apply(ctx context.Context, base uint64, dry bool) (Changes, error) {
	if n.cfg.Files == nil {
		return Changes{}, errors.New("this node has no specification files")
	}
	spec, files, err := n.cfg.Files()
	if err != nil {
		return Changes{}, err
	}
	st := n.State()
	c := Changes{Base: st.SpecInfo.Version}
	if base != 0 && base != c.Base {
		return c, fmt.Errorf("the specification is at version %d, not %d: look at the newer one and apply again", c.Base, base)
	}
	old := st.Spec
	if old == nil {
		old = &conf.Spec{}
	}
	c.Lines = conf.Diff(old, spec)
	if packed, err := packFiles(files); err == nil && len(c.Lines) == 0 && !bytes.Equal(packed[filesKey], st.SpecFiles[filesKey]) {
		c.Lines = []string{"nothing but comments and spelling"}
	}
	if dry || len(c.Lines) == 0 {
		return c, nil
	}
	c.Version, err = n.setSpec(ctx, c.Base, spec, files)
	return c, err
}
