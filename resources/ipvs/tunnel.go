package ipvs

import (
	"errors"
	"fmt"
)

// support says whether the kernel knows something.
type support uint8

// The zero value is not known yet.
const (
	_ support = iota
	supported
	unsupported
)

var errNoTunnels = errors.New("this kernel's IPVS knows plain ipip tunnels only; gue needs Linux 5.3, gre Linux 5.4")

// needsTunnel tells an operation that a kernel without tunnel types would take
// for one about a plain tunnel.
func needsTunnel(op Op) bool {
	return (op.Verb == AddDest || op.Verb == EditDest) && op.Dest.Tunnel != tunnelIPIP
}

// applyTunnel does the first operation about a tunnel other than IPIP. A
// kernel that does not know them ignores the attribute and reports success:
// what it did is read back, and a server that it would send plain IPIP packets to is removed again.
func (c *client) applyTunnel(ops []Op) ([]Refused, error) {
	op := ops[0]
	if c.tunnels == unsupported {
		return []Refused{{op, fmt.Errorf("ipvs: %s: %w", op, errNoTunnels)}}, nil
	}
	refused, err := c.applyPart(ops)
	if err != nil || len(refused) > 0 {
		return refused, err
	}
	told := false // the kernel has told a server's type of tunnel
	err = c.dump(cmdGetDest, &op.Service, func() { told = false }, func(payload []byte) error {
		body, err := nested(payload, cmdAttrDest)
		if err != nil {
			return err
		}
		return attributes(body, func(kind uint16, _ []byte) error {
			told = told || kind == destTunnel
			return nil
		})
	})
	switch {
	case err != nil:
		return nil, err
	case told:
		c.tunnels = supported
		return nil, nil
	}
	c.tunnels = unsupported
	if _, err := c.applyPart([]Op{{Verb: DeleteDest, Service: op.Service, Dest: op.Dest}}); err != nil {
		return nil, err
	}
	return []Refused{{op, fmt.Errorf("ipvs: %s: %w", op, errNoTunnels)}}, nil
}
