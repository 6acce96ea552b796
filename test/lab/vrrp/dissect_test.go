package vrrp

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// dissected is a packet of VRRP, ARP or ICMPv6 as tshark sees it.
type dissected struct {
	number, protocol, mac, ip, vrid, priority string
	status                                    string // of the checksum: 1 good, 0 bad
	complaints                                string
}

// tshark dissects a capture. With plain, checksums of version 3 over IPv4 are without the pseudo-header.
func tshark(t testing.TB, path string, plain bool) (all []dissected) {
	t.Helper()
	args := []string{"-r", path, "-n", "-T", "fields", "-E", "separator=/t",
		"-o", "arp.detect_duplicate_ips:FALSE", // the addresses move
		"-o", "ip.check_checksum:TRUE", "-o", fmt.Sprintf("vrrp.v3_checksum_as_in_v2:%v", plain)}
	for _, f := range []string{"frame.number", "_ws.col.Protocol", "eth.src", "ip.src", "vrrp.virt_rtr_id", "vrrp.prio",
		"vrrp.checksum.status", "ip.checksum.status", "icmpv6.checksum.status", "_ws.malformed", "_ws.expert.message"} {
		args = append(args, "-e", f)
	}
	var said strings.Builder
	cmd := exec.Command("/usr/bin/tshark", args...)
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark (test/lab/deps.sh vrrp installs it): %v: %s", err, said.String())
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if len(f) != 11 {
			t.Fatalf("tshark: %d fields: %q", len(f), line)
		}
		d := dissected{number: f[0], protocol: f[1], mac: f[2], ip: f[3], vrid: f[4], priority: f[5], status: f[6], complaints: f[10]}
		const bad = "0"
		if f[7] == bad {
			d.complaints += " (IP checksum)"
		}
		if f[8] == bad {
			d.complaints += " (ICMPv6 checksum)"
		}
		if f[9] != "" {
			d.complaints += " (malformed)"
		}
		all = append(all, d)
	}
	return all
}

// dissect has tshark look at everything that the scene's keepbeat sent, and
// returns how many of its advertisements had priority 0.
func dissect(s *scene) (zero int) {
	s.t.Helper()
	ours := map[string]bool{} // MAC addresses, and for what has a virtual one the sources
	for r, p := range s.cast {
		if p == keepbeat {
			ours[s.port(r, false).MAC.String()], ours[fmt.Sprintf("%s%d", lans[false].four, r+1)] = true, true
		}
	}
	path := s.keep(false)
	kinds := map[string]int{}
	isPlain := func(d dissected) bool {
		return slices.ContainsFunc(s.all, func(i instance) bool {
			from0 := d.mac == s.port(0, false).MAC.String()
			return fmt.Sprint(i.vrid) == d.vrid && (from0 && i.plain[0] || !from0 && i.plain[1])
		})
	}
	for _, form := range []bool{false, true} {
		if form && !slices.ContainsFunc(s.all, func(i instance) bool { return i.plain != [2]bool{} }) {
			continue
		}
		for _, d := range tshark(s.t, path, form) {
			vrrp := strings.HasPrefix(d.protocol, "VRRP")
			if !ours[d.mac] && !ours[d.ip] || (vrrp && isPlain(d)) != form {
				continue
			}
			kinds[d.protocol]++
			if d.priority == "0" {
				zero++
			}
			if vrrp && d.status != "1" || d.complaints != "" {
				s.t.Errorf("packet %s, %s from %s: checksum status %q, %s", d.number, d.protocol, d.mac, d.status, d.complaints)
			}
		}
	}
	if !slices.Contains(s.cast[:], keepbeat) {
		return 0
	}
	s.Logf("tshark finds valid: %v, of them %d of priority 0", kinds, zero)
	six := slices.ContainsFunc(s.all, func(i instance) bool { return i.six })
	for _, kind := range []string{"VRRP", "ARP", "ICMPv6"} {
		if kinds[kind] == 0 && (six || kind != "ICMPv6") {
			s.t.Errorf("there is no %s among what was looked at: %v", kind, kinds)
		}
	}
	return zero
}

// The eyes are good ones: tshark sees the byte that is wrong.
func TestTsharkTellsAWrongChecksum(t *testing.T) {
	frame4 := func(message string) frame {
		header := "\x01\x00\x5e\x00\x00\x12\x02\x6b\x62\x00\x01\x01\x08\x00" +
			"\x45\xc0\x00\x20\x00\x01\x00\x00\xff\x70\xd0\x85\x0a\x14\x00\x01\xe0\x00\x00\x12"
		return frame{time.Unix(1, 0), []byte(header + message)}
	}
	for _, tt := range []struct {
		name, message string
		plain         bool
		status        string
	}{
		{"right, without pseudo-header", "\x31\x33\x64\x01\x00\x64\x60\x20\x0a\x14\x00\x33", true, "1"},
		{"right, and looked at otherwise", "\x31\x33\x64\x01\x00\x64\x60\x20\x0a\x14\x00\x33", false, "0"},
		{"one byte changed", "\x31\x33\x65\x01\x00\x64\x60\x20\x0a\x14\x00\x33", true, "0"},
	} {
		path := filepath.Join(t.TempDir(), "one.pcap")
		save(t, path, []frame{frame4(tt.message)})
		d := tshark(t, path, tt.plain)
		if len(d) != 1 || d[0].status != tt.status || d[0].vrid != "51" {
			t.Errorf("%s: %+v, want status %s", tt.name, d, tt.status)
		}
	}
}
