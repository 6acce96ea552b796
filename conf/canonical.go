package conf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Canonical returns the specification as it is replicated: JSON, the same
// bytes for the same specification.
func (s *Spec) Canonical() ([]byte, error) {
	// encoding/json writes fields in the order of the types and sorts the keys of maps.
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("canonical form: %w", err)
	}
	return b, nil
}

// ParseCanonical is the inverse of Canonical. It refuses fields that it does
// not know: a node that dropped them silently would act on another
// specification than the node that wrote them.
func ParseCanonical(b []byte) (*Spec, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	s := new(Spec)
	if err := dec.Decode(s); err != nil {
		return nil, fmt.Errorf("canonical form (of a newer version?): %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("canonical form: something follows it")
	}
	return s, nil
}
