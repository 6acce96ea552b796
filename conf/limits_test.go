package conf

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bigPool has virtuals services and about reals servers in all.
func bigPool(virtuals, reals int) []byte {
	var b bytes.Buffer
	b.WriteString("checkinterval: 1s\nchecktimeout: 3s\nvirtual:\n")
	each := reals / virtuals
	extra := reals - each*virtuals
	for i := range virtuals {
		fmt.Fprintf(&b, "  - address: 10.%d.%d.1:80\n    scheduler: wlc\n    service: http\n    request: /health\n    receive: ok\n    virtualhost: www%d.example.org\n    real:\n", 100+i/250, i%250, i)
		n := each
		if i < extra {
			n++
		}
		for j := range n {
			fmt.Fprintf(&b, "      - 10.%d.%d.%d:80 gate %d\n", i/250, i%250, j+1, j%10+1)
		}
	}
	return b.Bytes()
}

// Budget (DESIGN, section 5): 2,000 virtual services with 37,000 real servers in 1 s.
func BenchmarkValidate(b *testing.B) {
	pool := bigPool(2000, 37000)
	files := Files{
		Haresources: []byte("groups: {web: {resources: [{vip: 192.0.2.1/24/eth0}, {ldirectord: p.yaml}]}}"),
		Pools:       map[string][]byte{"p.yaml": pool},
	}
	for b.Loop() {
		spec, _, err := ParseSpec(files, nil)
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for _, v := range spec.Pools["p.yaml"].Virtuals {
			n += len(v.Reals)
		}
		if n != 37000 {
			b.Fatalf("%d real servers", n)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/file")
}

func BenchmarkCanonical(b *testing.B) {
	files := Files{
		Haresources: []byte("groups: {web: {resources: [{vip: 192.0.2.1/24/eth0}, {ldirectord: p.yaml}]}}"),
		Pools:       map[string][]byte{"p.yaml": bigPool(2000, 37000)},
	}
	spec, _, err := ParseSpec(files, nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		data, err := spec.Canonical()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := ParseCanonical(data); err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(data)))
	}
}

// processorTime is what this process has had, which grows no faster on a busy machine.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A hostile file is refused for processor time that does not hurt; the limit is
// far above what is needed and only catches what is quadratic or worse.
func TestHostileFilesAreRefusedWithoutABlowUp(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'k'; c++ {
		p := "*" + string(c-1)
		bomb += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.Repeat(p+",", 9)+p)
	}
	manyAliases := "virtual:\n- &v {address: 10.0.0.1:80, real: &r [" + strings.Repeat("10.0.0.2:80 gate,", 20000) + "]}\n" +
		strings.Repeat("- {address: 10.0.0.1:80, real: *r}\n", 15000)
	cases := map[string]string{
		"aliases of aliases":     bomb,
		"a list used many times": manyAliases,
		"an alias of itself":     "virtual: &a [*a, {real: *a}]\n",
		"a key that is itself":   "&a {? *a : 1}\n",
		"deep lists":             "virtual: " + strings.Repeat("[", 9000),
		"deeper lists":           strings.Repeat("[", 3_000_000),
		"closed deep lists":      "virtual: " + strings.Repeat("[", 9000) + strings.Repeat("]", 9000),
		"deep mappings":          strings.Repeat("{a: ", 500_000),
		"deep block lists":       strings.Repeat("- ", 500_000),
		"deep question marks":    strings.Repeat("? ", 500_000),
		"many items":             "virtual: [" + strings.Repeat("a,", 7_000_000) + "]",
		"many unknown keys": func() string {
			var b strings.Builder
			for i := range 300_000 {
				fmt.Fprintf(&b, "key%d: x\n", i)
			}
			return b.String()
		}(),
		"one long key":       strings.Repeat("k", 1<<20) + ": 1",
		"one long word":      "virtual: " + strings.Repeat("k", 15<<20),
		"an unclosed string": "virtual: \"" + strings.Repeat("k ", 7<<20),
		"many comments":      strings.Repeat("# c\n", 1_000_000) + "virtual: 1",
		"many empty lines":   strings.Repeat("\n", 16<<20),
		"many documents":     strings.Repeat("---\n", 1_000_000),
		"many anchors":       "virtual: [" + strings.Repeat("&a x,", 300_000) + "]",
		"many tags":          "virtual: [" + strings.Repeat("!!x y,", 300_000) + "]",
		"many directives":    strings.Repeat("%TAG !a! b\n", 300_000),
		"too long":           strings.Repeat("x", MaxFile+1),
		"a huge range":       "virtual: [{address: 10.0.0.1:80, real: [1.0.0.0->223.255.255.255 gate]}]",
		"many ranges":        "virtual:\n" + strings.Repeat("- {address: 10.0.0.1:80, real: ["+strings.Repeat("10.0.0.0->10.0.15.255 gate,", 100)+"]}\n", 1000),
		"many fine ranges": func() string {
			var b strings.Builder
			b.WriteString("virtual:\n")
			for i := range 5000 {
				fmt.Fprintf(&b, "- {address: 11.0.%d.%d:80, real: [10.0.0.0->10.0.15.255 gate]}\n", i/250, i%250)
			}
			return b.String()
		}(),
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			start := processorTime(t)
			p := newPoolReader("ldirectord.yaml")
			p.read([]byte(text))
			err := asError(p.errs, oneFile)
			if err == nil {
				t.Fatal("accepted")
			}
			if n := len(err.(Errors)); n > maxErrors+1 {
				t.Errorf("%d errors", n)
			}
			for _, e := range err.(Errors) {
				if s := e.Error(); len(s) > 1000 || strings.Contains(s, "\n") {
					t.Errorf("not a line: %.300q", s)
				}
			}
			took := processorTime(t) - start
			t.Logf("%v for %d bytes: %.200s", took.Round(time.Millisecond), len(text), err)
			if took > time.Minute {
				t.Errorf("took %v", took)
			}
		})
	}
}
