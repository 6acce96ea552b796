package checks

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// maxDatagram is what UDP over IPv4 can carry, in bytes.
const maxDatagram = 65507

// quietWait is how long a server that need not answer is listened to: a host
// that is gone is known to be so after three seconds of looking for it on the
// link. At most three quarters of the check's time-out.
const quietWait = 4 * time.Second

// udpCheck is checktype negotiate for udp. With a wanted reply (reply,
// reply_min or reply_max) one has to come and be right. Otherwise any reply
// will do, and so does silence: the server is down when ICMP says that nobody
// listens or that there is no such host.
type udpCheck struct {
	c       conf.Check
	payload []byte
	prefix  []byte // the reply begins with it, where mask has ones
	mask    []byte
	room    int // bytes of a reply that are looked at
}

func newUDP(c conf.Check, _ *env) (Checker, error) {
	k := &udpCheck{c: c}
	if err := needTCPPort(c); err != nil {
		return nil, err
	}
	if err := sameFamily(c); err != nil {
		return nil, err
	}
	var err error
	if k.payload, err = hex.DecodeString(c.Payload); err != nil || len(k.payload) > maxDatagram {
		return nil, fmt.Errorf("payload %s: it has to be the hex digits of 0 to %d bytes, two for each", quote([]byte(c.Payload)), maxDatagram)
	}
	if k.prefix, k.mask, err = parseReply(c.ReplyHex); err != nil {
		return nil, err
	}
	switch {
	case c.Receive != "":
		return nil, errors.New("service udp compares bytes: write reply in place of receive")
	case c.ReplyMin < 0 || c.ReplyMin > maxDatagram || c.ReplyMax < 0 || c.ReplyMax > maxDatagram:
		return nil, fmt.Errorf("reply_min %d, reply_max %d: both have to be from 0 to %d bytes", c.ReplyMin, c.ReplyMax, maxDatagram)
	case c.ReplyMax > 0 && max(c.ReplyMin, len(k.prefix)) > c.ReplyMax:
		return nil, fmt.Errorf("no reply can be right: it has to have at least %d bytes and at most reply_max, %d", max(c.ReplyMin, len(k.prefix)), c.ReplyMax)
	}
	// One byte more than matters shows that there is more.
	k.room = max(k.c.ReplyMin, k.c.ReplyMax, len(k.prefix), 511) + 1
	return k, nil
}

// parseReply reads hex digits among which an x stands for any.
func parseReply(s string) (prefix, mask []byte, err error) {
	zeros := strings.NewReplacer("x", "0", "X", "0").Replace(s)
	if prefix, err = hex.DecodeString(zeros); err != nil || len(prefix) > maxDatagram {
		return nil, nil, fmt.Errorf("reply %s: it has to be the hex digits of at most %d bytes, two for each, with x for any digit", quote([]byte(s)), maxDatagram)
	}
	mask = make([]byte, len(prefix))
	for i := range s {
		if s[i] != 'x' && s[i] != 'X' {
			mask[i/2] |= 0xf0 >> (i % 2 * 4)
		}
	}
	return prefix, mask, nil
}

func (k *udpCheck) Check(ctx context.Context) (string, error) {
	conn, err := dialUDPCheck(ctx, k.c)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	buf := make([]byte, k.room)
	if k.c.ReplyHex == "" && k.c.ReplyMin == 0 && k.c.ReplyMax == 0 {
		return k.quiet(conn, buf)
	}
	var detail string
	err = conn.ask(k.payload, buf, func(reply []byte) error {
		detail = k.length(len(reply))
		return k.judge(reply)
	})
	return detail, err
}

// quiet sends once, for a server that does not answer may still act on what it gets.
func (k *udpCheck) quiet(conn *udpConn, buf []byte) (string, error) {
	if err := conn.send(k.payload); err != nil {
		return "", err
	}
	wait := min(quietWait, k.c.Timeout*3/4)
	n, err := conn.receive(buf, time.Now().Add(wait))
	switch {
	case err == nil:
		return k.length(n), nil
	case isTimeout(err) && conn.ctx.Err() == nil:
		return fmt.Sprintf("not refused within %v (no reply is asked for)", wait), nil
	}
	return "", conn.fail(err)
}

func (k *udpCheck) judge(reply []byte) error {
	switch {
	case len(reply) < k.c.ReplyMin:
		return fmt.Errorf("%s, wanted at least %d", k.length(len(reply)), k.c.ReplyMin)
	case k.c.ReplyMax > 0 && len(reply) > k.c.ReplyMax:
		return fmt.Errorf("%s, wanted at most %d", k.length(len(reply)), k.c.ReplyMax)
	}
	wrong := len(reply) < len(k.prefix)
	for i := 0; !wrong && i < len(k.prefix); i++ {
		wrong = (reply[i]^k.prefix[i])&k.mask[i] != 0
	}
	if wrong {
		return fmt.Errorf("%s begins with %s, wanted %s", k.length(len(reply)), shortHex(reply), cutTo(k.c.ReplyHex, 60))
	}
	return nil
}

// length says how long a reply is, as far as it was looked at.
func (k *udpCheck) length(n int) string {
	if n >= k.room {
		return fmt.Sprintf("reply of %d bytes or more", n)
	}
	return fmt.Sprintf("reply of %d bytes", n)
}

func shortHex(p []byte) string {
	if len(p) > 30 {
		return hex.EncodeToString(p[:30]) + "..."
	}
	return hex.EncodeToString(p)
}

// cutTo shows at most n bytes of an ASCII string.
func cutTo(s string, n int) string {
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}
