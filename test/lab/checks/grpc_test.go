package checks

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

// grpcServe is a gRPC server by net/http with the one method that a check
// calls. The services "" and "web" serve, "mail" does not, others it does not know.
func grpcServe(l net.Listener, cert tls.Certificate, secure bool) error {
	srv := &http.Server{Handler: http.HandlerFunc(health), TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}
	srv.Protocols = new(http.Protocols)
	if secure {
		srv.Protocols.SetHTTP2(true)
		return srv.ServeTLS(l, "", "")
	}
	srv.Protocols.SetUnencryptedHTTP2(true)
	return srv.Serve(l)
}

func health(w http.ResponseWriter, r *http.Request) {
	message, _ := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
	fail := func(status, why string) {
		w.Header().Set("Grpc-Status", status)
		w.Header().Set("Grpc-Message", why)
	}
	if r.URL.Path != "/grpc.health.v1.Health/Check" {
		fail("12", "unknown method")
		return
	}
	if len(message) < 5 || message[0] != 0 || int64(binary.BigEndian.Uint32(message[1:])) != int64(len(message)-5) {
		fail("13", "no message")
		return
	}
	// Field 1 in bytes, when there is one.
	status := byte(1)
	switch string(message[5:]) {
	case "", "\x0a\x03web":
	case "\x0a\x04mail":
		status = 2
	default:
		fail("5", "unknown service")
		return
	}
	w.Write([]byte{0, 0, 0, 0, 2, 8, status})
	w.Header().Set("Grpc-Status", "0")
}

func TestGRPCResponder(t *testing.T) {
	for service, keys := range map[string][]string{
		"grpc":  {"service: grpc", "request: web"},
		"grpcs": {"service: grpcs", "request: web", "tls_verify: yes", "virtualhost: localhost"},
	} {
		t.Run(service, func(t *testing.T) {
			s, port, cert := startResponder(t, service)
			if service == "grpcs" {
				keys = append(keys, "tls_ca: "+cert)
			}
			c := pooled(t, pool(50051, port, keys...))
			mail, other := c, c
			mail.Request, other.Request = "mail", "other"
			fails(t, mail, patience, "^NOT_SERVING, wanted SERVING$")
			fails(t, other, patience, `^the server does not know this service \(NOT_FOUND\): "unknown service"$`)
			story{
				server: s, six: true, check: c, up: "^SERVING$",
				wrong: func(c *conf.Check) { c.Request = "other" }, wrongly: "NOT_FOUND",
			}.tell(t)
		})
	}
	t.Run("of a server without it", func(t *testing.T) {
		s := nginx(t)
		c := negotiate("grpc", s.h2c)
		c.Request = ""
		fails(t, c, patience, "^HTTP 404, wanted the answer of a gRPC server$|^HTTP 405, wanted the answer of a gRPC server$")
		c.Target = local(s.http)
		fails(t, c, patience, "^not an HTTP/2 answer: the server speaks HTTP/1$")
	})
}
