package checks

import (
	"runtime"
	"strings"
	"testing"
)

// A text that is looked for may begin in one piece of the body and end in
// another; the body is not held for that.
func TestHTTPTextIsFoundWhereverItStands(t *testing.T) {
	const text = "still alive"
	for _, before := range []int{0, 1, bufSize - 5, bufSize, 3*bufSize + len(text) - 1, 4 * bufSize, 9*bufSize - 3, 40_000} {
		for _, after := range []int{0, 1, 100_000} {
			body := strings.Repeat("x", before) + text + strings.Repeat("y", after)
			for want, receive := range map[string]string{"HTTP 200, match for \"still alive\"": text, "no match": text + "!"} {
				w, err := parseBody(receive, "", newEnv(nil))
				if err != nil {
					t.Fatal(err)
				}
				a := newAnswerReader(strings.NewReader("HTTP/1.1 200 OK\r\n\r\n"+body), make([]byte, bufSize))
				ans, err := a.readHead(false)
				if err != nil {
					t.Fatal(err)
				}
				got, err := w.read(bodyReader{one: a}, ans)
				if err != nil {
					got = "no match"
				}
				if got != want {
					t.Errorf("%q after %d of %d bytes: %s, want %s", receive, before, len(body), got, want)
				}
			}
		}
	}
	long := strings.Repeat("x", maxBody)
	w, err := parseBody(text, "", newEnv(nil))
	if err != nil {
		t.Fatal(err)
	}
	a := newAnswerReader(strings.NewReader("HTTP/1.1 200 OK\r\n\r\n"+long), make([]byte, bufSize))
	ans, err := a.readHead(false)
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = w.read(bodyReader{one: a}, ans)
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; err == nil || n > 64<<10 {
		t.Errorf("a megabyte without the text took %d bytes of memory (%v)", n, err)
	}
}

func TestHTTPPageInPiecesOfTenBytes(t *testing.T) {
	for _, tc := range []struct{ name, size, want string }{
		{"short frames", "a", ""},
		{"long frames", "a;extension=" + strings.Repeat("x", 30), errHeadTooLong.Error()},
	} {
		page := strings.Repeat(tc.size+"\r\n0123456789\r\n", 20_000) + "0\r\n\r\n"
		a := newAnswerReader(strings.NewReader("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+page), make([]byte, bufSize))
		ans, err := a.readHead(false)
		if err != nil {
			t.Fatal(err)
		}
		w := wantedBody{}
		got := ""
		if _, err := w.read(bodyReader{one: a}, ans); err != nil {
			got = err.Error()
		}
		if got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}
