package checks

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/keepbeat/keepbeat/conf"
)

// Types of TNS packets, as public descriptions of the protocol have them.
const (
	tnsConnect  = 1
	tnsAccept   = 2
	tnsRefuse   = 4
	tnsRedirect = 5
	tnsResend   = 11

	tnsHeader      = 8
	tnsConnectData = 58 // offset of it in a connect packet
)

// oracleCheck is checktype negotiate for oracle, by the listener: what comes
// after it, the login and the query, needs Oracle's own client, and is not
// tried; the detail says so each time.
//
// With database the listener has to accept a connection to the service of that
// name (with a colon before it, to that SID, which is what ldirectord asked
// for), or to send it on to another port, which is not followed. Without
// database it has to answer a ping as tnsping makes one.
type oracleCheck struct {
	c      conf.Check
	packet []byte
}

func newOracle(c conf.Check, _ *env) (Checker, error) {
	k := &oracleCheck{c: c}
	if err := needTCPPort(c); err != nil {
		return nil, err
	}
	if i := strings.IndexFunc(c.Database, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`()='"\`, r) }); i >= 0 || len(c.Database) > 128 {
		return nil, fmt.Errorf("database %q is neither the name of a service nor a colon and a SID", c.Database)
	}
	data := "(COMMAND=ping)"
	if sid, ok := strings.CutPrefix(c.Database, ":"); ok {
		data = "(SID=" + sid + ")"
	} else if sid != "" {
		data = "(SERVICE_NAME=" + c.Database + ")"
	}
	k.packet = tnsConnectPacket("(DESCRIPTION=(CONNECT_DATA=" + data + "(CID=(PROGRAM=keepbeat)(HOST=director)(USER=keepbeat))))")
	return k, nil
}

// tnsConnectPacket makes a connect packet.
func tnsConnectPacket(data string) []byte {
	p := make([]byte, tnsConnectData, tnsConnectData+len(data))
	put := func(at, n int) { binary.BigEndian.PutUint16(p[at:], uint16(n)) }
	put(0, tnsConnectData+len(data))
	p[4] = tnsConnect
	put(8, 310)     // version
	put(10, 300)    // oldest that will do
	put(14, 2048)   // size of a session's data unit
	put(16, 0x7fff) // of the transport's
	put(18, 0x7f08) // what the transport can do
	put(22, 1)      // byte order
	put(24, len(data))
	put(26, tnsConnectData)
	return append(p, data...)
}

func (k *oracleCheck) Check(ctx context.Context) (string, error) {
	s, err := openStream(ctx, k.c, nil)
	if err != nil {
		return "", err
	}
	defer s.Close()
	for range 3 { // a listener may ask to have it sent again
		if err := s.write(k.packet); err != nil {
			return "", err
		}
		kind, body, err := readTNS(s)
		if err != nil {
			return "", err
		}
		if kind != tnsResend {
			return k.judge(kind, body)
		}
	}
	return "", errors.New("the listener asks for the same packet again and again")
}

// readTNS reads a packet.
func readTNS(s *stream) (kind byte, body []byte, err error) {
	head, err := s.read(tnsHeader)
	if err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint16(head))
	if n < tnsHeader || head[4] == 0 || head[4] > 19 {
		return 0, nil, fmt.Errorf("not a listener's packet: %s", quote(head))
	}
	body, err = s.read(n - tnsHeader)
	return head[4], body, err
}

// tnsError finds the number in the words of a refusal.
var tnsError = regexp.MustCompile(`\(ERR=([0-9]{1,9})\)`)

// tnsWords are the numbers that a check may well get.
var tnsWords = map[string]string{
	"12505": "the listener does not know this SID",
	"12514": "the listener does not know this service",
	"12516": "no handler fits", "12519": "no handler is free", "12520": "no handler of this kind",
	"12526": "all instances are in restricted mode", "12528": "all instances block new connections",
}

// judge looks at the listener's answer. Refusal 0 is the answer to a ping.
func (k *oracleCheck) judge(kind byte, body []byte) (string, error) {
	const noLogin = " (no login is tried)"
	switch kind {
	case tnsAccept:
		return "the listener accepts" + noLogin, nil
	case tnsRedirect:
		return "the listener sends on to another port" + noLogin, nil
	case tnsRefuse:
	default:
		return "", fmt.Errorf("an answer of type %d, wanted accept, redirect or refuse", kind)
	}
	words := refusal(body)
	m := tnsError.FindSubmatch(words)
	switch {
	case m == nil:
		return "", fmt.Errorf("refused: %s", quote(words))
	case string(m[1]) == "0" && k.c.Database == "":
		return "the listener answers" + noLogin, nil
	case tnsWords[string(m[1])] != "":
		return "", fmt.Errorf("refused: TNS-%s, %s", m[1], tnsWords[string(m[1])])
	}
	return "", fmt.Errorf("refused: TNS-%s", m[1])
}

// refusal is what a refuse packet says: two reasons of one byte, a length, and
// the words.
func refusal(body []byte) []byte {
	if len(body) < 4 {
		return nil
	}
	words := body[4:]
	return words[:min(len(words), int(binary.BigEndian.Uint16(body[2:])))]
}
