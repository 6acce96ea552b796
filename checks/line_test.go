package checks

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func linesFrom(r io.Reader) *lineReader { return newLineReader(r, make([]byte, bufSize)) }

func TestLines(t *testing.T) {
	full := strings.Repeat("x", bufSize-1)
	for _, tc := range []struct {
		name, in string
		want     []string
		err      error
		rest     string
	}{
		{"both ends", "a\r\nb\nc\r\r\n\r\n", []string{"a", "b", "c\r", ""}, io.EOF, ""},
		{"an unfinished one", "a\nhalf", []string{"a"}, io.EOF, "half"},
		{"as long as may be", full + "\n" + full + "\n", []string{full, full}, io.EOF, ""},
		{"too long", "a\n" + full + "xx\n", []string{"a"}, errLongLine, full + "x"},
		{"any bytes", "\x00\xff\n", []string{"\x00\xff"}, io.EOF, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(tc.in), iotest.OneByteReader(strings.NewReader(tc.in)), iotest.DataErrReader(strings.NewReader(tc.in))} {
				l := linesFrom(r)
				for _, want := range tc.want {
					if got, err := l.line(); err != nil || string(got) != want {
						t.Fatalf("%.20q, %v; want %.20q", got, err, want)
					}
				}
				if got, err := l.line(); !errors.Is(err, tc.err) || got != nil {
					t.Errorf("at the end %q, %v; want %v", got, err, tc.err)
				}
				if string(l.rest()) != tc.rest {
					t.Errorf("rest %.20q, want %.20q", l.rest(), tc.rest)
				}
			}
		})
	}
}

func TestAllLinesTogetherAreBounded(t *testing.T) {
	read := &counter{r: endless("0123456\r\n")}
	l := linesFrom(read)
	n := 0
	for {
		p, err := l.line()
		if err == errEndless {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n += len(p) + 2
	}
	if n > maxTalk || n < maxTalk-9 || read.n != maxTalk {
		t.Errorf("%d bytes of lines from %d, want about %d", n, read.n, maxTalk)
	}
	if l := linesFrom(endless("x")); l.skip(maxTalk+1) != errEndless {
		t.Error("more was skipped than may come")
	}
}

// endless is a text without end.
type endless string

func (e endless) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		n += copy(p[n:], e)
	}
	return n, nil
}

type counter struct {
	r io.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

func FuzzLines(f *testing.F) {
	for _, s := range []string{"220 mx\r\n", "220-a\r\n220-b\r\n220 c\r\nrest", "\n\n\r\n", "", "200", "+OK\r", "250-\n250", "\xff\x00\n", strings.Repeat("y", bufSize) + "\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		one, two := linesFrom(bytes.NewReader(in)), linesFrom(iotest.OneByteReader(bytes.NewReader(in)))
		for {
			// How the bytes are cut into packets must not matter.
			a, err := one.line()
			b, err2 := two.line()
			if !bytes.Equal(a, b) || err != err2 {
				t.Fatalf("at once %q, %v; byte by byte %q, %v", a, err, b, err2)
			}
			if err != nil {
				return
			}
			if bytes.IndexByte(a, '\n') >= 0 {
				t.Fatalf("a line with a line end: %q", a)
			}
		}
	})
}

func FuzzReply(f *testing.F) {
	for _, s := range []string{"220 mx\r\n", "220-a\r\n221 b\r\n220 c\r\n", "220-a\r\n", "22\n", "2200\n", "999 x\n", "250\n", "250-STARTTLS\n250 x\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		texts := 0
		r, err := linesFrom(bytes.NewReader(in)).reply(func([]byte) { texts++ })
		if err == nil && (r.code < 100 || r.code > 599 || texts == 0 || texts > bytes.Count(in, []byte("\n"))) {
			t.Errorf("code %d, %d lines", r.code, texts)
		}
		if port := ftpExtended(r.line); port != 0 && !bytes.ContainsAny(r.line, "0123456789") {
			t.Errorf("port %d of %q", port, r.line)
		}
		ftpPassive(r.line)
	})
}

func FuzzIMAP(f *testing.F) {
	for _, s := range []string{"* OK x", "* PREAUTH", "* BYE", "k2 OK", "k2 NO x", "+ go on", "+", "k2", "*", "", "* 3 EXISTS", "k2  OK"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		for _, tag := range []string{"*", "k2"} {
			s := imapParse(line, tag)
			if s == imapOK && !bytes.HasPrefix(line, []byte(tag+" ")) {
				t.Errorf("%q is OK of %s", line, tag)
			}
			if s == 0 || (tag != "*" && (s == imapBye || s == imapPreauth)) {
				t.Errorf("%q of %s: state %d", line, tag, s)
			}
		}
		if q := imapQuoted(line); q != "" && (len(q) < len(line)+2 || strings.ContainsAny(q, "\r\n\x00")) {
			t.Errorf("%q quoted is %q", line, q)
		}
	})
}
