package conf

import (
	"errors"
	"strings"
	"testing"
)

func TestAMistakeInYAMLIsToldWithoutTheValue(t *testing.T) {
	const secret = "s3cret"
	for name, text := range map[string]string{
		"an equals sign":         "virtual:\n  - address: 192.0.2.1:80\n    passwd=s3cret\n",
		"a missing colon":        "virtual:\n  - address: 192.0.2.1:80\n    passwd s3cret\n    service: http\n",
		"two colons":             "virtual:\n  - address: 192.0.2.1:80\n    passwd: a: s3cret\n",
		"the column of the dash": "virtual:\n  - address: 192.0.2.1:80\n  passwd: s3cret\n",
		"no column at all":       "virtual:\n  - address: 192.0.2.1:80\n   passwd: s3cret\n",
		"a bad beginning":        "virtual:\n  - address: 192.0.2.1:80\n    passwd: @s3cret\n",
		"an open quote":          "virtual:\n  - address: 192.0.2.1:80\n    passwd: \"s3cret\n",
	} {
		p := newPoolReader("web.yaml")
		p.read([]byte(text))
		if len(p.errs) == 0 {
			t.Errorf("%s: nothing is said", name)
		}
		for _, e := range p.errs {
			if strings.Contains(e.Error(), secret) || strings.Contains(e.Msg, "not YAML") {
				t.Errorf("%s: %v", name, e)
			}
		}
	}
}

func TestWhatWasPastedFromElsewhereIsWarnedOf(t *testing.T) {
	for text, warns := range map[string]string{
		"receive: “ok”":                "warning: the quotation mark “ is part of this value",
		"comment: ‘shop’":              "warning: the quotation mark ‘ is part of this value",
		"comment: the\u00a0shop":       "warning: a no-break space (U+00A0) is part of this value",
		"comment: says “yes”":          "",
		"comment: \"a\u00a0b\"":        "",
		"comment: x # “pasted” \u00a0": "",
	} {
		p := newPoolReader("web.yaml")
		p.read([]byte("virtual:\n  - " + text + "\n    address: 192.0.2.1:80\n    real: [192.0.2.2:80 gate]\n"))
		got := ""
		for _, w := range p.warns {
			got += w.String()
		}
		if warns != "" && !strings.HasPrefix(got, "web.yaml:2:") {
			t.Errorf("%s: %q is of another line", text, got)
		}
		if len(p.errs) > 0 || warns == "" && got != "" || !strings.Contains(got, warns) {
			t.Errorf("%s: %q, %v", text, got, p.errs)
		}
	}
}

func TestOldFilesAreKnown(t *testing.T) {
	for text, says := range map[string]string{
		"checktimeout=3\nvirtual=192.0.2.1:80\n\treal=192.0.2.2:80 gate\n":                     "file of ldirectord",
		"! Configuration\nvrrp_instance VI_1 {\n}\n":                                           "file of keepalived",
		"bcast\u00a0 eth1\nnode director1\n":                                                   "ha.cf",
		"director1\u00a0 192.0.2.1/24/eth0 ldirectord::x.cf\n":                                 "haresources;",
		"director1 IPaddr::192.0.2.1/24/eth0 httpd\n":                                          "haresources;",
		"virtual:\n  - address: 192.0.2.1:80\n    real: [192.0.2.2:80 gate]\n":                 "",
		"cluster: web\nnodes: {a: {}, b: {}}\nlinks: [{bcast: eth1}]\n":                        "",
		"# virtual=192.0.2.1:80\n#     bcast  eth1\nharesources:\n  - director1 192.0.2.1 x\n": "",
	} {
		if got := OldFile([]byte(text)); says == "" && got != "" || !strings.Contains(got, says) {
			t.Errorf("%q: it says %q and should say %q", text, got, says)
		}
	}
}

// A mistake is looked for by expressions that people's files have shaped;
// others must do no harm.
func FuzzMistakesInYAML(f *testing.F) {
	for _, s := range []string{"a:\n  - b\n c: d", "a: b: c", "- a\nb", "a=b\n", "\"", "virtual=x", "x: *", "\u00a0"} {
		f.Add([]byte(s), "did not find expected key", 2)
		f.Add([]byte(s), "mapping values are not allowed in this context", 9)
	}
	f.Fuzz(func(t *testing.T, data []byte, text string, line int) {
		lines := strings.Split(string(data), "\n")
		if line < 1 || line > 1<<30 {
			line = 1
		}
		if at, column, hint := mistake(lines, line, text); hint != "" && (at < 1 || column < 0 || strings.ContainsAny(hint, "\r\n")) {
			t.Errorf("%d:%d %q", at, column, hint)
		}
		r := &reader{file: "x"}
		r.syntax(data, errors.New("yaml: line 3: "+text))
	})
}
