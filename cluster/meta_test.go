package cluster

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/cluster/consensus"
	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/conf"
)

// What a node says of itself fits into a hello, whatever there is to say: what does not fit is not sent at all.
func TestTheLongestHelloIsSent(t *testing.T) {
	id := strings.Repeat("f", 36)
	var behind []string
	for range 100 {
		behind = append(behind, strings.Repeat("n", 63))
	}
	b, err := json.Marshal(meta{
		UUID: id, Empty: true, Nodes: consensus.NodesDigest([]conf.Node{{Name: "a"}}), Index: math.MaxUint64,
		Behind: joinShort(behind, maxBehind), Counter: math.MaxUint64, Generation: id, Cold: true, Acts: true, Intent: id, Echo: id, Rule: conf.QuorumFencing.String(),
	})
	if err != nil || len(b) > link.MaxMeta {
		t.Errorf("%d bytes, at most %d: %s %v", len(b), link.MaxMeta, b, err)
	}
}

func TestNamesThatDoNotFitAreLeftOut(t *testing.T) {
	for _, c := range []struct{ names, want string }{
		{"", ""}, {"director1", "director1"}, {"a bc def", "a,bc,def"}, {"director1 director2", "director1"}, {"averylongname", ""},
	} {
		if got := joinShort(strings.Fields(c.names), 9); got != c.want {
			t.Errorf("%q: %q, want %q", c.names, got, c.want)
		}
	}
}
