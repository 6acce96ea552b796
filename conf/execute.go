package conf

import (
	"bytes"
	"cmp"
	"fmt"
	"path/filepath"
	"slices"

	"gopkg.in/yaml.v3"
)

// execution is one file that a pool executes.
type execution struct {
	name string
	at   *yaml.Node
}

// located is where a virtual service of a pool is written: its own file or one that it executes.
type located struct {
	file string
	at   *yaml.Node
}

// execute reads the names of the files that are read as parts of the pool.
func (p *poolReader) execute(n *yaml.Node) {
	add := func(n *yaml.Node) {
		name, ok := p.scalar(n, "the name of a pool file, mail.yaml")
		if !ok {
			return
		}
		if err := checkPoolName(name, HaresourcesName); err != nil {
			p.errorf(n, "execute: %s", err)
			return
		}
		p.executes = append(p.executes, execution{name, n})
	}
	if n = p.resolve(n); n.Kind == yaml.SequenceNode {
		p.list(n, "execute", func(_ int, n *yaml.Node) { add(n) })
	} else {
		add(n)
	}
}

// pool reads a pool and the files that it executes, and says where its virtual services stand.
func (s *specReader) pool(p *poolReader, name string, use poolUse) (Pool, []located) {
	pool := p.read(s.files.Pools[name])
	if p.part {
		p.sameAsWhole(&pool)
	}
	s.errs = append(s.errs, p.errs...)
	said := map[Warning]bool{} // what is global, and what the services of a group share, is said once
	for _, w := range p.warns {
		if !said[w] {
			said[w] = true
			s.warns = append(s.warns, w)
		}
	}
	at := make([]located, len(p.at))
	for i, n := range p.at {
		at[i] = located{p.file, n}
	}
	for _, x := range p.executes {
		says := &reader{file: p.file}
		other, twice := s.poolAt[x.name]
		_, there := s.files.Pools[x.name]
		switch {
		case twice:
			says.errorf(x.at, "execute: %s is read already, %s names it in line %d; name each file once", quote(x.name), cmp.Or(other.by, fmt.Sprintf("group %s", quote(other.group))), other.at.Line)
		case !there:
			says.errorf(x.at, "execute: %s: no such file beside %s%s", quote(x.name), cmp.Or(s.beside, HaresourcesName), s.otherPools())
		}
		if s.errs = append(s.errs, says.errs...); twice || !there {
			continue
		}
		part := newPoolReader(filepath.Join(filepath.Dir(s.files.Name), x.name))
		part.names, part.reals, part.virtuals, part.checks, part.try = p.names, p.reals, p.virtuals, p.checks, p.try
		part.part, part.whole, part.wholeName, part.stays = true, p.whole, p.wholeName, p.stays
		s.poolAt[x.name] = poolUse{group: use.group, by: name, at: x.at}
		more, moreAt := s.pool(part, x.name, use)
		pool.Virtuals, at = append(pool.Virtuals, more.Virtuals...), append(at, moreAt...)
		pool.Executes = append(append(pool.Executes, x.name), more.Executes...)
	}
	return pool, at
}

// sameAsWhole refuses values that are the pool's and that a part of it gives
// another meaning: a part has no files, mails and hooks of its own.
func (p *poolReader) sameAsWhole(pool *Pool) {
	for _, x := range []struct {
		key         string
		at          *yaml.Node
		part, whole any
	}{
		{"autoreload", p.autoreload.at, pool.Autoreload, p.whole.Autoreload},
		{"maintenancedir", p.maintenancedir.at, pool.MaintenanceDir, p.whole.MaintenanceDir},
		{"callback", p.callback.at, pool.Callback, p.whole.Callback},
	} {
		if x.at != nil && x.part != x.whole {
			p.errorf(x.at, "%s is of a pool as a whole, and %s, which executes this file, says otherwise; write it there only", x.key, p.wholeName)
		}
	}
}

// executed returns the plain names of the files that a pool executes, as far as it can be understood.
func executed(pool []byte) []string {
	if !bytes.Contains(pool, []byte("execute")) {
		return nil // nearly all: they need not be parsed for that
	}
	p := newPoolReader("")
	root := p.document(pool)
	if root == nil {
		return nil
	}
	p.pairs(root, "a pool", func(key, value *yaml.Node) {
		if key.Value == "execute" {
			p.execute(value)
		}
	})
	names := make([]string, len(p.executes))
	for i, x := range p.executes {
		names[i] = x.name
	}
	return names
}

// PoolNames returns the plain names of the pools that the files name, there or
// not: those of haresources.yaml, and what these execute. It goes as far as
// the files can be understood, in the order of the names.
func (f Files) PoolNames() []string {
	names, _ := follow(namedPools(f.Haresources), func(name string) ([]byte, error) { return f.Pools[name], nil })
	return names
}

// follow calls read once for each of the pools that are named, or that a pool which was read executes.
func follow(names []string, read func(name string) ([]byte, error)) ([]string, error) {
	known := map[string]bool{}
	for _, n := range names {
		known[n] = true
	}
	for i := 0; i < len(names); i++ {
		data, err := read(names[i])
		if err != nil {
			return nil, err
		}
		for _, n := range executed(data) {
			if !known[n] {
				known[n] = true
				names = append(names, n)
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

// Autoreloads says whether an edit of a file is to be applied by itself: as
// the whole specification says, or the pool that it is or is a part of.
func (s *Spec) Autoreloads(file string) bool {
	if s.Settings.Autoreload || s.Pools[file].Autoreload {
		return true
	}
	for _, p := range s.Pools {
		if p.Autoreload && slices.Contains(p.Executes, file) {
			return true
		}
	}
	return false
}
