package checks

import (
	"fmt"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

func TestTinyproxy(t *testing.T) {
	origin := nginx(t)
	dir, port := directory(t), freePort(t)
	config := write(t, dir, "tinyproxy.conf", fmt.Sprintf(`
Port %d
Listen 127.0.0.1
Listen ::1
User nobody
Group nogroup
Timeout 60
MaxClients 50
`, port))
	c := pooled(t, pool(3128, port, fmt.Sprintf("request: http://127.0.0.1:%d/", origin.http), "receive: ^plain by HTTP/1"))
	story{
		server: startServer(t, program{args: []string{"tinyproxy", "-d", "-c", config}, port: port}),
		check:  c, six: true,
		up:      `^HTTP 200, match for "\^plain by HTTP/1"$`,
		wrong:   func(c *conf.Check) { c.Request = fmt.Sprintf("http://127.0.0.1:%d/", freePort(t)) },
		wrongly: "^HTTP 50[02], wanted 2xx$",
	}.tell(t)
}
