package cluster

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

const authkeys = "/etc/keepbeat/authkeys"

// keysOn returns the keys of a node's file, by their numbers.
func keysOn(h *lab.Host) map[string]string {
	keys := map[string]string{}
	for line := range strings.Lines(fileOn(h, authkeys)) {
		if w := strings.Fields(line); strings.HasPrefix(line, "#") {
			continue
		} else if len(w) == 3 {
			keys[w[0]] = w[2]
		} else if len(w) == 2 {
			keys[w[0]] = w[1]
		}
	}
	return keys
}

// noneRefused checks that no node has refused a datagram lately: one that is
// sealed with a key that it does not have, above all.
func (s *story) noneRefused(what string) {
	s.t.Helper()
	for _, n := range s.standingStatus().Nodes {
		if n.Here != nil && len(n.Here.Refused) > 0 {
			s.t.Errorf("%s: %s refused %+v", what, n.Name, n.Here.Refused)
		}
	}
}

// standingStatus is the witness's status with every node's own.
func (s *story) standingStatus() cluster.Status {
	s.t.Helper()
	return s.wait(s.Arbiter, "every node's answer", func(st cluster.Status) bool {
		for _, n := range st.Nodes {
			if n.Here == nil {
				return false
			}
		}
		return true
	})
}

func TestKeysAreRotatedUnderTraffic(t *testing.T) {
	s := begin(t, scenario.Options{})
	old := keysOn(s.Director1)["1"]
	for _, h := range s.Nodes() {
		h.WriteFile(authkeys, "# of "+h.Name+"\n"+fileOn(h, authkeys), 0o600)
	}
	var said strings.Builder // whatever any command says
	must := func(h *lab.Host, args ...string) string {
		t.Helper()
		out := s.must(h, args...)
		said.WriteString(out)
		return out
	}
	before, since := s.standing(), probe.Now()
	rotate := func(from, to string) {
		t.Helper()
		for _, c := range []struct {
			on    *lab.Host
			args  []string
			words string
		}{
			{s.Director1, []string{"keys", "generate", "--add"}, "every node holds key " + to},
			{s.Arbiter, []string{"keys", "use", to}, "director2: seals with key " + to},
			{s.Director2, []string{"keys", "remove", from}, "arbiter: has no key " + from + " any more"},
		} {
			what := strings.Join(c.args, " ")
			if out := must(c.on, c.args...); !strings.Contains(out, c.words) {
				t.Errorf("%s says %q, not %q", what, out, c.words)
			}
			s.nothingMoves(before, since, "keepbeat "+what)
			s.noneRefused(what)
			must(s.Director2, "keys", "list")
		}
		for _, h := range s.Nodes() {
			keys := keysOn(h)
			if len(keys) != 2 || keys["auth"] != to || len(keys[to]) != 43 || keys[to] != keysOn(s.Director1)[to] || !strings.HasPrefix(fileOn(h, authkeys), "# of "+h.Name+"\n") {
				t.Errorf("%s has the keys of %v, auth %s", h.Name, len(keys)-1, keys["auth"])
			}
			if out := h.Run("stat", "-c", "%a %U", h.Path(authkeys)); strings.TrimSpace(out) != "600 root" {
				t.Errorf("%s: authkeys is %s", h.Name, out)
			}
		}
	}
	rotate("1", "2")
	second := keysOn(s.Director1)["2"]
	rotate("2", "1") // a free number is taken again
	third := keysOn(s.Director1)["1"]

	t.Run("a planned restart reads what the commands wrote", func(t *testing.T) {
		s.must(s.Director1, "restart")
		s.settle()
	})

	t.Run("a node that is away", func(t *testing.T) {
		s.kill(s.Arbiter)
		s.wait(s.Director1, "the witness to be down", func(st cluster.Status) bool { return st.Nodes[2].State == "down" })
		s.refused(s.Director1, 1, "arbiter: not done: it is not heard on any link", "keys", "generate", "--add")
		s.refused(s.Director1, 1, "arbiter cannot be asked: it is not heard on any link", "keys", "use", "2")
		s.refused(s.Director1, 3, "keepbeat keys remove 2 --force", "keys", "remove", "2")
		s.refused(s.Director2, 1, "node arbiter cannot be asked", "keys", "list")
		s.Start(s.Arbiter)
		s.settle()
		s.refused(s.Director2, 1, "arbiter does not hold key 2", "keys", "use", "2")
		s.refused(s.Director2, 1, "arbiter: key 2 is lacking", "keys", "list")
		must(s.Director2, "keys", "add", "2")
		must(s.Director1, "keys", "use", "2")
		must(s.Director1, "keys", "remove", "1")
		s.settle()
	})

	t.Run("a file that was edited by hand", func(t *testing.T) {
		good := fileOn(s.Director2, authkeys)
		s.Director2.WriteFile(authkeys, good+"9 sha1 typed-in-at-three-in-the-morning\n", 0o600)
		s.refused(s.Director1, 1, "edited by hand and is not what is in force (key 9 is new)", "keys", "list")
		s.refused(s.Director1, 1, "director2: not done", "keys", "generate", "--add")
		s.refused(s.Director1, 1, "edited by hand", "keys", "use", "1")
		s.Director2.WriteFile(authkeys, good, 0o600)
		must(s.Director1, "keys", "add", "1")
		must(s.Director1, "keys", "remove", "1")
	})

	said.WriteString(must(s.Director1, "status", "--json") + must(s.Director1, "status") + must(s.Director1, "keys", "list", "--json") + must(s.Director1, "history"))
	for name, d := range s.Daemons {
		said.WriteString(d.Log())
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", d.PID()))
		if err != nil || len(cmdline) == 0 {
			t.Errorf("the arguments of the daemon on %s: %v", name, err)
		}
		said.Write(cmdline)
	}
	for what, key := range map[string]string{"first": old, "second": second, "third": third, "last": keysOn(s.Arbiter)["2"]} {
		if key == "" || strings.Contains(said.String(), key) {
			t.Errorf("the %s key (%d characters) has been said", what, len(key))
		}
	}
	s.settle()
	s.noMoreThan(blink, since, "all of this")
	s.unmoved(before, "all of this")
}
