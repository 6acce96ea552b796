package checks

import (
	"fmt"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

// startFreeRADIUS starts FreeRADIUS with the user "probe".
func startFreeRADIUS(t *testing.T) (*server, uint16) {
	dir, port := directory(t), freePort(t)
	write(t, dir, "dictionary", "$INCLUDE /usr/share/freeradius/dictionary\n")
	users := write(t, dir, "users", "probe Cleartext-Password := \"a probe-password of more than 16 bytes\"\n\tReply-Message := \"welcome\"\n\n"+
		"token Auth-Type := Reject\n\tReply-Message := \"not you\"\n\n"+
		"signed Cleartext-Password := \"signed-password\"\n\tMessage-Authenticator := 0x00\n") // has the server put it in
	write(t, dir, "radiusd.conf", fmt.Sprintf(`
prefix = /usr
name = radiusd
logdir = %[1]s
run_dir = %[1]s
db_dir = %[1]s
raddbdir = %[1]s
libdir = /usr/lib/freeradius
pidfile = %[1]s/pid
log { destination = stdout }
security { reject_delay = 0 }
thread pool {
	start_servers = 1
	max_servers = 4
	min_spare_servers = 1
	max_spare_servers = 2
}
client four {
	ipaddr = 127.0.0.1
	secret = lab-secret
}
client six {
	ipv6addr = ::1
	secret = lab-secret
}
modules {
	files {
		usersfile = %[2]s
	}
	pap {
	}
}
server default {
	listen {
		type = auth
		ipaddr = 127.0.0.1
		port = %[3]d
	}
	listen {
		type = auth
		ipv6addr = ::1
		port = %[3]d
	}
	authorize {
		files
		pap
	}
	authenticate {
		Auth-Type PAP {
			pap
		}
	}
}
`, dir, users, port))
	c := radiusAt(t, port)
	return startServer(t, program{args: []string{"freeradius", "-f", "-d", dir}, ready: func() error { _, err := run(t, c, shortly); return err }}), port
}

func radiusAt(t *testing.T, port uint16) conf.Check {
	t.Helper()
	return pooled(t, pool(1812, port, "protocol: udp", "login: probe", "passwd: a probe-password of more than 16 bytes", "secret: lab-secret"))
}

func TestFreeRADIUS(t *testing.T) {
	s, port := startFreeRADIUS(t)
	t.Run("situations", func(t *testing.T) {
		c := radiusAt(t, port)
		c.Login = "token"
		fails(t, c, patience, `^Access-Reject: "not you"$`)
		// Debian 12's version still answers without, unless it is told to.
		c.Login, c.Passwd = "signed", "signed-password"
		succeeds(t, c, "^Access-Accept$")
		c = radiusAt(t, port)
		c.Secret = "another secret"
		// FreeRADIUS does not answer what is signed with another secret.
		fails(t, c, shortly, "no answer within")
	})
	story{
		server: s, network: "udp", check: radiusAt(t, port), six: true, up: "^Access-Accept",
		wrong: func(c *conf.Check) { c.Passwd = "another password" }, wrongly: "^Access-Reject",
	}.tell(t)
}
