package fencing

import (
	"bytes"
	"strings"
	"testing"
)

func FuzzMetadata(f *testing.F) {
	f.Add([]byte(meta("off! on reboot status", "plug>port! port! ip>ipaddr! action!")))
	f.Add([]byte(`<parameters><parameter name="a"><content default="1"><option value="x"/></content></parameter></parameters>0`))
	f.Add([]byte(`<!DOCTYPE x [<!ENTITY a "b">]><resource-agent>&a;</resource-agent>`))
	f.Add([]byte(`<resource-agent><parameter name="a" obsoletes="b" required="1"/><parameter name="b" obsoletes="a" required="1"/></resource-agent>`))
	f.Add([]byte(`<?xml version="1.0" encoding="UTF-16"?><resource-agent/>`))
	f.Add([]byte(`<parameters><parameter name="power_timeout"><content default="1e300"/></parameter></parameters>`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseMetadata(text)
		if err != nil {
			return
		}
		if len(m.params)+len(m.actions) > maxNamed {
			t.Errorf("%d names", len(m.params)+len(m.actions))
		}
		for name := range m.params {
			if !wordOfMetadata.MatchString(name) {
				t.Errorf("a parameter called %q", name)
			}
		}
		if m.mayTake(nil, "reboot") < 0 {
			t.Error("less than no time")
		}
		m.missing(nil)
		m.names()
		m.single(nil)
	})
}

// FuzzInput: whatever a port and a value are, an agent reads them as they are
// written, or they are refused.
func FuzzInput(f *testing.F) {
	f.Add("3", "hunter2")
	f.Add("1,2", "a=b")
	f.Add("7\naction=on", "x")
	f.Add(`"q"`, "# no comment")
	f.Add("a\r", " ")
	f.Add("\u0085", "\u2028")
	m, err := parseMetadata([]byte(meta("off", "plug! passwd")))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, port, password string) {
		in, err := (&agent{}).input(m, params{values: map[string]secret{"passwd": secret(password)}}, "off", port, "b")
		if err != nil {
			return
		}
		// As the library of fence-agents reads: lines, without blanks around, cut at the first =, quotation marks off.
		read := map[string]string{}
		for line := range strings.Lines(string(in)) {
			name, v, _ := strings.Cut(strings.TrimSpace(line), "=")
			if len(v) > 1 && v[0] == '"' && v[len(v)-1] == '"' {
				v = v[1 : len(v)-1]
			}
			read[name] = v
		}
		if len(read) != 3 || read["action"] != "off" || read["plug"] != called(port, "b") || read["passwd"] != password {
			t.Errorf("port %q and password %q are read as %q", port, password, read)
		}
	})
}

func FuzzConfigNames(f *testing.F) {
	f.Add([]byte("hostname\nipaddr userid\n"))
	f.Add([]byte("a=b"))
	f.Fuzz(func(t *testing.T, text []byte) {
		names, err := configNames(text)
		for _, n := range names {
			if !wordOfMetadata.MatchString(n) {
				t.Errorf("%q, %v", n, err)
			}
		}
	})
}

// FuzzBlank: no secret is left in what a program printed, however much of it was cut off.
func FuzzBlank(f *testing.F) {
	f.Add([]byte("login hunter2 failed hunterhunter2"), "hunter2", 10)
	f.Add([]byte("aaaaaaa"), "aa", 3)
	f.Add([]byte("abcabcab"), "bca", 4)
	f.Fuzz(func(t *testing.T, text []byte, password string, size int) {
		if password == "" || strings.Contains(stars, password) || strings.Contains(password, "*") || size < 0 || size > 1<<16 {
			return
		}
		forms := disguises([]secret{secret(password)})
		end := &lastBytes{size: size + longest(forms)}
		for chunk := range bytes.SplitSeq(text, []byte("u")) {
			_, _ = end.Write(chunk)
		}
		if got := end.text(forms); bytes.Contains(got, []byte(password)) {
			t.Errorf("%q is still in %q", password, got)
		}
	})
}
