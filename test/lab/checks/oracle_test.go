package checks

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

// tnsServe is as much of an Oracle listener as a check sees, by public
// descriptions of TNS. It has the service shop and the SID SHOP, sends clients
// of the service stock on to another port, and asks for the first packet twice,
// as real ones often do.
func tnsServe(c net.Conn) {
	defer c.Close()
	for asked := 1; ; asked++ {
		p := make([]byte, 58)
		if _, err := io.ReadFull(c, p); err != nil || p[4] != 1 {
			return
		}
		data := make([]byte, int(binary.BigEndian.Uint16(p))-len(p))
		if _, err := io.ReadFull(c, data); err != nil || int(binary.BigEndian.Uint16(p[24:])) != len(data) {
			return
		}
		say := func(kind byte, body []byte) {
			head := binary.BigEndian.AppendUint16(nil, uint16(8+len(body)))
			c.Write(append(append(head, 0, 0, kind, 0, 0, 0), body...))
		}
		words := func(head []byte, s string) []byte {
			return append(binary.BigEndian.AppendUint16(head, uint16(len(s))), s...)
		}
		refuse := func(number int) {
			say(4, words([]byte{34, 0}, fmt.Sprintf("(DESCRIPTION=(TMP=)(VSNNUM=318767104)(ERR=%d)(ERROR_STACK=(ERROR=(CODE=%[1]d)(EMFI=4))))", number)))
		}
		switch s := string(data); {
		case asked == 1:
			say(11, nil)
			continue
		case strings.Contains(s, "(COMMAND=ping)"):
			refuse(0)
		case strings.Contains(s, "(SERVICE_NAME=shop)"), strings.Contains(s, "(SID=SHOP)"):
			say(2, append([]byte{1, 0x36, 0, 0, 8, 0, 0x7f, 0xff, 1, 0}, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0))
		case strings.Contains(s, "(SERVICE_NAME=stock)"):
			say(5, words(nil, "(ADDRESS=(PROTOCOL=tcp)(HOST=192.0.2.1)(PORT=49152))"))
		case strings.Contains(s, "(SID="):
			refuse(12505)
		default:
			refuse(12514)
		}
		return
	}
}

func TestOracleListener(t *testing.T) {
	s, port, _ := startResponder(t, "tns")
	c := pooled(t, pool(1521, port))
	succeeds(t, c, `^the listener answers \(no login is tried\)$`)
	c.Database = ":SHOP"
	succeeds(t, c, `^the listener accepts \(no login is tried\)$`)
	c.Database = "stock"
	succeeds(t, c, `^the listener sends on to another port \(no login is tried\)$`)
	c.Database = ":CELLAR"
	fails(t, c, patience, "^refused: TNS-12505, the listener does not know this SID$")
	c = pooled(t, pool(1521, port, "database: shop"))
	story{
		server: s, check: c, six: true, up: `^the listener accepts`,
		wrong: func(c *conf.Check) { c.Database = "cellar" }, wrongly: "^refused: TNS-12514, the listener does not know this service$",
	}.tell(t)
}
