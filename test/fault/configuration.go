package fault

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/keepbeat/keepbeat/cluster/api"
	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
)

// apply is one `keepbeat apply --base N` of an administrator: a compare-and-set
// of the cluster's specification.
type apply struct {
	node      string
	base      uint64
	mark      string // what tells this text from every other
	call, ret probe.Instant
	version   uint64 // that was acknowledged; 0: none was
	refused   bool   // the command said that nothing was changed
	why       string
}

// version is what one node has of the specification in the end.
type version struct {
	number uint64
	mark   string
}

type casInput struct {
	base uint64
	mark string
	read bool
}

// casOutput of a read is what was read; of an apply, what was acknowledged.
type casOutput struct {
	version
	unknown bool // nobody knows whether it was applied, and when it was
}

// specModel is a register with compare-and-set that begins with first.
func specModel(first version) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return first },
		Step: func(state, input, output any) (bool, any) {
			now, in, out := state.(version), input.(casInput), output.(casOutput)
			next := version{in.base + 1, in.mark}
			switch {
			case in.read:
				return out.version == now, now
			case out.unknown && now.number != in.base:
				return true, now // it came too late
			case out.unknown:
				return true, next
			}
			return now.number == in.base && out.number == next.number, next
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v: %+v", input, output) },
	}
}

// specHistory makes operations of applies and of what was read when all was well again.
func specHistory(applies []apply, final version, at probe.Instant) []porcupine.Operation {
	var history []porcupine.Operation
	clients := map[string]int{}
	for _, a := range applies {
		if a.refused {
			continue
		}
		if _, known := clients[a.node]; !known {
			clients[a.node] = len(clients)
		}
		op := porcupine.Operation{
			ClientId: clients[a.node], Input: casInput{base: a.base, mark: a.mark},
			Output: casOutput{version: version{a.version, a.mark}, unknown: a.version == 0}, Call: int64(a.call), Return: int64(a.ret),
		}
		if a.version == 0 {
			op.Return = math.MaxInt64
		}
		history = append(history, op)
	}
	return append(history, porcupine.Operation{
		ClientId: len(clients), Input: casInput{read: true}, Output: casOutput{version: final}, Call: int64(at), Return: int64(at),
	})
}

// lost names every acknowledged apply that is gone, and every refused one that is
// there all the same. kept is the mark of each version that a node has kept.
func lost(applies []apply, final uint64, kept map[string]map[uint64]string) (gone, contradicted []string) {
	for _, a := range applies {
		switch {
		case a.version == 0 && a.refused:
			for node, versions := range kept {
				for v, mark := range versions {
					if mark == a.mark {
						contradicted = append(contradicted, fmt.Sprintf("%s: apply on %s said %q, and %s has it as version %d", a.mark, a.node, a.why, node, v))
					}
				}
			}
		case a.version == 0:
		case a.version > final:
			gone = append(gone, fmt.Sprintf("%s was acknowledged on %s as version %d; the cluster is at %d", a.mark, a.node, a.version, final))
		default:
			var others []string
			for node, versions := range kept {
				if mark, has := versions[a.version]; has && mark != a.mark {
					others = append(others, fmt.Sprintf("%s has %q", node, mark))
				}
			}
			if slices.Sort(others); len(others) > 0 {
				gone = append(gone, fmt.Sprintf("%s was acknowledged on %s as version %d; as that version %s", a.mark, a.node, a.version, strings.Join(others, ", ")))
			}
		}
	}
	return gone, contradicted
}

var markPattern = regexp.MustCompile(`(?m)^# (write [^\n]*)$`)

// markOf finds the mark in haresources.yaml; "" when it has none.
func markOf(text []byte) string {
	if m := markPattern.FindSubmatch(text); m != nil {
		return string(m[1])
	}
	return ""
}

const haresources = "/etc/keepbeat/haresources.yaml"

// keptBy is the mark of each version that a node has kept in its data directory.
func keptBy(h *lab.Host) map[uint64]string {
	kept := map[uint64]string{}
	dir := h.Path(dataDir + "/spec")
	versions, err := os.ReadDir(dir)
	if err != nil {
		return kept // it has none
	}
	for _, v := range versions {
		n, err := strconv.ParseUint(v.Name(), 10, 64)
		if err != nil {
			continue
		}
		if b, err := os.ReadFile(filepath.Join(dir, v.Name(), "haresources.yaml")); err == nil {
			kept[n] = markOf(b)
		}
	}
	return kept
}

// administrator applies one text after the other on its director until ctx ends.
type administrator struct {
	node  string
	file  string        // haresources.yaml, as this machine has it
	pause time.Duration // between two applies
	run   string        // names this round in every mark
	// socket is the path of the daemon's control socket; "" while none runs.
	socket func() string
	log    *timeline
}

// work tells done of each apply.
func (a administrator) work(ctx context.Context, done func(apply)) {
	text, err := os.ReadFile(a.file)
	if err != nil {
		a.log.add(probe.Now(), "%s: %v", a.node, err)
		return
	}
	body := markPattern.ReplaceAllString(string(text), "")
	for n := 1; ctx.Err() == nil; n++ {
		if socket := a.socket(); socket != "" {
			if one, ok := a.apply(socket, fmt.Sprintf("write %s %s-%d", a.run, a.node, n), strings.TrimLeft(body, "\n")); ok {
				done(one)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(a.pause):
		}
	}
}

// apply writes the file and applies it; ok is false when nothing was asked of the cluster.
func (a administrator) apply(socket, mark, body string) (one apply, ok bool) {
	client := api.NewClientAt(socket)
	// An own context: what is under way when the round ends is waited for.
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	if err := replaceFile(a.file, "# "+mark+"\n"+body); err != nil {
		a.log.add(probe.Now(), "%s: %v", a.node, err)
		return one, false
	}
	dry, err := client.Apply(ctx, api.Apply{Dry: true})
	if err != nil || dry.Base == 0 {
		return one, false
	}
	one = apply{node: a.node, base: dry.Base, mark: mark, call: probe.Now()}
	c, err := client.Apply(ctx, api.Apply{Base: dry.Base})
	one.ret = probe.Now()
	var refused *api.RefusedError
	switch {
	case errors.As(err, &refused):
		one.refused, one.why = true, refused.Reason
	case err != nil: // the daemon or its machine died
		one.why = err.Error()
	case c.Version == 0:
		return one, false // the node's own copy had overtaken the file: nothing was to apply
	default:
		one.version = c.Version
	}
	return one, true
}

// replaceFile replaces a file at once, so that a daemon never reads half of it.
func replaceFile(path, text string) error {
	if err := os.WriteFile(path+".edit", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".edit", path)
}
