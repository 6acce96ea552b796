package ipvs

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

func littleEndian() bool {
	n := uint16(1)
	return *(*byte)(unsafe.Pointer(&n)) == 1
}

// The bytes are what Linux wants, put together by hand from
// include/uapi/linux/ip_vs.h; the lab's kernel has the last word.
func TestEncodeBytes(t *testing.T) {
	if !littleEndian() {
		t.Log("the expected bytes are written down for a little-endian machine; the lab's kernel tests hold here")
		return
	}
	v := web()
	v.Persistent, v.Netmask = 600*1e9, 24
	svc := wantedService(v, KeyOf(v))
	v6 := wantedService(virtual("[2001:db8::1]:443"), KeyOf(virtual("[2001:db8::1]:443")))
	mark := Service{Key: Key{Protocol: conf.FWM, FWMark: 5, IPv6: true}}
	tests := []struct {
		name string
		op   Op
		want string
	}{
		{"a service with persistence", Op{Verb: AddService, Service: svc}, `
			68000000 1f00 0500 07000000 00000000 01 01 0000
			5400 0180
			0600 0100 0200 0000
			0600 0200 0600 0000
			1400 0300 0a000001 000000000000000000000000
			0600 0400 0050 0000
			0800 0600 776c6300
			0c00 0700 01000000 ffffffff
			0800 0800 58020000
			0800 0900 ffffff00`},
		{"an IPv6 service", Op{Verb: EditService, Service: v6}, `
			68000000 1f00 0500 07000000 00000000 02 01 0000
			5400 0180
			0600 0100 0a00 0000
			0600 0200 0600 0000
			1400 0300 20010db8 000000000000000000000001
			0600 0400 01bb 0000
			0800 0600 776c6300
			0c00 0700 00000000 ffffffff
			0800 0800 00000000
			0800 0900 80000000`},
		{"deleting by mark", Op{Verb: DeleteService, Service: mark}, `
			28000000 1f00 0500 07000000 00000000 03 01 0000
			1400 0180
			0600 0100 0a00 0000
			0800 0500 05000000`},
		{"a server", Op{Verb: AddDest, Service: mark, Dest: Dest{Address: ap("[2001:db8::5]:0"), Method: Gate, Weight: 3, Upper: 9, Lower: 7}}, `
			70000000 1f00 0500 07000000 00000000 05 01 0000
			1400 0180
			0600 0100 0a00 0000
			0800 0500 05000000
			4800 0280
			0600 0b00 0a00 0000
			1400 0100 20010db8 000000000000000000000005
			0600 0200 0000 0000
			0800 0300 03000000
			0800 0400 03000000
			0800 0500 09000000
			0800 0600 07000000`},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, err := encode(fakeFamily, unix.NLM_F_ACK, 7, tc.op)
			if err != nil {
				t.Fatal(err)
			}
			want := strings.Join(strings.Fields(tc.want), "")
			if d := cmp.Diff(want, hex.EncodeToString(got)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestDecodeIsTheInverse(t *testing.T) {
	for _, e := range Wanted([]conf.Virtual{web(), virtual("[2001:db8::1]:443", real("[2001:db8::5]:443", conf.IPIP, 65535))}, upIf("10.0.0.5:80", "[2001:db8::5]:443")) {
		m := &message{b: []byte{4, 1, 0, 0}}
		m.service(e.Service, true)
		s, ours, err := decodeService(m.b)
		if err != nil || !ours || s != e.Service {
			t.Errorf("%v %v\n got %+v\nwant %+v", err, ours, s, e.Service)
		}
		for _, d := range e.Dests {
			m := &message{b: []byte{8, 1, 0, 0}}
			m.dest(d, true)
			if got, _, err := decodeDest(m.b, e.Service.IPv6); err != nil || got != d {
				t.Errorf("%v\n got %+v\nwant %+v", err, got, d)
			}
		}
	}
}

func TestDecodePrefers64BitCounters(t *testing.T) {
	m := &message{b: []byte{8, 1, 0, 0}}
	m.nest(cmdAttrDest, func() {
		m.address(destAddress, ap("10.0.0.5:80").Addr())
		m.port(destPort, 80)
		m.u32(destMethod, 0x8000_0003) // with flags beside the method
		m.u32(destActive, 3)
		m.u32(destInactive, 4)
		m.nest(destStats, func() { m.u32(statsConnections, 17) })
		m.nest(destStats64, func() { m.attr(statsConnections, native.AppendUint64(nil, 1<<32+17)) })
	})
	d, c, err := decodeDest(m.b, false)
	if err != nil || d.Method != Gate || c.Active != 3 || c.Inactive != 4 || c.Total != 1<<32+17 {
		t.Errorf("%v %+v %+v", err, d, c)
	}
}

func TestDecodeSkipsWhatCannotBeOurs(t *testing.T) {
	m := &message{b: []byte{4, 1, 0, 0}}
	m.nest(cmdAttrService, func() {
		m.u16(svcAddressFamily, unix.AF_INET)
		m.u16(svcProtocol, unix.IPPROTO_DCCP)
		m.u32(svcNetmask, ^uint32(0))
	})
	if _, ours, err := decodeService(m.b); ours || err != nil {
		t.Errorf("DCCP: ours %v, %v", ours, err)
	}
}

func TestDecodeRefusesRubbish(t *testing.T) {
	build := func(fill func(m *message)) []byte {
		m := &message{b: []byte{4, 1, 0, 0}}
		m.nest(cmdAttrService, func() { fill(m) })
		return m.b
	}
	for name, b := range map[string][]byte{
		"nothing":           nil,
		"no service":        {4, 1, 0, 0},
		"attribute too big": {4, 1, 0, 0, 0xff, 0xff, 1, 0},
		"attribute of 0":    {4, 1, 0, 0, 0, 0, 1, 0},
		"half a header":     {4, 1, 0, 0, 4, 0},
		"unknown family":    build(func(m *message) { m.u16(svcAddressFamily, 99); m.u32(svcNetmask, 1) }),
		"no netmask":        build(func(m *message) { m.u16(svcAddressFamily, unix.AF_INET) }),
		"short address": build(func(m *message) {
			m.u16(svcAddressFamily, unix.AF_INET6)
			m.u16(svcProtocol, 6)
			m.u32(svcNetmask, 64)
			m.attr(svcAddress, []byte{1, 2, 3, 4})
		}),
	} {
		if _, _, err := decodeService(b); !errors.Is(err, errMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzReplies(f *testing.F) {
	m := &message{b: []byte{8, 1, 0, 0}}
	m.dest(Dest{Address: ap("10.0.0.5:80"), Method: Gate, Weight: 1}, true)
	dest := newMessage(fakeFamily, unix.NLM_F_MULTI, 1, 8, 1)
	dest.b = append(dest.b[:16], m.b...)
	f.Add(dest.bytes())
	svc, err := encode(fakeFamily, 0, 1, Op{Verb: AddService, Service: wantedService(web(), KeyOf(web()))})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(svc)
	f.Add([]byte{24, 0, 0, 0, 2, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		rs, err := replies(b)
		if err != nil && !errors.Is(err, errMalformed) {
			t.Error(err)
		}
		for _, r := range rs {
			_, _, _ = r.errno()
			_, _ = decodeFamily(r.payload)
			if d, err := decodeDaemon(r.payload); err == nil && d.State.String() == "invalid" {
				t.Errorf("a daemon that neither sends nor receives: %+v", d)
			}
			if s, ours, err := decodeService(r.payload); err == nil && ours {
				_ = Text([]Entry{{Service: s}})
				if s.Protocol != conf.FWM && !s.Address.IsValid() {
					t.Errorf("a service without address: %+v", s)
				}
			}
			for _, v6 := range []bool{false, true} {
				if d, _, err := decodeDest(r.payload, v6); err == nil && !d.Address.IsValid() {
					t.Errorf("a server without address: %+v", d)
				}
			}
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"pool":"p","services":[],"kernel":{"settings":{"sloppy_tcp":{"found":"0","set":"1"}},"daemons":[{"state":1,"interface":"eth1","id":7,"group":"224.0.0.81","port":8848,"ttl":1}]}}`))
	f.Add([]byte(`{"pool":"web.yaml","services":[{"protocol":"tcp","address":"10.0.0.1:80","cleanstop":true},{"protocol":"fwm","fwmark":5,"ipv6":true,"cleanstop":false}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(b)
		if err != nil {
			return
		}
		if r.Kernel != nil {
			for name := range r.Kernel.Settings {
				if !known(name) {
					t.Errorf("a setting that is not ours: %q", name)
				}
			}
		}
		for _, s := range r.Services {
			if k, err := s.key(); err != nil || k.option() == "" {
				t.Errorf("%+v: %v", s, err)
			}
		}
	})
}
