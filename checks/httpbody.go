package checks

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"
)

// bodyReader hands out the body of an answer by either version of HTTP. It is
// no interface so that an answerReader costs no memory of its own.
type bodyReader struct {
	one *answerReader
	two *h2Reader // nil: one
}

// next returns a piece, valid until the next call and never empty; io.EOF after the last.
func (r bodyReader) next() ([]byte, error) {
	if r.two != nil {
		return r.two.next()
	}
	return r.one.next()
}

// wantedBody is what a check wants of the body of an answer. A body that
// arrives in a Content-Encoding, though none was asked for, is taken as it
// comes: whoever unpacks what a server sends can be made to work without end.
type wantedBody struct {
	pattern string         // receive
	receive *regexp.Regexp // nil: any body
	literal []byte         // receive, when it is plain text
	digest  []byte         // nil: any body
	kind    string         // of digest: md5, sha256
	suffix  string         // of the detail when the body is wanted
	newHash func() hash.Hash
}

// digests are the kinds that can be wanted; the length is that of the hexadecimal form.
var digests = map[string]func() hash.Hash{"md5": md5.New, "sha256": sha256.New}

func parseBody(receive, digest string, e *env) (wantedBody, error) {
	w := wantedBody{pattern: receive}
	if receive != "" {
		re, err := e.compile(receive)
		if err != nil {
			return w, fmt.Errorf("receive %q: %w", receive, err)
		}
		w.receive = re
		if s, complete := re.LiteralPrefix(); complete {
			w.literal = []byte(s)
		}
		w.suffix = fmt.Sprintf(", match for %q", receive)
	}
	if digest != "" {
		kind, sum, _ := strings.Cut(digest, ":")
		b, err := hex.DecodeString(sum)
		if w.newHash = digests[kind]; w.newHash == nil || err != nil || len(b) != w.newHash().Size() {
			return w, fmt.Errorf("digest %q is not md5: with 32, or sha256: with 64 hexadecimal digits", digest)
		}
		w.kind, w.digest = kind, b
		w.suffix += ", digest as wanted"
	}
	return w, nil
}

// read reads the body to its end, to maxBody, or until it is known to be
// wanted, and says so. Without any wish it is read as well: an answer that
// breaks off is no answer.
func (w *wantedBody) read(r bodyReader, ans answer) (string, error) {
	var got []byte // of the body; with a literal only its end, where one may begin
	var sum hash.Hash
	if w.digest != nil {
		sum = w.newHash()
	}
	size, tried, matched := 0, 16<<10, false
	for size < maxBody {
		p, err := r.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", err
		}
		p = p[:min(len(p), maxBody-size)]
		size += len(p)
		if sum != nil {
			sum.Write(p)
		}
		if w.receive == nil {
			continue
		}
		if !matched {
			got = append(got, p...)
		}
		if w.literal != nil && !matched && len(got) >= len(w.literal)+bufSize {
			if matched = bytes.Contains(got, w.literal); !matched {
				got = append(got[:0], got[len(got)-min(len(got), len(w.literal)-1):]...)
			}
		}
		// Now and then (in all, no more work than one more pass) look whether
		// the rest is needed.
		if size >= 2*tried && sum == nil {
			tried = size
			if matched || w.matchesEarly(got) {
				return w.ok(ans), nil
			}
		}
	}
	matched = matched || w.receive == nil || w.matches(got)
	if err := w.judge(matched, sum, size, ans.code); err != nil {
		if ans.encoding != "" {
			err = fmt.Errorf("%w, which are in Content-Encoding %s (not decoded)", err, ans.encoding)
		}
		return "", err
	}
	return w.ok(ans), nil
}

func (w *wantedBody) judge(matched bool, sum hash.Hash, size, code int) error {
	where := ""
	if size >= maxBody {
		where = "the first "
	}
	if !matched {
		return fmt.Errorf("HTTP %d, no match for %q in %s%d bytes", code, w.pattern, where, size)
	}
	if sum == nil {
		return nil
	}
	if size >= maxBody {
		return fmt.Errorf("HTTP %d, no digest of a body of %d or more bytes", code, maxBody)
	}
	if is := sum.Sum(nil); !bytes.Equal(is, w.digest) {
		return fmt.Errorf("HTTP %d, the digest is %s:%x, not the wanted one, of %d bytes", code, w.kind, is, size)
	}
	return nil
}

// ok is the detail of a body that is wanted.
func (w *wantedBody) ok(ans answer) string {
	if ans.code == 200 {
		return "HTTP 200" + w.suffix
	}
	return fmt.Sprintf("HTTP %d%s", ans.code, w.suffix)
}

func (w *wantedBody) matches(body []byte) bool {
	if w.literal != nil {
		return bytes.Contains(body, w.literal)
	}
	return w.receive.Match(body)
}

// matchesEarly is true when the beginning of a body has a match that no
// continuation can take away: it ends before the last character, so that
// neither $ nor \b in it looked at the end.
func (w *wantedBody) matchesEarly(body []byte) bool {
	if w.literal != nil {
		return false
	}
	loc := w.receive.FindIndex(body)
	return loc != nil && loc[1] <= len(body)-utf8.UTFMax
}
