package main

import (
	"bytes"
	"errors"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/api"
	"github.com/keepbeat/keepbeat/conf"
)

func TestGeneratedKeysAreLinesOfAuthkeysAndDiffer(t *testing.T) {
	line := regexp.MustCompile(`^(\d+) sha1 [A-Za-z0-9_-]{43}\n$`)
	seen := map[string]bool{}
	for args, number := range map[string]string{"keys generate": "1", "keys generate 7": "7", "keys generate 15": "15"} {
		r := command(t, append([]string{"keepbeat"}, strings.Fields(args)...)...)
		m := line.FindStringSubmatch(r.out)
		if r.code != 0 || r.stderr != "" || m == nil || m[1] != number {
			t.Fatalf("%s: exit %d, %s", args, r.code, r.stderr)
		}
		if _, active, err := conf.ParseAuthKeys([]byte("auth " + number + "\n" + r.out)); err != nil || active == 0 {
			t.Error(err)
		}
		if key, ok := parseKey(r.out); !ok || seen[key] {
			t.Error("the same key twice, or none")
		} else {
			seen[key] = true
		}
	}
}

func TestKeysAreReadFromFilesAndNeverShown(t *testing.T) {
	d, dir := &fakeDaemon{}, t.TempDir()
	serve(t, d, dir)
	const key = "correct-horse-battery"
	d.change = cluster.KeyChange{Key: cluster.KeyInfo{Index: 2, Fingerprint: "0123-4567"}, Done: []string{"director1", "arbiter"}}
	done := "director1: accepts key 2\narbiter: accepts key 2\nevery node holds key 2 (0123-4567); `keepbeat keys use 2` makes them seal with it\n"
	path := filepath.Join(dir, "new")
	for text, asked := range map[string]string{
		key: "add 2 " + key, key + "\n": "add 2 " + key, "  2 sha1 " + key + "\n\n": "add 2 " + key,
		"": "", "\n": "", key + " " + key: "", key + "\n" + key: "", "auth 2\n2 sha1 " + key: "", strings.Repeat("x", 5000): "",
	} {
		write(t, path, text)
		d.asked = nil
		r := call(t, dir, "keepbeat", "keys", "add", "2", "--key-file", path)
		if strings.Join(d.asked, "; ") != asked || strings.Contains(r.out+r.stderr, "horse") {
			t.Errorf("%q: the node was asked %q; %+v", text, d.asked, r)
		}
		if asked != "" && r != (result{0, done, ""}) || asked == "" && (r.code != 1 || !strings.Contains(r.stderr, "it holds no key")) {
			t.Errorf("%q: %+v", text, r)
		}
	}

	d.asked = nil
	var out, stderr bytes.Buffer
	a := &app{name: "keepbeat", stdout: &out, stderr: &stderr}
	root := a.root()
	a.common(root)
	root.SetIn(strings.NewReader(key + "\n"))
	root.SetArgs([]string{"keys", "add", "--key-file", "-", "--socket", filepath.Join(dir, api.SocketName)})
	if err := root.ExecuteContext(t.Context()); err != nil || strings.Join(d.asked, "") != "add 0 "+key || out.String() != done {
		t.Errorf("from standard input: %v, %q, %q", err, d.asked, out.String())
	}

	d.asked = nil
	if r := call(t, dir, "keepbeat", "keys", "add", "2"); r.code != 0 || strings.Join(d.asked, "") != "add 2 " {
		t.Errorf("what this node holds: %+v, %q", r, d.asked)
	}
	d.asked = nil
	if r := call(t, dir, "keepbeat", "keys", "generate", "--add"); r.code != 0 || len(d.asked) != 1 || len(d.asked[0]) != len("add 0 ")+43 || strings.Contains(r.out+r.stderr, d.asked[0][6:]) {
		t.Errorf("generate --add: %+v, %d orders", r, len(d.asked))
	}
}

func TestAKeyThatNotEveryNodeHasIsOneForRepetition(t *testing.T) {
	d, dir := &fakeDaemon{}, t.TempDir()
	serve(t, d, dir)
	d.change = cluster.KeyChange{
		Key: cluster.KeyInfo{Index: 2, Fingerprint: "0123-4567"}, Done: []string{"director1"},
		Undone: []cluster.Undone{{Node: "director2", Why: "it is not heard on any link"}},
	}
	want := result{1, "director1: accepts key 2\n", "keepbeat: director2: not done: it is not heard on any link\nrun `keepbeat keys add 2` again when they answer\n"}
	if r := call(t, dir, "keepbeat", "keys", "add", "2"); r != want {
		t.Errorf("%+v", r)
	}
	if r := call(t, dir, "keepbeat", "keys", "use", "2"); r.code != 1 || r.out != "director1: seals with key 2\n" || !strings.HasSuffix(r.stderr, "run `keepbeat keys use 2` again when they answer\n") {
		t.Errorf("%+v", r)
	}
}

func TestWhatForceWouldDoIsExitCodeThree(t *testing.T) {
	d, dir := &fakeDaemon{}, t.TempDir()
	serve(t, d, dir)
	d.err = &cluster.ForceError{Cost: "director2 cannot be asked: it is not heard on any link\na node ...", Command: "keepbeat keys remove 1 --force"}
	const says = "keepbeat: director2 cannot be asked: it is not heard on any link\nkeepbeat: a node ...; `keepbeat keys remove 1 --force` does it all the same\n"
	for _, c := range []struct {
		args []string
		want result
	}{
		{[]string{"keepbeat", "keys", "remove", "1"}, result{3, "", says}},
		{[]string{"keepbeat", "standby"}, result{3, "", says}},
		{[]string{"keepbeat", "apply"}, result{3, "", says + "nothing was changed\n"}},
		{[]string{"hb_standby"}, result{1, "", strings.ReplaceAll(says, "keepbeat: ", "hb_standby: ")}},
	} {
		if got := call(t, dir, c.args...); got != c.want {
			t.Errorf("%v: %+v", c.args, got)
		}
	}
	d.err, d.asked = nil, nil
	d.change = cluster.KeyChange{Key: cluster.KeyInfo{Index: 1}, Done: []string{"director1"}}
	for _, args := range []string{"keys remove 1 --force", "standby --force", "apply --force", "keys use 2"} {
		if r := call(t, dir, append([]string{"keepbeat"}, strings.Fields(args)...)...); r.code != 0 {
			t.Errorf("%s: %+v", args, r)
		}
	}
	if want := "remove 1, by force; standby all , by force; apply 0 false, by force; use 2"; strings.Join(d.asked, "; ") != want {
		t.Errorf("the node was asked %q", d.asked)
	}
	d.err = errors.New("key 1 is what arbiter seals with")
	if r := call(t, dir, "keepbeat", "keys", "remove", "1"); r.code != 1 {
		t.Errorf("%+v", r)
	}
}

func TestStandbyDryRunSaysWhatWouldHappen(t *testing.T) {
	d, dir := &fakeDaemon{cost: "the quorum would be lost: of 3 voters 1 would be up and 2 are needed (not there: arbiter, director1); every group would stop"}, t.TempDir()
	serve(t, d, dir)
	d.moved = []cluster.Moved{{Group: "web", From: "director1", To: "director2"}, {Group: "db", From: "director1", Why: "no director can have it (director2: eth1: no carrier)"}}
	plan := "group web would go to director2\n" +
		"group db would stop and run nowhere, and is refused without --force: no director can have it (director2: eth1: no carrier)\n" +
		"if keepbeat were stopped here: " + d.cost + "\nnothing was done (--dry-run)\n"
	if r := call(t, dir, "keepbeat", "standby", "--dry-run"); r != (result{3, plan, ""}) {
		t.Errorf("%+v", r)
	}
	if r := call(t, dir, "keepbeat", "standby", "--dry-run", "--force"); r != (result{0, plan, ""}) {
		t.Errorf("%+v", r)
	}
	d.moved, d.cost, d.asked = d.moved[:1], "", nil
	if r := call(t, dir, "keepbeat", "standby", "--dry-run", "local"); r != (result{0, "group web would go to director2\nnothing was done (--dry-run)\n", ""}) || strings.Join(d.asked, "") != "standby local , dry" {
		t.Errorf("%+v, %q", r, d.asked)
	}
	d.moved = []cluster.Moved{{Group: "db", From: "director1", Why: "no director can have it"}}
	if r := call(t, dir, "keepbeat", "standby", "--force"); r != (result{0, "group db: stops, and runs nowhere: no director can have it\n", ""}) {
		t.Errorf("%+v", r)
	}
	d.changes = cluster.Changes{Base: 3, Lines: []string{"group web removed"}, Cost: "1 of the 1 groups that run would stop: web"}
	if r := call(t, dir, "keepbeat", "apply", "--dry-run"); r != (result{0, "group web removed\n1 of the 1 groups that run would stop: web: it is refused without --force\nnot applied (--dry-run); the cluster runs version 3\n", ""}) {
		t.Errorf("%+v", r)
	}
}

func TestTheListOfKeysShowsWhoHasWhatAndWhatIsWrong(t *testing.T) {
	d, dir := &fakeDaemon{}, t.TempDir()
	serve(t, d, dir)
	one, two, other := cluster.KeyInfo{Index: 1, Fingerprint: "aaaa"}, cluster.KeyInfo{Index: 2, Fingerprint: "bbbb"}, cluster.KeyInfo{Index: 2, Fingerprint: "cccc"}
	for _, c := range []struct {
		name  string
		nodes []cluster.NodeKeys
		code  int
		want  string
	}{
		{"all is well", []cluster.NodeKeys{{Node: "director1", Active: 1, Keys: []cluster.KeyInfo{one, two}}, {Node: "director2", Active: 1, Keys: []cluster.KeyInfo{one, two}}}, 0, `
key  fingerprint  sealed with by        lacking on
1    aaaa         director1, director2  -
2    bbbb         -                     -
`},
		{"one lacks a key, one is away, one has been edited", []cluster.NodeKeys{
			{Node: "director1", Active: 2, Keys: []cluster.KeyInfo{one, two}}, {Node: "director2", Away: "it is not heard on any link"},
			{Node: "arbiter", Active: 1, Keys: []cluster.KeyInfo{one}, Fault: "/etc/keepbeat/authkeys has been edited by hand"},
		}, 1, `
key  fingerprint  sealed with by  lacking on
1    aaaa         arbiter         -
2    bbbb         director1       arbiter
node director2 cannot be asked: it is not heard on any link
node arbiter: /etc/keepbeat/authkeys has been edited by hand
arbiter: key 2 is lacking: ` + "`keepbeat keys add 2` on a node that has it, or `keepbeat keys remove 2`" + `
`},
		{"the same number is two keys", []cluster.NodeKeys{{Node: "director1", Active: 1, Keys: []cluster.KeyInfo{one, two}}, {Node: "director2", Active: 1, Keys: []cluster.KeyInfo{one, other}}}, 1, `
key  fingerprint  sealed with by        lacking on
1    aaaa         director1, director2  -
2    bbbb         -                     director2
2    cccc         -                     director1
key 2 is not the same on every node
`},
	} {
		d.keys = c.nodes
		if r := call(t, dir, "keepbeat", "keys", "list"); r.code != c.code || "\n"+r.out != c.want || r.stderr != "" {
			t.Errorf("%s: exit %d, %s%s", c.name, r.code, r.out, r.stderr)
		}
	}
	if r := call(t, dir, "keepbeat", "keys", "list", "--json"); r.code != 0 || !strings.Contains(r.out, `"fingerprint": "cccc"`) {
		t.Errorf("%+v", r)
	}
}

// FuzzKeyFile: what is taken for a key is one word of the file.
func FuzzKeyFile(f *testing.F) {
	for _, s := range []string{"key", "1 sha1 key\n", "", "\x00", "a b", "a\nb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if key, ok := parseKey(text); ok && (key == "" || strings.ContainsAny(key, " \t\n") || !strings.Contains(text, key)) {
			t.Errorf("%q of %q", key, text)
		}
	})
}

func TestTheRingPutsTheActiveKeyFirst(t *testing.T) {
	keys := []conf.Key{{Index: 1, Secret: conf.NewSecret("one")}, {Index: 2, Secret: conf.NewSecret("two")}, {Index: 3, Secret: conf.NewSecret("three")}}
	links, secrets := keysFor(keys, 2)
	if len(links) != 3 || links[1].Index != 2 || string(bytes.Join(secrets, []byte(" "))) != "two one three" {
		t.Errorf("%d links, %q", len(links), secrets)
	}
}
