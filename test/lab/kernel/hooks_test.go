//go:build labkernel

package kernel

import (
	"fmt"
	"net"
	"net/textproto"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/keepbeat/keepbeat/test/lab"
)

// mailbox is a mail server that takes everything.
type mailbox struct {
	mu    sync.Mutex // guards mails
	mails []string
}

// mailbox listens on a host until the test ends.
func (p *pair) mailbox(address string) *mailbox {
	p.t.Helper()
	var l net.Listener
	err := p.client.Do(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	m := &mailbox{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			m.take(c)
		}
	}()
	p.t.Cleanup(func() {
		l.Close()
		<-done
	})
	return m
}

// take speaks as much SMTP as a client needs that sends a mail.
func (m *mailbox) take(conn net.Conn) {
	c := textproto.NewConn(conn)
	defer c.Close()
	say := func(words string) bool { return c.PrintfLine("%s", words) == nil }
	for ok := say("220 mx.example.com ESMTP"); ok; {
		line, err := c.ReadLine()
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
		switch verb {
		case "DATA":
			if !say("354 go on") {
				return
			}
			mail, err := c.ReadDotBytes()
			if err != nil {
				return
			}
			m.mu.Lock()
			m.mails = append(m.mails, string(mail))
			m.mu.Unlock()
			ok = say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			ok = say("250 yes")
		}
	}
}

// has says whether a mail has come with all of these words.
func (m *mailbox) has(words ...string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
next:
	for _, mail := range m.mails {
		for _, w := range words {
			if !strings.Contains(mail, w) {
				continue next
			}
		}
		return true
	}
	return false
}

func (m *mailbox) all() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.mails, "\n----\n")
}

const (
	hook        = "/etc/keepbeat/hook"
	hookLog     = "/etc/keepbeat/hook.log" // each machine has its own
	maintenance = "/etc/keepbeat/maintenance"
)

const hookScript = `#!/bin/sh
echo "${0##*/} $* node=$KEEPBEAT_NODE group=$KEEPBEAT_GROUP pool=$KEEPBEAT_POOL service=$KEEPBEAT_SERVICE protocol=$KEEPBEAT_PROTOCOL epoch=$KEEPBEAT_EPOCH" >> ` + hookLog + "\n"

// What a daemon tells others by hooks and mails, and is told by files.
func TestMaintenanceHooksAndMailsOfARunningCluster(t *testing.T) {
	p := classicPair(t)
	mails := p.mailbox("192.168.56.50:25")
	hooks := ""
	for _, name := range []string{"quorum_up", "quorum_down", "notify_up", "notify_down"} {
		for _, h := range p.directors() {
			h.WriteFile(hook+"/"+name, hookScript, 0o755)
		}
		hooks += "    " + name + ": " + hook + "/" + name + "\n"
	}
	for _, h := range p.directors() {
		h.WriteFile(maintenance+"/README", "A file named after a real server takes it out.\n", 0o644)
	}
	p.write(map[string]string{
		"authkeys": exampleFiles(t)["authkeys"], "ha.yaml": haCalm,
		"haresources.yaml": resourcesOf + "      - vip: " + vip + "/24/eth1\n      - ldirectord: ldirectord.yaml\n",
		"ldirectord.yaml": `checkinterval: 1s
checktimeout: 20s
maintenancedir: ` + maintenance + `
emailalert: admin@example.com
emailalertfrom: director@example.com
smtp: 192.168.56.50
virtual:
  - address: ` + vip + `:80
    servicename: shop
    real: [` + real1 + `:80 gate, ` + real2 + `:80 gate, ` + real3 + `:80 gate]
    service: http
    request: .test.html
    receive: ok
    scheduler: rr
    alpha: yes
    omega: yes
    quorum: 2
` + hooks,
	})
	p.start()
	p.waitOwner(p.director1)
	all := map[string]int{real1: 1, real2: 1, real3: 1}
	p.waitWeights(p.director1, all)
	browser := p.browseCalmly()

	// ran waits for lines of the hooks' log on a host, one behind the other.
	ran := func(h *lab.Host, epoch int, lines ...string) {
		t.Helper()
		var pattern strings.Builder
		for _, line := range lines {
			fmt.Fprintf(&pattern, `(?s:.*)^%s node=%s group=web pool=ldirectord\.yaml service=shop protocol=tcp epoch=%d$`, line, h.Name, epoch)
		}
		want, log := regexp.MustCompile("(?m)"+pattern.String()), ""
		if !eventually(func() bool {
			log, _ = h.Try("cat", hookLog)
			return want.MatchString(log)
		}) {
			t.Errorf("the hooks on %s wrote\n%swant it to match\n%s", h.Name, log, want)
		}
	}
	mailed := func(words ...string) {
		t.Helper()
		if !eventually(func() bool { return mails.has(words...) }) {
			t.Errorf("no mail has %q; there are\n%s", words, mails.all())
		}
	}
	touch := func(name string) { p.director1.WriteFile(maintenance+"/"+name, "", 0o644) }
	remove := func(name string) { p.director1.Run("rm", maintenance+"/"+name) }
	const service = vip + ":80"

	ran(p.director1, 1, "quorum_up "+service+" up [23] 2")
	ran(p.director1, 1, "notify_up "+service+" "+real1+":80 up 1")
	touch(real1)
	p.waitWeights(p.director1, map[string]int{real1: 0, real2: 1, real3: 1})
	ran(p.director1, 1, "notify_down "+service+" "+real1+":80 down 1")
	mailed("To: <admin@example.com>", real1+":80", "maintenance")
	touch(real2 + ":80")
	p.waitWeights(p.director1, map[string]int{real1: 0, real2: 0, real3: 1})
	ran(p.director1, 1, "quorum_down "+service+" down 1 2")
	if r := p.server(real2); r.File != real2+":80" || r.State != "down" {
		t.Errorf("status says of the server in maintenance: %+v", r)
	}

	remove(real1)
	remove(real2 + ":80")
	p.waitWeights(p.director1, all)
	ran(p.director1, 1, "quorum_down "+service+" down 1 2", "quorum_up "+service+" up [23] 2")
	p.faultless(browser, browser.From, "maintenance")

	// The group moves: the old owner says that all is over (omega), the next one begins.
	p.must(p.director1, "standby", "--wait=30s")
	p.waitWeights(p.director2, all)
	ran(p.director1, 1, "quorum_down "+service+" down 1 2", "quorum_up "+service+" up [23] 2", "quorum_down "+service+" down 0 2")
	ran(p.director2, 2, "quorum_up "+service+" up [23] 2")
	p.lab.Logf("%d mails", strings.Count(mails.all(), "\n----\n")+1)
}
