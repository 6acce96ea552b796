package checks

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

func tnsPacket(kind byte, body string) string {
	p := append(binary.BigEndian.AppendUint16(nil, uint16(tnsHeader+len(body))), 0, 0, kind, 0, 0, 0)
	return string(p) + body
}

func tnsRefusal(words string) string {
	return tnsPacket(tnsRefuse, string(append([]byte{34, 0}, binary.BigEndian.AppendUint16(nil, uint16(len(words)))...))+words)
}

// readTNSConnect reads a connect packet and returns its words.
func readTNSConnect(c net.Conn) string {
	head := make([]byte, tnsHeader)
	if _, err := io.ReadFull(c, head); err != nil || head[4] != tnsConnect {
		return ""
	}
	p := make([]byte, int(binary.BigEndian.Uint16(head))-tnsHeader)
	io.ReadFull(c, p)
	at, n := int(binary.BigEndian.Uint16(p[18:]))-tnsHeader, int(binary.BigEndian.Uint16(p[16:]))
	return string(p[at : at+n])
}

func oracleTo(addr, database string) conf.Check {
	return conf.Check{Type: conf.Negotiate, Service: "oracle", Target: netip.MustParseAddrPort(addr), Timeout: time.Minute, Database: database}
}

func TestOracleAnswers(t *testing.T) {
	accept := tnsPacket(tnsAccept, "\x01\x36"+strings.Repeat("\x00", 14))
	for _, tc := range []struct {
		name, database, asked string
		answers               []string
		want                  string
	}{
		{"a ping", "", "(COMMAND=ping)", []string{tnsRefusal("(DESCRIPTION=(TMP=)(VSNNUM=318767104)(ERR=0)(ALIAS=LISTENER))")}, "the listener answers (no login is tried)"},
		{"a ping that fails", "", "(COMMAND=ping)", []string{tnsRefusal("(DESCRIPTION=(ERR=1189))")}, "!refused: TNS-1189"},
		{"a service", "shop.example.com", "(SERVICE_NAME=shop.example.com)", []string{accept}, "the listener accepts (no login is tried)"},
		{"a SID", ":SHOP", "(SID=SHOP)", []string{accept}, "the listener accepts (no login is tried)"},
		{"asked again", "shop", "(SERVICE_NAME=shop)", []string{tnsPacket(tnsResend, ""), accept}, "the listener accepts (no login is tried)"},
		{"asked again and again", "shop", "(SERVICE_NAME=shop)", []string{tnsPacket(tnsResend, ""), tnsPacket(tnsResend, ""), tnsPacket(tnsResend, "")}, "!the listener asks for the same packet again and again"},
		{"sent on", "shop", "(SERVICE_NAME=shop)", []string{tnsPacket(tnsRedirect, "\x00\x05(ADD)")}, "the listener sends on to another port (no login is tried)"},
		{"an unknown service", "shop", "(SERVICE_NAME=shop)", []string{tnsRefusal("(DESCRIPTION=(ERR=12514)(ERROR_STACK=(ERROR=(CODE=12514)(EMFI=4))))")}, "!refused: TNS-12514, the listener does not know this service"},
		{"an unknown SID", ":shop", "(SID=shop)", []string{tnsRefusal("(ERR=12505)")}, "!refused: TNS-12505, the listener does not know this SID"},
		{"refusal 0 for a service", "shop", "(SERVICE_NAME=shop)", []string{tnsRefusal("(ERR=0)")}, "!refused: TNS-0"},
		{"refused without a number", "shop", "(SERVICE_NAME=shop)", []string{tnsRefusal("no")}, `!refused: "no"`},
		{"refused with fewer words than it says", "shop", "(SERVICE_NAME=shop)", []string{tnsPacket(tnsRefuse, "\x00\x00\xff\xffno")}, `!refused: "no"`},
		{"refused in half a packet", "shop", "(SERVICE_NAME=shop)", []string{tnsPacket(tnsRefuse, "\x00")}, `!refused: ""`},
		{"data before anything", "shop", "(SERVICE_NAME=shop)", []string{tnsPacket(6, "")}, "!an answer of type 6, wanted accept, redirect or refuse"},
		{"no listener", "shop", "(SERVICE_NAME=shop)", []string{"HTTP/1.1 400"}, `!not a listener's packet: "HTTP/1.1"`},
		{"a length of nothing", "shop", "(SERVICE_NAME=shop)", []string{"\x00\x07\x00\x00\x02\x00\x00\x00"}, `!not a listener's packet: "\x00\a\x00\x00\x02\x00\x00\x00"`},
		{"less than it says", "shop", "(SERVICE_NAME=shop)", []string{"\x00\xff\x00\x00\x02\x00\x00\x00"}, "!connection closed in the middle of an answer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, loopback := range []string{"127.0.0.1:0", "[::1]:0"} {
				expect(t, oracleTo(serve(t, "tcp", loopback, func(c net.Conn) {
					for _, a := range tc.answers {
						if asked := readTNSConnect(c); !strings.Contains(asked, "(CONNECT_DATA="+tc.asked+"(CID=") {
							t.Errorf("asked %q", asked)
						}
						io.WriteString(c, a)
					}
				}), tc.database), tc.want)
			}
		})
	}
}

func TestOracleChecksThatCannotBe(t *testing.T) {
	for _, database := range []string{"a)(b", "a b", "a\x00", strings.Repeat("x", 129)} {
		if _, err := NewChecker(oracleTo("127.0.0.1:1521", database)); err == nil || !strings.HasSuffix(err.Error(), "is neither the name of a service nor a colon and a SID") {
			t.Errorf("%q: %v", database, err)
		}
	}
	if _, err := NewChecker(oracleTo("127.0.0.1:0", "")); err == nil {
		t.Error("no port is accepted")
	}
}

func FuzzOracle(f *testing.F) {
	f.Add([]byte(tnsRefusal("(ERR=0)")))
	f.Add([]byte(tnsPacket(tnsAccept, "")))
	f.Add([]byte(tnsPacket(tnsRefuse, "\x00\x00\xff\xff(ERR=12514)")))
	f.Fuzz(func(t *testing.T, p []byte) {
		kind, body, err := readTNS(memoryStream(p))
		if err != nil {
			return
		}
		if detail, err := (&oracleCheck{}).judge(kind, body); (detail == "") != (err != nil) {
			t.Errorf("%q, %v", detail, err)
		}
	})
}
