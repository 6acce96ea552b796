package transport

import (
	"errors"
	"fmt"
	"io"
)

// streamVersion is the version of what opens a stream. It changes only when
// two daemons could no longer understand each other.
const streamVersion = 1

// maxExtra bounds what a later version may add to the header; this one skips it.
const maxExtra = 255

// String names a kind as logs and errors do.
func (k Kind) String() string {
	switch k {
	case KindRaft:
		return "raft"
	case KindGossip:
		return "gossip"
	case KindCall:
		return "call"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

func (k Kind) valid() bool { return k >= KindRaft && k <= KindCall }

// A stream begins with the opener's header: version, kind, length of extra
// bytes, extra bytes. The acceptor answers with status and a text for people.
type status uint8

const (
	statusOK status = iota
	statusVersion
	statusKind
	statusBusy
)

// header is what the opener of a stream says first.
type header struct {
	version uint8
	kind    Kind
}

func appendHeader(b []byte, h header) []byte {
	return append(b, h.version, byte(h.kind), 0)
}

// readHeader reads exactly the header and nothing behind it.
func readHeader(r io.Reader) (header, error) {
	var b [3]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return header{}, fmt.Errorf("stream header: %w", err)
	}
	if n := int(b[2]); n > 0 {
		var extra [maxExtra]byte
		if _, err := io.ReadFull(r, extra[:n]); err != nil {
			return header{}, fmt.Errorf("stream header: %w", err)
		}
	}
	return header{version: b[0], kind: Kind(b[1])}, nil
}

// check says why a stream cannot be served, or statusOK.
func (h header) check() (status, string) {
	if h.version != streamVersion {
		return statusVersion, fmt.Sprintf("it speaks stream protocol %d, you speak %d: upgrade the older node", streamVersion, h.version)
	}
	if !h.kind.valid() {
		return statusKind, fmt.Sprintf("it knows no streams of %v", h.kind)
	}
	return statusOK, ""
}

func appendReply(b []byte, s status, text string) []byte {
	if len(text) > 255 {
		text = text[:255]
	}
	b = append(b, byte(s), byte(len(text)))
	return append(b, text...)
}

// errRefused is wrapped by every error of a stream that the peer would not serve.
var errRefused = errors.New("refused the stream")

func readReply(r io.Reader) error {
	var b [2]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return err
	}
	text := make([]byte, b[1])
	if _, err := io.ReadFull(r, text); err != nil {
		return err
	}
	if status(b[0]) == statusOK {
		return nil
	}
	return fmt.Errorf("%w: %q", errRefused, text)
}
