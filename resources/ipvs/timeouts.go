package ipvs

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// The time-outs of connections, include/uapi/linux/ip_vs.h. They are
// attributes of the message itself, in seconds.
const (
	cmdSetConfig = 12
	cmdGetConfig = 13

	cmdAttrTimeoutTCP    = 4
	cmdAttrTimeoutTCPFin = 5
	cmdAttrTimeoutUDP    = 6
)

// timeoutNames are the settings that are time-outs, with their attributes.
var timeoutNames = map[string]uint16{
	"timeout_tcp":    cmdAttrTimeoutTCP,
	"timeout_tcpfin": cmdAttrTimeoutTCPFin,
	"timeout_udp":    cmdAttrTimeoutUDP,
}

// request sends one message and calls answer, if there is one, for what comes back.
func (c *client) request(cmd uint8, fill func(*message), answer func(payload []byte) error) error {
	c.seq++
	m := newMessage(c.family, unix.NLM_F_ACK, c.seq, cmd, familyVersion)
	fill(m)
	if err := c.conn.send(m.bytes()); err != nil {
		return err
	}
	return c.answers(func(r reply) (bool, error) {
		switch {
		case r.seq != c.seq:
			return false, nil
		case r.kind == c.family && answer != nil:
			return false, answer(r.payload)
		case r.kind != unix.NLMSG_ERROR:
			return false, nil
		}
		errno, words, err := r.errno()
		switch {
		case err != nil || errno == 0:
			return true, err
		case words != "":
			return true, fmt.Errorf("%w (%s)", errno, words)
		default:
			return true, errno
		}
	})
}

// command is a request without an answer.
func (k *Kernel) command(ctx context.Context, cmd uint8, fill func(*message)) error {
	return k.call(ctx, func(c *client) error { return c.request(cmd, fill, nil) })
}

func (c *client) timeout(kind uint16) (uint32, error) {
	seconds, told := uint32(0), false
	err := c.request(cmdGetConfig, func(*message) {}, func(payload []byte) error {
		v, err := nested(payload, kind)
		if err != nil {
			return err
		}
		n, err := number(v)
		seconds, told = uint32(n), true
		return err
	})
	if err == nil && !told {
		err = fmt.Errorf("%w: no time-outs", errMalformed)
	}
	return seconds, err
}

// Setting implements Node.
func (k *Kernel) Setting(ctx context.Context, name string) (string, error) {
	kind, is := timeoutNames[name]
	if !is {
		return k.cfg.sysctls.read(name)
	}
	var seconds uint32
	if err := k.call(ctx, func(c *client) (err error) { seconds, err = c.timeout(kind); return err }); err != nil {
		return "", fmt.Errorf("reading IPVS's %s: %w", name, err)
	}
	return strconv.FormatUint(uint64(seconds), 10), nil
}

// Set implements Node.
func (k *Kernel) Set(ctx context.Context, name, value string) error {
	kind, is := timeoutNames[name]
	if !is {
		return k.cfg.sysctls.write(name, value)
	}
	seconds, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return fmt.Errorf("IPVS's %s: %w", name, err)
	}
	if err := k.command(ctx, cmdSetConfig, func(m *message) { m.u32(kind, uint32(seconds)) }); err != nil {
		return fmt.Errorf("setting IPVS's %s to %s s: %w", name, value, err)
	}
	return nil
}

// known tells whether a setting is one that we may have changed: what is read
// from the journal names files below /proc.
func known(name string) bool {
	_, timeout := timeoutNames[name]
	return timeout || slices.Contains(sysctlNames, name)
}
