package tmpx

import (
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

func TestLook(t *testing.T) {
	c := scenario.NewTrio(t, scenario.Options{Failback: true})
	p := c.Start(c.Director1)
	time.Sleep(time.Second)
	out, err := c.Director1.Keepbeat("status")
	t.Log("only one:\n"+out, err)
	c.Start(c.Director2)
	c.Start(c.Arbiter)
	c.WaitActive(20 * time.Second)
	c.WaitOwner(c.Director1, 5*time.Second)
	out, err = c.Director1.Keepbeat("status")
	t.Log("\n"+out, err)
	out, err = c.Director1.Keepbeat("standby", "--wait")
	t.Log("\n"+out, err)
	out, err = c.Director1.Keepbeat("why", "web")
	t.Log("\n"+out, err)
	out, err = c.Director1.Keepbeat("history")
	t.Log("\n"+out, err)
	c.Director2.Die()
	time.Sleep(1500 * time.Millisecond)
	out, err = c.Director1.Keepbeat("status")
	t.Log("\n"+out, err)
	out, err = c.Director1.Keepbeat("restart")
	t.Log("\n"+out, err)
	time.Sleep(1500 * time.Millisecond)
	out, err = c.Director1.Keepbeat("status")
	t.Log("\n"+out, err)
	t.Log(p.Log())
	t.Log(p.Terminate(20 * time.Second))
	t.Log(c.Director1.Try("ip", "addr", "show", "eth0"))
	t.Log(p.Log())
}
