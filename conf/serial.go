package conf

import (
	"fmt"
	"slices"
	"strings"
	"time"

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
		{"baud", "Its rate, the same at both ends: " + rates + "; at least 57600 with profile fast, 19200 with default, 9600 with calm. Default 19200.", into(baud, func(n *yaml.Node) (int, bool) {
			b, ok := read(n)
			if ok && !slices.Contains(bauds, b) {
				r.errorf(n, "%d is not a rate of serial lines here; those are %s", b, rates)
				return 0, false
			}
			return b, ok
		})},
	}
}

// leaseBits is what the leases of two directors take of a line in either
// direction within one lease: four renewals of 70 bytes and the answers to four, of
// 108, at ten bits a byte. Hellos take a sixth of the line beside them
// (docs/protocol.md, "Serial lines").
const leaseBits = 4 * (70 + 108) * 10 * 6 / 5

// slowestBaud is the least rate at which a line carries leases of this length. The
// fastest lines carry 10 ms, and no lease is that short.
func slowestBaud(lease time.Duration) int {
	for _, b := range bauds {
		if time.Duration(b)*lease >= leaseBits*time.Second {
			return b
		}
	}
	return bauds[len(bauds)-1]
}

// tooSlow says why a serial line does not carry leases of this length; empty: it does.
func tooSlow(l Link, p Profile) string {
	least := slowestBaud(p.Lease)
	if l.Type != Serial || l.Baud >= least {
		return ""
	}
	return fmt.Sprintf("%d baud are too slow for leases of %s (profile %s): when %s is all that is left they would end; write \"- serial: {device: %s, baud: %d}\" on both nodes, or choose a calmer profile",
		l.Baud, brief(p.Lease), p.Name, l.Device, l.Device, least)
}

// checkSerial looks at what serial lines need of the rest.
func (raw *rawLocal) checkSerial(r *reader, l *Local) {
	var serial, network *rawLink
	for i := range raw.links {
		if raw.links[i].Type == Serial {
			serial = &raw.links[i]
			if why := tooSlow(serial.Link, l.Profile); why != "" {
				r.errorf(serial.at, "%s", why)
			}
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
