package state

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
)

// Snapshot writes the state to w; Restore reads it back.
func (s *State) Snapshot(w io.Writer) error {
	z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err := json.NewEncoder(z).Encode(s); err != nil {
		return err
	}
	return z.Close()
}

// Restore reads a snapshot. The error says when it was written by a newer keepbeat.
func Restore(r io.Reader) (*State, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("snapshot of the cluster's state: %w", err)
	}
	s := New()
	if err := json.NewDecoder(z).Decode(s); err != nil {
		return nil, fmt.Errorf("snapshot of the cluster's state: %w", err)
	}
	if s.Format > Format {
		return nil, fmt.Errorf("snapshot of the cluster's state has format %d, this keepbeat reads up to %d: install the version that the other nodes run", s.Format, Format)
	}
	empty := New() // a map that is null
	if s.Nodes == nil {
		s.Nodes = empty.Nodes
	}
	if s.Groups == nil {
		s.Groups = empty.Groups
	}
	if s.Seen == nil {
		s.Seen = empty.Seen
	}
	return s, nil
}
