package classic

import (
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
)

const limit = 60 * time.Second

func TestTheClientIsAnsweredAfterTheOwnersDeathByTheOtherDirectorAndNeverByBoth(t *testing.T) {
	c := New(t, Config{})
	c.Start()
	client := c.Client.Probe(VIP, time.Millisecond)
	of1, of2 := c.Observe(2 * time.Millisecond)
	client.WaitAnswer("director1", client.From, limit)

	died := c.Director1.Die()
	back := client.WaitAnswer("director2", died, limit)
	c.Logf("director1 died: director2 answered %v later (%v)", back.Received.Sub(died), client.Outage(died))

	revived := probe.Now()
	c.Revive(c.Director1)
	returned := client.WaitAnswer("director1", revived, limit)
	c.Logf("director1 came back: it answered %v later; the move cost %v", returned.Received.Sub(revived), client.Outage(revived))
	if d := lab.Overlap(of1, of2); d != 0 {
		t.Errorf("both directors answered for %v", d)
	}
}
