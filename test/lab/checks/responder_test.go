package checks

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

// responderEnv has the test binary be a server that Debian does not have, or
// none that is small: news, SIP, gRPC and an Oracle listener. Its arguments are in the other two.
const (
	responderEnv     = "KEEPBEAT_CHECKS_RESPONDER" // nntp, sip, grpc, grpcs, tns
	responderPortEnv = "KEEPBEAT_CHECKS_PORT"
	responderDirEnv  = "KEEPBEAT_CHECKS_DIR" // with server.crt and server.key
)

func TestMain(m *testing.M) {
	if kind := os.Getenv(responderEnv); kind != "" {
		if err := respond(kind); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if err := removeAbandoned(); err != nil {
		fmt.Fprintln(os.Stderr, "what an earlier test left:", err)
	}
	os.Exit(m.Run())
}

func startResponder(t *testing.T, kind string) (s *server, port uint16, cert string) {
	t.Helper()
	dir := directory(t)
	cert, _ = certificate(t, dir)
	port = freePort(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s = startServer(t, program{
		args: []string{self}, port: port,
		env: []string{responderEnv + "=" + kind, responderPortEnv + "=" + strconv.Itoa(int(port)), responderDirEnv + "=" + dir},
	})
	return s, port, cert
}

// respond serves on both loopback addresses; it returns only with an error.
func respond(kind string) error {
	port, err := strconv.ParseUint(os.Getenv(responderPortEnv), 10, 16)
	if err != nil {
		return err
	}
	dir := os.Getenv(responderDirEnv)
	cert, err := tls.LoadX509KeyPair(dir+"/server.crt", dir+"/server.key")
	if err != nil {
		return err
	}
	serve := func(c net.Conn) { nntpServe(c, cert) }
	if kind == "tns" {
		serve = tnsServe
	}
	ended := make(chan error)
	// The TCP port of 127.0.0.1 is the last to be opened, since it is what says "ready".
	for _, a := range []netip.Addr{loopback6, loopback4} {
		at := netip.AddrPortFrom(a, uint16(port))
		if kind == "sip" {
			serve = sipServe
			pc, err := net.ListenPacket("udp", at.String())
			if err != nil {
				return err
			}
			go func() { ended <- sipServeUDP(pc) }()
		}
		l, err := net.Listen("tcp", at.String())
		if err != nil {
			return err
		}
		if strings.HasPrefix(kind, "grpc") {
			go func() { ended <- grpcServe(l, cert, kind == "grpcs") }()
			continue
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					ended <- err
					return
				}
				go serve(c)
			}
		}()
	}
	return <-ended
}

// nntpServe is as much of a news server (RFC 3977, 4642, 4643) as a check
// sees. It knows alice, whose password is wonderland.
func nntpServe(c net.Conn, cert tls.Certificate) {
	defer c.Close()
	fmt.Fprint(c, "200 news.example.com ready, posting allowed\r\n")
	r := bufio.NewReader(c)
	user := ""
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		command, argument, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		what, value, _ := strings.Cut(argument, " ")
		switch strings.ToUpper(command + " " + what) {
		case "QUIT ":
			fmt.Fprint(c, "205 bye\r\n")
			return
		case "STARTTLS ":
			fmt.Fprint(c, "382 go on\r\n")
			t := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
			c, r = t, bufio.NewReader(t)
		case "AUTHINFO USER":
			user = value
			fmt.Fprint(c, "381 and the password\r\n")
		case "AUTHINFO PASS":
			if user == "alice" && value == "wonderland" {
				fmt.Fprint(c, "281 welcome\r\n")
			} else {
				fmt.Fprint(c, "481 no\r\n")
			}
		default:
			fmt.Fprint(c, "500 what?\r\n")
		}
	}
}

// sipServe answers one OPTIONS after the other on a connection.
func sipServe(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		var request strings.Builder
		for !strings.HasSuffix(request.String(), "\r\n\r\n") {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			request.WriteString(line)
		}
		fmt.Fprint(c, sipAnswer(request.String()))
	}
}

func sipServeUDP(pc net.PacketConn) error {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return err
		}
		if _, err := pc.WriteTo([]byte(sipAnswer(string(buf[:n]))), from); err != nil {
			return err
		}
	}
}

// sipAnswer is what a user agent says to OPTIONS (RFC 3261, 11.2): 404 for users it does not know.
func sipAnswer(request string) string {
	first, rest, _ := strings.Cut(request, "\r\n")
	status := "200 OK"
	if !strings.HasPrefix(first, "OPTIONS ") {
		status = "405 Method Not Allowed"
	} else if strings.HasPrefix(first, "OPTIONS sip:nobody@") {
		status = "404 Not Found"
	}
	answer := "SIP/2.0 " + status + "\r\n"
	for line := range strings.SplitSeq(rest, "\r\n") {
		switch name, _, _ := strings.Cut(line, ":"); name {
		case "Via", "From", "Call-ID", "CSeq":
			answer += line + "\r\n"
		case "To":
			answer += line + ";tag=lab\r\n"
		}
	}
	return answer + "Allow: OPTIONS\r\nContent-Length: 0\r\n\r\n"
}

func TestNewsResponder(t *testing.T) {
	t.Run("nntp", func(t *testing.T) {
		s, port, _ := startResponder(t, "nntp")
		story{
			server: s, six: true, check: pooled(t, pool(119, port)),
			up:    `^200 news.example.com ready, posting allowed$`,
			wrong: receive("INN"), wrongly: `^greeting: "200 news.example.com ready, posting allowed", no match for "INN"$`,
		}.tell(t)
	})
	t.Run("nntp with login and STARTTLS", func(t *testing.T) {
		s, port, cert := startResponder(t, "nntp")
		story{
			server: s, six: true,
			check: pooled(t, pool(119, port, "login: alice", "passwd: wonderland", "starttls: yes", "tls_verify: yes", "tls_ca: "+cert)),
			up:    `^logged in$`,
			wrong: func(c *conf.Check) { c.Passwd = "not hers" }, wrongly: `^AUTHINFO PASS: "481 no", wanted 281$`,
		}.tell(t)
	})
}

func TestSIPResponder(t *testing.T) {
	for _, protocol := range []string{"udp", "tcp"} {
		t.Run("sip by "+protocol, func(t *testing.T) {
			s, port, _ := startResponder(t, "sip")
			story{
				server: s, network: protocol, six: true,
				check: pooled(t, pool(5060, port, "protocol: "+protocol, "login: ping@example.com")),
				up:    `^SIP/2\.0 200 OK$`,
				wrong: func(c *conf.Check) { c.Request = "sip:nobody@example.com" }, wrongly: `^"SIP/2\.0 404 Not Found", wanted 200$`,
			}.tell(t)
		})
	}
}
