package watchdog

import (
	"testing"
)

func TestParseHandover(t *testing.T) {
	for in, ok := range map[string]bool{
		"812 7 123456789":            true,
		"812 7 0":                    true,
		"":                           false,
		"812 7":                      false,
		"812 7 1 2":                  false,
		"812  7 1":                   false,
		"0 7 1":                      false,
		"-1 7 1":                     false,
		"812 2 1":                    false, // standard error is nobody's watchdog
		"812 7 -1":                   false,
		"812 99999999999 1":          false,
		"812 7 99999999999999999999": false,
	} {
		h, err := parseHandover(in)
		if (err == nil) != ok {
			t.Errorf("%q: %v", in, err)
		}
		if ok && h.String() != in {
			t.Errorf("%q: became %q", in, h)
		}
	}
}

func FuzzParseHandover(f *testing.F) {
	f.Add("812 7 123456789")
	f.Add("812 7 ")
	f.Fuzz(func(t *testing.T, in string) {
		h, err := parseHandover(in)
		if err != nil {
			return
		}
		if h.pid < 1 || h.fd < 3 || h.until < 0 {
			t.Errorf("%q: %+v", in, h)
		}
		if again, err := parseHandover(h.String()); err != nil || again != h {
			t.Errorf("%q: %v, %v", in, again, err)
		}
	})
}
