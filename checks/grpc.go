package checks

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keepbeat/keepbeat/conf"
)

// grpc is checktype negotiate for grpc (HTTP/2 by prior knowledge) and grpcs
// (TLS): the call Check of service grpc.health.v1.Health, which every gRPC
// library has. The request is the service that is asked about; empty means the
// server as a whole. SERVING is up.
type grpc struct {
	c    conf.Check
	tls  *tls.Config // nil: no TLS
	wire []byte
	env  *env
}

func newGRPC(c conf.Check, e *env) (Checker, error) {
	k := &grpc{c: c, env: e}
	host := c.VirtualHost
	if err := cmp.Or(needTCPPort(c), sameFamily(c), needHostName("virtualhost", host)); err != nil {
		return nil, err
	}
	switch {
	case !utf8.ValidString(c.Request):
		return nil, fmt.Errorf("request %q is not UTF-8, as the name of a gRPC service is", c.Request)
	case c.HTTPVersion != "" && c.HTTPVersion != "2":
		return nil, fmt.Errorf("http_version %q: gRPC is spoken over 2 only; leave it out", c.HTTPVersion)
	}
	if host == "" {
		host = defaultHost(c)
	}
	scheme := "http"
	var err error
	if c.Service == "grpcs" {
		scheme = "https"
		if k.tls, err = tlsConfig(c, e); err != nil {
			return nil, err
		}
		k.tls.NextProtos = []string{"h2"}
	}
	fields := []headerField{
		{":method", "POST"}, {":scheme", scheme}, {":authority", host}, {":path", "/grpc.health.v1.Health/Check"},
		{"te", "trailers"}, {"content-type", "application/grpc"}, {"user-agent", "keepbeat"},
	}
	if ms := c.Timeout.Milliseconds(); ms > 0 && c.Timeout < 24*time.Hour { // at most eight digits
		fields = append(fields, headerField{"grpc-timeout", strconv.FormatInt(ms, 10) + "m"})
	}
	k.wire, err = h2Request(fields, grpcMessage(healthRequest(c.Request)))
	return k, err
}

// healthRequest is HealthCheckRequest in protocol buffers: string service = 1.
func healthRequest(service string) []byte {
	if service == "" {
		return nil
	}
	b := binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(service)))
	return append(b, service...)
}

// grpcMessage puts a message into gRPC's frame: uncompressed, length.
func grpcMessage(m []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m))), m...)
}

func (k *grpc) Check(ctx context.Context) (string, error) {
	conn, err := dialCheck(ctx, k.c)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	var rw io.ReadWriter = conn
	if k.tls != nil {
		t, err := handshake(conn, k.tls)
		if err != nil {
			return "", err
		}
		if err := choseHTTP2(t); err != nil {
			return "", err
		}
		rw = t
	}
	if _, err := rw.Write(k.wire); err != nil {
		return "", err
	}
	storage := k.env.buffers.Get().(*[bufSize]byte)
	defer k.env.buffers.Put(storage)
	status, err := grpcAnswer(rw, storage[:])
	if err != nil {
		return "", conn.answerError(err)
	}
	if status != serving {
		return "", fmt.Errorf("%v, wanted %v", status, serving)
	}
	return status.String(), nil
}

// maxGRPC bounds an answer, which is two bytes in its frame of five.
const maxGRPC = 4 << 10

// grpcAnswer reads the answer of Health/Check: gRPC over HTTP2, "Responses".
func grpcAnswer(rw io.ReadWriter, storage []byte) (healthStatus, error) {
	var kind, code, message string
	x := newH2Reader(rw, storage, func(name, value string) {
		switch name {
		case "content-type":
			kind = value
		case "grpc-status":
			code = value
		case "grpc-message":
			message = value
		}
	})
	ans, err := x.readHead(false)
	switch {
	case err != nil:
		return 0, err
	case ans.code != 200:
		return 0, fmt.Errorf("HTTP %d, wanted the answer of a gRPC server", ans.code)
	case !strings.HasPrefix(kind, "application/grpc"):
		return 0, fmt.Errorf("content-type %s, wanted application/grpc", quote([]byte(kind)))
	}
	var body []byte
	for {
		p, err := x.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, err
		}
		if body = append(body, p...); len(body) > maxGRPC {
			return 0, fmt.Errorf("gRPC: answer of more than %d bytes", maxGRPC)
		}
	}
	if code != "0" {
		return 0, grpcFailure(code, message)
	}
	if len(body) < 5 || int64(binary.BigEndian.Uint32(body[1:])) != int64(len(body)-5) {
		return 0, fmt.Errorf("gRPC: %s is not one message", quote(body))
	}
	if body[0] != 0 {
		return 0, errors.New("gRPC: a compressed answer, which was not asked for")
	}
	return parseHealth(body[5:])
}

// grpcFailure is a call that failed.
func grpcFailure(code, message string) error {
	says := ""
	if message != "" {
		says = ": " + quote([]byte(message))
	}
	switch code {
	case "":
		return errors.New("gRPC: an answer without grpc-status")
	case "5": // NOT_FOUND
		return fmt.Errorf("the server does not know this service (NOT_FOUND)%s", says)
	case "12": // UNIMPLEMENTED
		return fmt.Errorf("the server has no grpc.health.v1.Health (UNIMPLEMENTED)%s", says)
	}
	name := "grpc-status " + quote([]byte(code))
	if n, err := strconv.Atoi(code); err == nil && n > 0 && n < len(grpcCodes) {
		name = grpcCodes[n]
	}
	return fmt.Errorf("gRPC: %s%s", name, says)
}

// grpcCodes: gRPC, "Status codes and their use".
var grpcCodes = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED",
	"FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

// healthStatus is HealthCheckResponse.ServingStatus.
type healthStatus uint64

const serving healthStatus = 1

func (s healthStatus) String() string {
	switch s {
	case 0:
		return "UNKNOWN"
	case serving:
		return "SERVING"
	case 2:
		return "NOT_SERVING"
	case 3:
		return "SERVICE_UNKNOWN"
	}
	return fmt.Sprintf("serving status %d", uint64(s))
}

var errNoHealth = errors.New("gRPC: the answer is no HealthCheckResponse")

// parseHealth reads HealthCheckResponse in protocol buffers: enum status = 1.
// A field that is missing has its default, 0; the last one counts; unknown
// fields are passed over.
func parseHealth(b []byte) (status healthStatus, err error) {
	for len(b) > 0 {
		key, n := binary.Uvarint(b)
		if n <= 0 || key>>3 == 0 {
			return 0, errNoHealth
		}
		b = b[n:]
		var length uint64
		switch key & 7 {
		case 0: // varint
			v, n := binary.Uvarint(b)
			if n <= 0 {
				return 0, errNoHealth
			}
			if length = uint64(n); key>>3 == 1 {
				status = healthStatus(v)
			}
		case 1: // 64 bits
			length = 8
		case 2: // bytes
			v, n := binary.Uvarint(b)
			if n <= 0 || v > uint64(len(b)) {
				return 0, errNoHealth
			}
			length = v + uint64(n)
		case 5: // 32 bits
			length = 4
		default:
			return 0, errNoHealth
		}
		if length > uint64(len(b)) {
			return 0, errNoHealth
		}
		b = b[length:]
	}
	return status, nil
}
