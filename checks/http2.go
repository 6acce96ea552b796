package checks

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"

	"golang.org/x/net/http2/hpack"
)

// Frame types and flags of HTTP/2: RFC 9113, 6.
const (
	h2Data         = 0
	h2Headers      = 1
	h2Reset        = 3
	h2Settings     = 4
	h2PushPromise  = 5
	h2Ping         = 6
	h2GoAway       = 7
	h2WindowUpdate = 8
	h2Continuation = 9

	h2EndStream  = 0x1 // DATA, HEADERS
	h2Ack        = 0x1 // SETTINGS, PING
	h2EndHeaders = 0x4
	h2Padded     = 0x8
	h2Priority   = 0x20
)

const (
	h2FrameHead = 9
	// h2MaxFrame is SETTINGS_MAX_FRAME_SIZE of both sides, which stay with the
	// initial value.
	h2MaxFrame = 16 << 10
	// h2Window is the initial window of a server (RFC 9113, 6.9.2): the request
	// goes out at once, before anything has been heard of it.
	h2Window = 64<<10 - 1
	// h2Stream is the only stream of a check's connection.
	h2Stream = 1
)

// h2Preface opens a connection: RFC 9113, 3.4. The window of more than
// anything that is read saves updates.
var h2Preface = func() []byte {
	b := []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	var settings []byte
	for _, s := range []struct {
		id    uint16
		value uint32
	}{
		{2, 0},           // ENABLE_PUSH
		{4, 2 * maxBody}, // INITIAL_WINDOW_SIZE
		{6, maxHead},     // MAX_HEADER_LIST_SIZE
	} {
		settings = binary.BigEndian.AppendUint16(settings, s.id)
		settings = binary.BigEndian.AppendUint32(settings, s.value)
	}
	b = h2Frame(b, h2Settings, 0, 0, settings)
	return h2Frame(b, h2WindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, 2*maxBody-h2Window))
}()

// h2Frame appends a frame.
func h2Frame(b []byte, kind, flags byte, stream uint32, payload []byte) []byte {
	b = append(b, byte(len(payload)>>16), byte(len(payload)>>8), byte(len(payload)), kind, flags)
	b = binary.BigEndian.AppendUint32(b, stream)
	return append(b, payload...)
}

// h2Request makes all that a check sends by itself: preface, header and body.
// It does not wait for the server's settings, so it stays within what each
// server has to take.
func h2Request(fields []headerField, body []byte) ([]byte, error) {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range fields {
		// RFC 9113, 8.2: names are in lower case.
		f := hpack.HeaderField{Name: string(bytes.ToLower([]byte(f.name))), Value: f.value}
		if err := enc.WriteField(f); err != nil {
			return nil, err
		}
	}
	switch {
	case block.Len() > h2MaxFrame:
		return nil, fmt.Errorf("request and headers take %d bytes, more than the %d of one HTTP/2 frame", block.Len(), h2MaxFrame)
	case len(body) > h2Window:
		return nil, fmt.Errorf("the body has %d bytes, more than the %d that HTTP/2 sends unasked", len(body), h2Window)
	}
	flags := byte(h2EndHeaders)
	if len(body) == 0 {
		flags |= h2EndStream
	}
	b := h2Frame(bytes.Clone(h2Preface), h2Headers, flags, h2Stream, block.Bytes())
	for len(body) > 0 {
		n, end := min(len(body), h2MaxFrame), byte(0)
		if n == len(body) {
			end = h2EndStream
		}
		b = h2Frame(b, h2Data, end, h2Stream, body[:n])
		body = body[n:]
	}
	return b, nil
}

// choseHTTP2 says whether the server took the ALPN protocol that was offered.
func choseHTTP2(t *tls.Conn) error {
	if p := t.ConnectionState().NegotiatedProtocol; p != "h2" {
		return fmt.Errorf("the server did not choose HTTP/2 (ALPN offered h2, it answered %q)", p)
	}
	return nil
}

// h2Error is a code of RST_STREAM or GOAWAY: RFC 9113, 7.
type h2Error uint32

var h2Errors = [...]string{
	"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED", "FRAME_SIZE_ERROR",
	"REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
}

func (e h2Error) String() string {
	if int(e) < len(h2Errors) {
		return h2Errors[e]
	}
	return fmt.Sprintf("code %#x", uint32(e))
}
