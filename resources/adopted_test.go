package resources

import (
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

// adopter is a resource that notes what it is given.
type adopter struct {
	fake
	got []string
}

func (a *adopter) Adopt(b json.RawMessage) error {
	a.got = append(a.got, string(b))
	if strings.Contains(string(b), "foreign") {
		return errors.New("not about me")
	}
	return nil
}

func TestAMemberIsGivenTheRecordsOfAnInterruptedChangeTheNewestLast(t *testing.T) {
	pool := func(name, record string) Applied {
		return Applied{conf.KindLdirectord, name, json.RawMessage(`"` + record + `"`)}
	}
	for _, tc := range []struct {
		name    string
		records []Applied // as the journal has them: what was about to be comes first
		want    string
		err     bool
	}{
		{"none", nil, "", false},
		{"one", []Applied{pool("a", "old")}, `"old"`, false},
		{"two, and another member's", []Applied{pool("a", "new"), pool("b", "other"), pool("a", "old")}, `"old" "new"`, false},
		{"an old one that is not understood", []Applied{pool("a", "new"), pool("a", "foreign")}, `"foreign" "new"`, false},
		{"a new one that is not understood", []Applied{pool("a", "foreign"), pool("a", "old")}, `"old" "foreign"`, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := &group{logger: slog.New(slog.DiscardHandler), adopted: &Entry{Resources: tc.records}}
			r := &adopter{}
			err := g.adoptInto(&member{conf: conf.Resource{Kind: conf.KindLdirectord, Name: "a"}, res: r})
			if got := strings.Join(r.got, " "); got != tc.want || (err != nil) != tc.err {
				t.Errorf("%s, %v", got, err)
			}
		})
	}
}
