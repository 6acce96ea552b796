package conf

import (
	"fmt"
	"strings"
)

// The enumerations are stored as text: the zero value as "", which is read
// back as the zero value, since parts of a specification may leave it out.

func enumMarshal(s string, zero bool) ([]byte, error) {
	switch {
	case zero:
		return []byte{}, nil
	case strings.HasPrefix(s, "invalid("):
		return nil, fmt.Errorf("conf: %s has no name", s)
	}
	return []byte(s), nil
}

func enumUnmarshal[T ~uint8](to *T, text []byte, name func(T) string, what string) error {
	if len(text) == 0 {
		*to = 0
		return nil
	}
	for v := T(1); !strings.HasPrefix(name(v), "invalid("); v++ {
		if name(v) == string(text) {
			*to = v
			return nil
		}
	}
	return fmt.Errorf("conf: %s is no %s", quote(string(text)), what)
}

// MarshalText implements encoding.TextMarshaler.
func (r Role) MarshalText() ([]byte, error) { return enumMarshal(r.String(), r == 0) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Role) UnmarshalText(b []byte) error { return enumUnmarshal(r, b, Role.String, "role") }

// MarshalText implements encoding.TextMarshaler.
func (l LinkType) MarshalText() ([]byte, error) { return enumMarshal(l.String(), l == 0) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *LinkType) UnmarshalText(b []byte) error {
	return enumUnmarshal(l, b, LinkType.String, "kind of link")
}

// MarshalText implements encoding.TextMarshaler.
func (q Quorum) MarshalText() ([]byte, error) { return enumMarshal(q.String(), q == 0) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (q *Quorum) UnmarshalText(b []byte) error {
	return enumUnmarshal(q, b, Quorum.String, "quorum rule")
}

// MarshalText implements encoding.TextMarshaler.
func (g GuardMode) MarshalText() ([]byte, error) { return enumMarshal(g.String(), g == 0) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (g *GuardMode) UnmarshalText(b []byte) error {
	return enumUnmarshal(g, b, GuardMode.String, "guard mode")
}

// MarshalText implements encoding.TextMarshaler.
func (c Class) MarshalText() ([]byte, error) { return enumMarshal(c.String(), c == 0) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Class) UnmarshalText(b []byte) error { return enumUnmarshal(c, b, Class.String, "class") }

// MarshalText implements encoding.TextMarshaler.
func (p Protocol) MarshalText() ([]byte, error) { return enumMarshal(p.String(), p == 0) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Protocol) UnmarshalText(b []byte) error {
	return enumUnmarshal(p, b, Protocol.String, "protocol")
}

// MarshalText implements encoding.TextMarshaler.
func (f Forward) MarshalText() ([]byte, error) { return enumMarshal(f.String(), f == 0) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *Forward) UnmarshalText(b []byte) error {
	return enumUnmarshal(f, b, Forward.String, "forward method")
}

// MarshalText implements encoding.TextMarshaler.
func (t Tunnel) MarshalText() ([]byte, error) { return enumMarshal(t.String(), t == 0) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *Tunnel) UnmarshalText(b []byte) error { return enumUnmarshal(t, b, Tunnel.String, "tunnel") }

// MarshalText implements encoding.TextMarshaler.
func (c Checksum) MarshalText() ([]byte, error) { return enumMarshal(c.String(), c == 0) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Checksum) UnmarshalText(b []byte) error {
	return enumUnmarshal(c, b, Checksum.String, "checksum of a tunnel")
}

// MarshalText implements encoding.TextMarshaler.
func (c CheckType) MarshalText() ([]byte, error) { return enumMarshal(c.String(), c == 0) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *CheckType) UnmarshalText(b []byte) error {
	return enumUnmarshal(c, b, CheckType.String, "check type")
}

// MarshalText implements encoding.TextMarshaler.
func (c Conflict) MarshalText() ([]byte, error) { return enumMarshal(c.String(), c == 0) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Conflict) UnmarshalText(b []byte) error {
	return enumUnmarshal(c, b, Conflict.String, "way with a foreign master")
}

// MarshalText implements encoding.TextMarshaler.
func (a FenceAction) MarshalText() ([]byte, error) { return enumMarshal(a.String(), a == 0) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *FenceAction) UnmarshalText(b []byte) error {
	return enumUnmarshal(a, b, FenceAction.String, "fence action")
}

// MarshalText implements encoding.TextMarshaler.
func (t FenceType) MarshalText() ([]byte, error) { return enumMarshal(t.String(), t == 0) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *FenceType) UnmarshalText(b []byte) error {
	return enumUnmarshal(t, b, FenceType.String, "type of fencing device")
}
