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
		if text := n.misfit(st); text != "" {
			n.logger.Error(text)
			n.setSpecErr(text)
		}
		n.keeper.SetLength(st.Spec.Settings.Profile.Lease)
		if p := st.Spec.Settings.Profile; p != n.cfg.Local.Profile {
			n.logger.Warn("the cluster runs another profile than this node's ha.yaml says; leases follow it now, hellos and raft when ha.yaml does", "cluster", p.Name, "ha.yaml", n.cfg.Local.Profile.Name)
		}
		if n.cfg.Fencing != nil {
			n.cfg.Fencing.Configure(st.Spec.Fencing)
		}
		if n.manager != nil {
			n.manager.Configure(*st.Spec)
		}
	}
	n.writeFiles(st)
}

// filesRetry is how long after a failed write-back the next try comes: a full
// disk may have been emptied. It is shorter than jobTimeout.
const filesRetry = 3 * time.Second

// writeFiles writes the version that this node follows unless it is there
// already. Versions may follow each other faster than they are written: what
// counts is the last. While the log is being read again after a start, its
// older versions are not written over the files of the newest: hence admitted.
func (n *Node) writeFiles(st *state.State) {
	n.mu.Lock()
	todo := n.cfg.Write != nil && n.filesVer != st.SpecInfo.Version
	n.mu.Unlock()
	if !todo || !n.admitted(st) {
		return
	}
	n.jobs.start("write files", n.wake, func(ctx context.Context) error {
		st, err := n.writeNewest(st)
		if err == nil {
			n.setSpecErr(n.misfit(st))
			return nil
		}
		text := fmt.Sprintf("version %d of the specification runs here, and its files could not be written: %v (tried again every %v)", st.SpecInfo.Version, err, filesRetry)
		n.mu.Lock()
		known := n.specErr == text
		n.mu.Unlock()
		if !known {
			n.logger.Error(text)
		}
		n.setSpecErr(text)
		select {
		case <-ctx.Done():
		case <-time.After(filesRetry):
		}
		return nil
	})
}

// writeNewest writes the files of the newest version that this node knows by
// now, st's at least, and returns the state that has it.
func (n *Node) writeNewest(st *state.State) (*state.State, error) {
	n.files.Lock()
	defer n.files.Unlock()
	if now := n.State(); now.SpecInfo.Version > st.SpecInfo.Version {
		st = now
	}
	f, err := unpackFiles(st.SpecFiles)
	if err == nil {
		err = n.cfg.Write(st.SpecInfo.Version, f)
	}
	if err == nil {
		n.mu.Lock()
		n.filesVer = st.SpecInfo.Version
		n.mu.Unlock()
	}
	return st, err
}

// misfit says why the specification does not fit this node's ha.yaml; empty: it does.
func (n *Node) misfit(st *state.State) string {
	if st.Spec == nil {
		return ""
	}
	if err := st.Spec.ValidFor(n.cfg.Local); err != nil {
		return "the specification does not fit its ha.yaml: " + err.Error()
	}
	return ""
}

// readFiles reads and checks this node's files, and says which version they
// were made from: the one that was written to them last. It waits until that is
// the version in force, so that nothing older is taken for an edit of it.
func (n *Node) readFiles(ctx context.Context) (spec *conf.Spec, files conf.Files, from uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, filesWait)
	defer cancel()
	for {
		n.files.Lock()
		now := n.State().SpecInfo.Version
		n.mu.Lock()
		from = n.filesVer
		n.mu.Unlock()
		if n.cfg.Write == nil || from == now {
			spec, files, err = n.cfg.Files()
			n.files.Unlock()
			return spec, files, now, err
		}
		n.files.Unlock()
		select {
		case <-ctx.Done():
			return nil, files, from, fmt.Errorf("version %d is in force, and is not written to this node's files yet, so an edit of them would undo what others have applied: look at `keepbeat status` and try again", now)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// awaitFiles waits until a version, or a newer one, has been written to this
// node's files: whoever edits them before that would edit another version. False:
// that takes too long.
func (n *Node) awaitFiles(ctx context.Context, version uint64) bool {
	ctx, cancel := context.WithTimeout(ctx, filesWait)
	defer cancel()
	for {
		n.mu.Lock()
		there := n.cfg.Write == nil || n.filesVer >= version
		n.mu.Unlock()
		if there {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// filesWait is how long an apply waits for a version to be written here.
const filesWait = 5 * time.Second

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
		if errors.As(err, &refused) && n.State().SpecInfo.Version > 0 {
			return nil // another director was first
		}
		n.firstFailed(err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return err
}

// firstFailed shows why there is no version yet. Once there is one it shows nothing: ours
// was taken though the answer was lost, or another director's; and nobody would take it back
// after the write-back has.
func (n *Node) firstFailed(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.specVer == 0 && n.filesVer == 0 {
		n.specErr = err.Error()
	}
}

func (n *Node) setSpec(ctx context.Context, base uint64, spec *conf.Spec, files conf.Files) (uint64, error) {
	packed, err := packFiles(files)
	if err != nil {
		return 0, err
	}
	r, err := n.cons.Propose(ctx, state.Command{Spec: &state.SetSpec{Base: base, From: n.self, By: OrderOf(ctx).By, Spec: spec, Files: packed}})
	return r.Number, err
}

// Changes is what an apply would do.
type Changes struct {
	Base    uint64   `json:"base"`              // version it was made against
	Version uint64   `json:"version,omitempty"` // after it was applied
	Lines   []string `json:"changes"`
	// Cost says that most of what runs would stop, which only Order.Force does; empty: it is not so.
	Cost string `json:"cost,omitempty"`
	// Warnings are what is allowed in the files and should be known: what names
	// stand for in this version, among others.
	Warnings []string `json:"warnings,omitempty"`
}

// mostWarnings is how many are told; the log of the node that reads the files has all.
const mostWarnings = 100

func warningsOf(files conf.Files) []string {
	var all []string
	for i, w := range files.Warnings {
		if i == mostWarnings {
			return append(all, fmt.Sprintf("and %d warnings more, which `keepbeat check-config` shows", len(files.Warnings)-i))
		}
		all = append(all, w.String())
	}
	return all
}

// Apply makes this node's files the next version, if they are valid and base
// (0: whatever is in force now) is still the present one. With dry it only says what would change.
func (n *Node) Apply(ctx context.Context, base uint64, dry bool) (Changes, error) {
	if n.cfg.Files == nil {
		return Changes{}, errors.New("this node has no specification files")
	}
	spec, files, from, err := n.readFiles(ctx)
	if err != nil {
		return Changes{}, err
	}
	st := n.State()
	c := Changes{Base: from, Warnings: warningsOf(files)}
	if base != 0 && base != c.Base {
		return c, fmt.Errorf("the specification is at version %d, not %d: look at the newer one and apply again", c.Base, base)
	}
	old := st.Spec
	if old == nil {
		old = &conf.Spec{}
	}
	c.Lines = conf.Diff(old, spec)
	packed, err := packFiles(files)
	if err != nil {
		return c, err
	}
	if len(c.Lines) == 0 && !bytes.Equal(packed[filesKey], st.SpecFiles[filesKey]) {
		c.Lines = []string{"nothing but comments and spelling"}
	}
	if cost, most := wouldStop(st, spec); most {
		c.Cost = cost
	}
	if dry {
		if why := st.Clash(spec); why != "" {
			return c, &state.RefusedError{Why: why}
		}
		return c, nil
	}
	if err := n.current(ctx); err != nil || len(c.Lines) == 0 {
		return c, err
	}
	if c.Cost != "" && !OrderOf(ctx).Force {
		return c, &ForceError{c.Cost, "keepbeat apply --force"}
	}
	c.Version, err = n.setSpec(ctx, c.Base, spec, files)
	var refused *state.RefusedError
	if base == 0 && errors.As(err, &refused) {
		// Autoreload may have been faster with the very same files: that is no conflict.
		if now := n.State(); bytes.Equal(now.SpecFiles[filesKey], packed[filesKey]) {
			return Changes{Base: now.SpecInfo.Version, Warnings: c.Warnings}, nil
		}
	}
	if err == nil && !n.awaitFiles(ctx, c.Version) {
		c.Warnings = append(c.Warnings, fmt.Sprintf("version %d is in force, and its files are not written on this node yet: edit them when `keepbeat status` says nothing of it any more", c.Version))
	}
	return c, err
}
