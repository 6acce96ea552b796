package vrrp

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
)

// What routers are told of mails; the server is the client of a scene, on the second network.
const (
	mailTo     = "ops@example.com"
	mailFrom   = "router@example.com"
	mailServer = "10.21.0.250"
)

// postman is a server of SMTP that takes every mail of a router.
type postman struct {
	t              testing.TB
	name, from, to string // of the router, and as its file has them
	listener       net.Listener
	serving        sync.WaitGroup

	mu    sync.Mutex // guards mails and open
	mails []letter
	open  map[net.Conn]bool
}

// letter is a mail that was taken.
type letter struct{ from, to, text string }

// employ has a postman listen on an address of a host.
func employ(t testing.TB, h *lab.Host, address, name, from, to string) *postman {
	t.Helper()
	p := &postman{t: t, name: name, from: from, to: to, open: map[net.Conn]bool{}}
	err := h.Do(func() (err error) {
		p.listener, err = net.Listen("tcp", address+":25")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	p.serving.Go(func() {
		for {
			conn, err := p.listener.Accept()
			if err != nil {
				return // closed
			}
			p.mu.Lock()
			p.open[conn] = true
			p.mu.Unlock()
			p.serving.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() {
		p.listener.Close()
		p.mu.Lock()
		for conn := range p.open {
			conn.Close()
		}
		p.mu.Unlock()
		p.serving.Wait()
	})
	return p
}

func (p *postman) serve(conn net.Conn) {
	defer func() {
		conn.Close()
		p.mu.Lock()
		delete(p.open, conn)
		p.mu.Unlock()
	}()
	lines := bufio.NewReader(conn)
	say := func(text string) { io.WriteString(conn, text+"\r\n") }
	say("220 postman ESMTP")
	for l := (letter{}); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		switch word, rest, _ := strings.Cut(line, ":"); strings.ToUpper(word) {
		case "MAIL FROM":
			l.from = strings.Trim(rest, " <>")
		case "RCPT TO":
			l.to += strings.Trim(rest, " <>")
		case "DATA":
			say("354 go on")
			for {
				line, err := lines.ReadString('\n')
				if err != nil {
					return
				}
				if strings.TrimRight(line, "\r\n") == "." {
					break
				}
				l.text += line
			}
			p.mu.Lock()
			p.mails = append(p.mails, l)
			p.mu.Unlock()
			l = letter{}
		case "QUIT":
			say("221 bye")
			return
		}
		say("250 good")
	}
}

// told is a change of which a mail tells.
var told = regexp.MustCompile(`VRRP (Instance|Group) (\S+) - (.*)`)

// changes are those of which mails have told up to now, by what has changed, in
// their order. A mail of keepalived has one, in its subject; keepbeat gathers those
// of a second, and has them in the body, a line each.
func (p *postman) changes() map[string][]string {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[string][]string{}
	for _, l := range p.mails {
		m, err := mail.ReadMessage(strings.NewReader(l.text))
		if err != nil {
			p.t.Fatalf("a mail: %v:\n%s", err, l.text)
		}
		subject := m.Header.Get("Subject")
		if l.from != p.from || l.to != p.to || !strings.Contains(subject, p.name) {
			p.t.Fatalf("a mail of %s to %s, about %s; want %s, %s, and %s in the subject", l.from, l.to, subject, p.from, p.to, p.name)
		}
		lines := []string{subject}
		if m.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
			body, err := io.ReadAll(quotedprintable.NewReader(m.Body))
			if err != nil {
				p.t.Fatalf("a mail: %v:\n%s", err, l.text)
			}
			lines = slices.DeleteFunc(strings.Split(string(body), "\r\n"), func(l string) bool { return !told.MatchString(l) })
			want := p.name + ": " + lines[0]
			if n := len(lines); n > 1 {
				want = fmt.Sprintf("%s: %d alerts, the first: %s", p.name, n, lines[0])
			}
			if subject != want {
				p.t.Fatalf("a mail has the subject %q; want %q", subject, want)
			}
		}
		for _, line := range lines {
			change := told.FindStringSubmatch(line)
			if change == nil {
				p.t.Fatalf("a mail tells of no change:\n%s", l.text)
			}
			what := change[1] + " " + change[2]
			all[what] = append(all[what], change[3])
		}
	}
	return all
}

// corresponds is what router0 goes through; it returns of which changes it has told, after each event.
func corresponds(s *scene) (story []string) {
	const first, second = 0, 1
	p := employ(s.t, s.client, mailServer, "router0", mailFrom, mailTo)
	said := map[string]int{}
	// tells notes what mails have told since the last event, when they have told of the last change of each.
	tells := func(event string, last map[string]string) {
		s.t.Helper()
		s.Eventually(limit, event+fmt.Sprintf(": mails to tell of %v", last), func() bool {
			changes := p.changes()
			for what, state := range last {
				if c := changes[what]; len(c) == said[what] || c[len(c)-1] != state {
					return false
				}
			}
			return true
		})
		changes := p.changes()
		for _, what := range slices.Sorted(maps.Keys(changes)) {
			story = append(story, fmt.Sprintf("%s: %s: %s", event, what, strings.Join(changes[what][said[what]:], ", ")))
			said[what] = len(changes[what])
		}
	}
	state := func(state string, names ...string) map[string]string {
		all := map[string]string{}
		for _, n := range names {
			all[n] = "Entering " + state + " state"
		}
		return all
	}
	s.start(second)
	at := time.Now()
	s.becomes("the second alone", second, at, false, s.named())
	at = time.Now()
	s.start(first)
	s.becomes("the first starts", first, at, false, s.named())
	everything := []string{"Instance weighed", "Instance faulty", "Instance one", "Instance other", "Group together"}
	tells("the start", state("MASTER", everything...))

	at = time.Now()
	s.routers[first].WriteFile(downFile, "", 0o644)
	s.becomes("its script fails", second, at, false, s.named())
	failed := state("FAULT", everything[1:]...)
	failed["Instance weighed"] = "Entering BACKUP state"
	tells("its script fails", failed)

	at = time.Now()
	s.routers[first].Run("rm", downFile)
	s.becomes("its script succeeds", first, at, false, s.named())
	tells("its script succeeds", state("MASTER", everything...))

	s.stop(first)
	tells("it is stopped", nil)
	s.stop(second)
	return story
}

// Mails are router0's alone: the other one only gives it somebody to yield to.
// With the higher priority, and an interval of a second, it changes its state
// when something has happened to it, and not because the machine is busy.
func TestMailsTellOfTheChangesThatKeepalivedTellsOf(t *testing.T) {
	t.Parallel()
	second := [2]time.Duration{time.Second, time.Second}
	stories := map[program][]string{}
	var mu sync.Mutex // guards stories
	stage(t, [][2]program{{keepalived, keepalived}, {keepbeat, keepalived}}, func([2]program) []instance {
		return []instance{
			{name: "weighed", vrid: 95, version: 3, mailed: true, script: true, interval: second, priority: [2]int{110, 100}},
			{name: "faulty", vrid: 96, version: 3, mailed: true, script: true, faulty: true, interval: second, priority: [2]int{110, 100}},
			{name: "one", vrid: 97, version: 3, mailed: true, script: true, faulty: true, synced: true, interval: second, priority: [2]int{110, 100}},
			{name: "other", vrid: 98, version: 3, mailed: true, synced: true, interval: second, priority: [2]int{110, 100}},
		}
	}, func(s *scene) {
		story := corresponds(s)
		mu.Lock()
		defer mu.Unlock()
		stories[s.cast[0]] = story
	})
	theirs, ours := strings.Join(stories[keepalived], "\n  "), strings.Join(stories[keepbeat], "\n  ")
	t.Logf("keepalived has told\n  %s", theirs)
	if theirs != "" && ours != "" && theirs != ours {
		t.Errorf("keepbeat has told\n  %s\nkeepalived\n  %s", ours, theirs)
	}
}
