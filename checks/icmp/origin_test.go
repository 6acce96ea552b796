package icmp

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestPingFrom(t *testing.T) {
	p := NewPinger()
	defer p.Close()
	a := netip.MustParseAddr
	for _, tc := range []struct {
		name string
		o    Origin
		to   string
		want string // beginning of the error
	}{
		{"an address", Origin{Source: a("127.0.0.3")}, "127.0.0.1", ""},
		{"an address of IPv6", Origin{Source: a("::1")}, "::1", ""},
		{"an interface", Origin{Interface: "lo"}, "127.0.0.1", ""},
		{"an interface by IPv6", Origin{Interface: "lo"}, "::1", ""},
		{"a mark", Origin{Mark: 7}, "127.0.0.1", ""},
		{"everything", Origin{Source: a("127.0.0.3"), Interface: "lo", Mark: 1<<32 - 1}, "127.0.0.1", ""},
		{"everything by IPv6", Origin{Source: a("::1"), Interface: "lo", Mark: 7}, "::1", ""},
		{"an address of elsewhere", Origin{Source: a("192.0.2.1")}, "127.0.0.1", "ping 127.0.0.1: source 192.0.2.1: not an address of this node: "},
		{"an address of elsewhere by IPv6", Origin{Source: a("2001:db8::1")}, "::1", "ping ::1: source 2001:db8::1: not an address of this node: "},
		{"an address of the other version", Origin{Source: a("::1")}, "127.0.0.1", "source ::1: of the other IP version"},
		{"no such interface", Origin{Interface: "nosuchif0"}, "127.0.0.1", "interface nosuchif0: no such device"},
		{"no name of an interface", Origin{Interface: strings.Repeat("x", 99)}, "127.0.0.1", "interface xxx"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := p.PingFrom(ctx, tc.o, a(tc.to), time.Second)
			var origin OriginError
			switch {
			case tc.want == "" && err != nil:
				t.Error(err)
			case tc.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.want) || !errors.As(err, &origin)):
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
		})
	}
}

// A reply says nothing of its request's mark; that a packet has it is seen in test/lab/checks.
func TestTheMarkIsAControlMessage(t *testing.T) {
	s := &icmpSocket{}
	b, err := s.control(Origin{Mark: 0xabc})
	if err != nil {
		t.Fatal(err)
	}
	m, err := unix.ParseSocketControlMessage(b)
	if err != nil || len(m) != 1 || m[0].Header.Level != unix.SOL_SOCKET || m[0].Header.Type != unix.SO_MARK {
		t.Fatalf("%+v %v", m, err)
	}
	if len(m[0].Data) < 4 || binary.NativeEndian.Uint32(m[0].Data) != 0xabc {
		t.Errorf("mark % x", m[0].Data)
	}
}
