package checks

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net/netip"
	"strconv"
)

// sipQuestion is one OPTIONS. All that an answer brings back is random, so that
// the late answer to an earlier check is not taken for the answer to this one.
type sipQuestion struct {
	transport string // UDP, TCP
	local     netip.AddrPort
	uri       string
	login     string
	branch    string // RFC 3261, 8.1.1.7: begins with z9hG4bK
	callID    string
	tag       string
}

func newSIPQuestion(transport string, local netip.AddrPort, uri, login string) sipQuestion {
	return sipQuestion{
		transport: transport, local: local, uri: uri, login: login,
		branch: "z9hG4bK" + rand.Text(), callID: rand.Text(), tag: rand.Text(),
	}
}

// render is the request as it is sent (RFC 3261, 8.1.1); rport (RFC 3581) has
// the answer come back to the port that asked.
func (q sipQuestion) render() []byte {
	return fmt.Appendf(nil, "OPTIONS %s SIP/2.0\r\n"+
		"Via: SIP/2.0/%s %s;branch=%s;rport\r\n"+
		"Max-Forwards: 70\r\n"+
		"To: <sip:%s>\r\n"+
		"From: <sip:%s>;tag=%s\r\n"+
		"Call-ID: %s\r\n"+
		"CSeq: 1 OPTIONS\r\n"+
		"Contact: <sip:%s>\r\n"+
		"Accept: application/sdp\r\n"+
		"User-Agent: keepbeat\r\n"+
		"Content-Length: 0\r\n\r\n",
		q.uri, q.transport, q.local, q.branch, q.login, q.login, q.tag, q.callID, q.local)
}

// judge says what an answer means. An error that is foreign: it is not the last
// answer to this question.
func (q sipQuestion) judge(a sipAnswer) (detail string, err error) {
	switch {
	case a.branch != q.branch || a.callID != q.callID || a.cseq != "1 OPTIONS":
		return "", foreign("an answer to another request")
	case a.code < 200:
		return "", foreign(quote([]byte(a.status)))
	case a.code != 200:
		return "", fmt.Errorf("%s, wanted 200", quote([]byte(a.status)))
	}
	return a.status, nil
}

// sipAnswer is what matters of the head of a response.
type sipAnswer struct {
	status string // the whole line
	code   int
	branch string // of the topmost Via
	callID string
	cseq   string // number, one blank, method
	length int    // of the body; 0 also when it does not say
	via    bool   // the topmost Via has been seen
}

// readSIP reads the head of a response, line by line from next, up to the empty
// line (RFC 3261, 7 and 7.3.1, folded fields included).
func readSIP(next func() ([]byte, error)) (sipAnswer, error) {
	var a sipAnswer
	line := []byte{}
	for len(line) == 0 { // RFC 3261, 7.5: empty lines before the start are ignored
		var err error
		if line, err = next(); err != nil {
			return a, err
		}
	}
	if err := a.start(line); err != nil {
		return a, err
	}
	var field []byte // with its continuations
	for {
		line, err := next()
		if err != nil {
			return a, err
		}
		if len(line) > 0 && (line[0] == ' ' || line[0] == '\t') {
			field = append(field, line...)
			continue
		}
		if err := a.field(field); err != nil {
			return a, err
		}
		if len(line) == 0 {
			return a, nil
		}
		field = append(field[:0], line...)
	}
}

// start reads "SIP/2.0 200 OK".
func (a *sipAnswer) start(line []byte) error {
	rest, ok := bytes.CutPrefix(line, []byte("SIP/2.0 "))
	code, _, _ := bytes.Cut(rest, []byte(" "))
	n, err := strconv.ParseUint(string(code), 10, 16)
	if !ok || len(code) != 3 || err != nil || n < 100 || n > 699 {
		return fmt.Errorf("not a SIP answer: %s", quote(line))
	}
	a.status, a.code = string(line), int(n)
	return nil
}

// field takes what matters from a header field; the names have short forms.
func (a *sipAnswer) field(f []byte) error {
	name, value, ok := bytes.Cut(f, []byte(":"))
	if !ok {
		return nil // rubbish, and not ours to judge
	}
	name, value = bytes.TrimRight(name, " \t"), bytes.TrimSpace(value)
	switch {
	case is(name, "via") || is(name, "v"):
		if !a.via { // those of proxies may follow
			a.via, a.branch = true, sipBranch(value)
		}
	case is(name, "call-id") || is(name, "i"):
		a.callID = string(value)
	case is(name, "cseq"):
		a.cseq = string(bytes.Join(bytes.Fields(value), []byte(" ")))
	case is(name, "content-length") || is(name, "l"):
		n, err := strconv.ParseUint(string(value), 10, 31)
		if err != nil {
			return fmt.Errorf("bad Content-Length %s", quote(value))
		}
		a.length = int(n)
	}
	return nil
}

// sipBranch is the branch of the first of the values of a Via.
func sipBranch(via []byte) string {
	first, _, _ := bytes.Cut(via, []byte(","))
	for i, p := range bytes.Split(first, []byte(";")) {
		name, value, _ := bytes.Cut(p, []byte("="))
		if i > 0 && is(bytes.TrimSpace(name), "branch") {
			return string(bytes.TrimSpace(value))
		}
	}
	return ""
}
