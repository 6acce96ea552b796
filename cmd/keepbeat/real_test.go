package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/conf"
)

func (d *fakeDaemon) OrderReal(ctx context.Context, server string, o *conf.RealOrder) ([]cluster.RealOrdered, error) {
	r := cluster.RealOrdered{Address: server, Services: []string{"192.0.2.1:80 tcp of web.yaml"}, Was: d.was}
	if o == nil {
		d.ask("enable %s%s", server, marks(ctx))
		return []cluster.RealOrdered{r}, d.err
	}
	d.ask("%s %s %d for %v %q%s", o.Action, server, o.Weight, o.For, o.Reason, marks(ctx))
	r.Order = *o
	return []cluster.RealOrdered{r}, d.err
}

func (d *fakeDaemon) RealOrders() []cluster.RealOrdered { return d.reals }

func TestOrdersForRealServers(t *testing.T) {
	d, dir := &fakeDaemon{}, t.TempDir()
	serve(t, d, dir)
	const done = "real server 10.0.0.5:80: %s\n  192.0.2.1:80 tcp of web.yaml\n"
	const drained = "`keepbeat status` shows the connections that are left; `keepbeat real enable 10.0.0.5:80` ends this\n"
	said := func(format, words string) result { return result{0, fmt.Sprintf(format, words), ""} }
	was := &conf.RealOrder{Action: conf.RealDrain, By: "alice", Reason: "new kernel"}
	for _, c := range []struct {
		args  string
		was   *conf.RealOrder
		err   error
		want  result
		asked string
	}{
		{"drain 10.0.0.5:80", nil, nil, said(done+drained, "drained by an operator"), `drain 10.0.0.5:80 0 for 0s ""`},
		{"drain 10.0.0.5:80", was, nil, said(done+drained, "drained by an operator; before: drained by alice: new kernel"), `drain 10.0.0.5:80 0 for 0s ""`},
		{"disable 10.0.0.5:80 --for 10m --reason disk", nil, nil, said(done+"its checks go on, and do not count; `keepbeat real enable 10.0.0.5:80` ends this before its time\n", "disabled by an operator: disk"),
			`disable 10.0.0.5:80 0 for 10m0s "disk"`},
		{"weight 10.0.0.5:80 7 --force", nil, nil, said(done+"its checks go on to take it out and in; `keepbeat real enable 10.0.0.5:80` ends this\n", "weight 7 ordered by an operator"),
			`weight 10.0.0.5:80 7 for 0s "", by force`},
		{"enable 10.0.0.5:80", was, nil, said(done, "enabled; it was drained by alice: new kernel"), "enable 10.0.0.5:80"},
		{"enable 10.0.0.5:80", nil, nil, said(done, "there was no order for it"), "enable 10.0.0.5:80"},
		{"drain 10.0.0.5:80", nil, &cluster.ForceError{Cost: "it would be empty", Command: "keepbeat real drain --force"},
			result{3, "", "keepbeat: it would be empty; `keepbeat real drain --force` does it all the same\n"}, `drain 10.0.0.5:80 0 for 0s ""`},
	} {
		d.err, d.was, d.asked = c.err, c.was, nil
		if got := call(t, dir, strings.Fields("keepbeat real "+c.args)...); got != c.want || strings.Join(d.asked, "; ") != c.asked {
			t.Errorf("%s: %+v; the node was asked %q", c.args, got, d.asked)
		}
	}
	d.err = nil
	for args, want := range map[string]string{
		"":                            "keepbeat: drain, disable, enable, weight or list is missing",
		"drain":                       "keepbeat: which real server? ADDRESS:PORT, ADDRESS or its name in the pool; `keepbeat status` shows them",
		"weight 10.0.0.5:80":          "keepbeat: which weight? a number from 0 to 65535",
		"drain 10.0.0.5:80 disk":      `keepbeat: "disk" is too much; a reason is given by --reason, and each server by its own command`,
		"weight 10.0.0.5:80 70000":    `keepbeat: weight "70000" is not a number from 0 to 65535`,
		"drain 10.0.0.5:80 --for 5":   `keepbeat: invalid argument "5" for "--for" flag: a time is written like 30s, 10m or 2h30m`,
		"drain 10.0.0.5:80 --for 5ms": "keepbeat: --for 5ms: at least 1s",
	} {
		if got := call(t, dir, strings.Fields("keepbeat real "+args)...); got.code != exitUsage || !strings.HasPrefix(got.stderr, want+"\n") {
			t.Errorf("%s: %+v, want %s", args, got, want)
		}
	}
}

func TestTheRealServersThatHaveAnOrderAreListed(t *testing.T) {
	d, dir := &fakeDaemon{}, t.TempDir()
	serve(t, d, dir)
	if got := call(t, dir, "keepbeat", "real", "list"); got != (result{0, "no real server has an order\n", ""}) {
		t.Errorf("%+v", got)
	}
	d.reals = []cluster.RealOrdered{
		{Address: "10.0.0.5:80", Host: "www1", Services: []string{"192.0.2.1:80 tcp of web.yaml"},
			Order: conf.RealOrder{Action: conf.RealDrain, By: "alice", For: time.Hour, Until: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Reason: "new kernel"}},
		{Address: "10.0.0.6", Order: conf.RealOrder{Action: conf.RealWeight, Weight: 3}},
	}
	want := "10.0.0.5:80 (www1)  drained by alice until 2026-03-01 12:00:00 UTC: new kernel  192.0.2.1:80 tcp of web.yaml\n" +
		"10.0.0.6            weight 3 ordered by an operator                             \n"
	if got := call(t, dir, "keepbeat", "real", "list"); got != (result{0, want, ""}) {
		t.Errorf("%+v", got)
	}
	if got := call(t, dir, "keepbeat", "real", "list", "--json"); got.code != 0 || !strings.Contains(got.out, `"action":"drain"`) {
		t.Errorf("%+v", got)
	}
}

func TestRealserverNamesWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	ha := fmt.Sprintf("run_dir: %s\n", filepath.Join(dir, "run"))
	if err := os.WriteFile(filepath.Join(dir, "ha.yaml"), []byte(ha), 0o644); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]result{
		"status":                         {exitStopped, "no virtual address is set up\n", ""},
		"stop":                           {0, "", ""},
		"start":                          {1, "", "keepbeat: " + dir + `/realserver.yaml: no such file; write it ("virtual: [192.168.56.200 gate]"), or name the virtual addresses in the command` + "\n"},
		"start www":                      {exitUsage, "", `keepbeat: "www" is not an IP address`},
		"start --forward masq 192.0.2.1": {exitUsage, "", `keepbeat: "192.0.2.1 masq": a real server of forward method masq`},
		"":                               {exitUsage, "", "keepbeat: start, stop or status is missing"},
	} {
		got := call(t, dir, strings.Fields("keepbeat realserver "+args)...)
		if got.code != want.code || got.out != want.out || !strings.HasPrefix(got.stderr, want.stderr) {
			t.Errorf("%s: %+v, want %+v", args, got, want)
		}
	}
}
