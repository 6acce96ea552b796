package conf

import (
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// DefaultBaud is heartbeat's.
const DefaultBaud = 19200

// bauds are the rates of heartbeat and the next one that a common UART has.
var bauds = []int{9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600}

func (r *reader) serial(n *yaml.Node) (Link, bool) {
	l := Link{Type: Serial, Baud: DefaultBaud}
	if n.Kind == yaml.ScalarNode {
		var ok bool
		if l.Device, ok = r.path(n); ok && strings.ContainsFunc(l.Device, func(c rune) bool { return c <= ' ' }) {
			r.errorf(n, "%s is not understood; write one device, \"- serial: /dev/ttyS0\", or \"- serial: {device: /dev/ttyS0, baud: %d}\"", quote(l.Device), DefaultBaud)
			ok = false
		}
		return l, ok
	}
	var device opt[string]
	var baud opt[int]
	if !r.mapping(n, "a serial link", serialFields(r, &device, &baud), nil) {
		return l, false
	}
	if device.at == nil {
		r.errorf(n, "\"device\" is missing; name the serial device, /dev/ttyS0")
	}
	l.Device, l.Baud = device.v, baud.or(l.Baud)
	return l, device.ok && (baud.at == nil || baud.ok)
}

func serialFields(r *reader, device *opt[string], baud *opt[int]) []field {
	read := r.integer(0, 1<<31-1)
	rates := strings.ReplaceAll(strings.Trim(fmt.Sprint(bauds), "[]"), " ", ", ")
	return []field{
		{"device", "The serial device, /dev/ttyS0, at both ends of a null-modem cable. Required.", into(device, r.path)},
		{"baud", "Its rate, the same at both ends: " + rates + ". Default 19200.", into(baud, func(n *yaml.Node) (int, bool) {
			b, ok := read(n)
			if ok && !slices.Contains(bauds, b) {
				r.errorf(n, "%d is not a rate of serial lines here; those are %s", b, rates)
				return 0, false
			}
			return b, ok
		})},
	}
}

// checkSerial looks at what serial lines need of the rest.
func (raw *rawLocal) checkSerial(r *reader, l *Local) {
	var serial, network *rawLink
	for i := range raw.links {
		if raw.links[i].Type == Serial {
			serial = &raw.links[i]
		} else {
			network = &raw.links[i]
		}
	}
	if serial == nil {
		return
	}
	if n := len(l.Nodes); n != 2 && n > 0 && !raw.nodesFaulty {
		r.errorf(serial.at, "a serial line connects exactly two nodes, and there %s; take the link out", areNodes(n))
	}
	if network == nil && len(raw.links) == len(raw.linksAt.Content) {
		r.errorf(serial.at, "a serial line carries hellos and leases only; at least one link of the network has to be there for the rest: \"- bcast: eth1\"")
	}
}

func areNodes(n int) string {
	if n == 1 {
		return "is 1"
	}
	return fmt.Sprintf("are %d", n)
}
