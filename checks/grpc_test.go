package checks

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

func grpcAt(addr string) conf.Check {
	c := httpAt(addr)
	c.Service, c.Request, c.HTTPMethod = "grpc", "", ""
	return c
}

func TestGRPCAnswers(t *testing.T) {
	head := settings().head(0, ":status", "200", "content-type", "application/grpc+proto")
	says := func(m string) frames {
		return head.data(0, string(grpcMessage([]byte(m)))).head(h2EndStream, "grpc-status", "0")
	}
	failed := func(pairs ...string) frames {
		return settings().head(h2EndStream, append([]string{":status", "200", "content-type", "application/grpc"}, pairs...)...)
	}
	for _, tc := range []struct {
		name string
		s    frames
		want string
	}{
		{"serving", says("\x08\x01"), "SERVING"},
		{"fields that are not known", says("\x12\x03abc\x1d1234\x211234567\x38\x08\x01\x28\xff\x01"), "SERVING"},
		{"the last one counts", says("\x08\x02\x08\x01"), "SERVING"},
		{"not serving", says("\x08\x02"), "!NOT_SERVING, wanted SERVING"},
		{"unknown", says(""), "!UNKNOWN, wanted SERVING"},
		{"service unknown", says("\x08\x03"), "!SERVICE_UNKNOWN, wanted SERVING"},
		{"a status to come", says("\x08\x90\x4e"), "!serving status 10000, wanted SERVING"},
		{"no protocol buffers", says("\x08"), "!gRPC: the answer is no HealthCheckResponse"},
		{"bytes that are not there", says("\x12\x7fx"), "!gRPC: the answer is no HealthCheckResponse"},
		{"a huge length", says("\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "!gRPC: the answer is no HealthCheckResponse"},
		{"a group", says("\x0b"), "!gRPC: the answer is no HealthCheckResponse"},
		{"compressed", head.data(0, "\x01\x00\x00\x00\x01x").head(h2EndStream, "grpc-status", "0"), "!gRPC: a compressed answer, which was not asked for"},
		{"a length that lies", head.data(0, "\x00\x00\x00\x00\x07\x08\x01").head(h2EndStream, "grpc-status", "0"), `!gRPC: "\x00\x00\x00\x00\a\b\x01" is not one message`},
		{"no message", head.head(h2EndStream, "grpc-status", "0"), `!gRPC: "" is not one message`},
		{"an endless answer", head.data(0, strings.Repeat("x", 5000)), "!gRPC: answer of more than 4096 bytes"},
		{"no status", head.data(h2EndStream, string(grpcMessage([]byte("\x08\x01")))), "!gRPC: an answer without grpc-status"},
		{"no such service", failed("grpc-status", "5", "grpc-message", "unknown service"), `!the server does not know this service (NOT_FOUND): "unknown service"`},
		{"no health", failed("grpc-status", "12"), "!the server has no grpc.health.v1.Health (UNIMPLEMENTED)"},
		{"another failure", failed("grpc-status", "14", "grpc-message", "\x1b[2J"), `!gRPC: UNAVAILABLE: "\x1b[2J"`},
		{"rubbish for a status", failed("grpc-status", "99\xff"), `!gRPC: grpc-status "99\xff"`},
		{"a web server", settings().head(h2EndStream, ":status", "404"), "!HTTP 404, wanted the answer of a gRPC server"},
		{"a page", settings().head(h2EndStream, ":status", "200", "content-type", "text/html"), `!content-type "text/html", wanted application/grpc`},
		{"reset", settings().frame(h2Reset, 0, 1, bytes4(2)), "!HTTP/2: the server reset the stream: INTERNAL_ERROR"},
		{"closes at once", nil, "!connection closed without an answer"},
	} {
		t.Run(tc.name, func(t *testing.T) { expect(t, grpcAt(plays(t, tc.s)), tc.want) })
	}
}

// health is a gRPC server by hand that knows the services "" and "web".
var health = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
	bad := ""
	switch {
	case r.Method != "POST" || r.URL.Path != "/grpc.health.v1.Health/Check" || r.ProtoMajor != 2:
		bad = "12"
	case r.Header.Get("Content-Type") != "application/grpc" || r.Header.Get("TE") != "trailers" || r.Header.Get("Grpc-Timeout") != "60000m":
		bad = "3"
	case len(body) < 5 || body[0] != 0 || int(binary.BigEndian.Uint32(body[1:])) != len(body)-5:
		bad = "13"
	case string(body[5:]) != "" && string(body[5:]) != "\x0a\x03web":
		bad = "5"
	}
	if bad != "" {
		w.Header().Set("Grpc-Status", bad)
		w.Header().Set("Grpc-Message", fmt.Sprintf("%q", body))
		return
	}
	w.Write(grpcMessage([]byte{8, 1}))
	w.Header().Set("Grpc-Status", "0")
})

func TestGRPCAsksForAService(t *testing.T) {
	for _, service := range []string{"grpc", "grpcs"} {
		c := grpcAt(http2Server(t, service == "grpcs", health))
		c.Service = service
		expect(t, c, "SERVING")
		c.Request = "web"
		expect(t, c, "SERVING")
		c.Request = "mail"
		expect(t, c, `!the server does not know this service (NOT_FOUND): "\"\\x00\\x00\\x00\\x00\\x06\\n\\x04mail\""`)
	}
}

func TestGRPCSilenceEndsAtTheDeadline(t *testing.T) {
	for _, service := range []string{"grpc", "grpcs"} {
		c := grpcAt(blackhole(t))
		c.Service = service
		expectSilence(t, c, "!connect "+c.Target.String()+": no answer within TIME")
	}
}
