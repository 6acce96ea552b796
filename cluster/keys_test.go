package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/cluster/transport"
	"github.com/keepbeat/keepbeat/conf"
)

const (
	firstKey  = "the-first-key-of-all"
	secondKey = "another-secret-of-ours"
)

// trio is three nodes of which only the keys live.
type trio struct {
	t     *testing.T
	nodes map[string]*Node
	log   *bytes.Buffer

	mu     sync.Mutex // guards what follows
	away   map[string]bool
	force  map[string]string // what is in force on each node: "1 2, seals with 1"
	broken map[string]error  // what putting keys in force fails with
}

// ear hears the other nodes of a trio.
type ear struct {
	link.Datagrams
	self string
	*trio
}

func (e ear) Peers() []link.Peer {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []link.Peer
	for name := range e.nodes {
		if name != e.self && !e.away[name] {
			all = append(all, link.Peer{Node: name, Boot: 1, State: link.Up, Meta: []byte(`{"u":"uuid"}`)})
		}
	}
	return all
}

func threeNodes(t *testing.T) *trio {
	w := &trio{t: t, nodes: map[string]*Node{}, log: &bytes.Buffer{}, away: map[string]bool{}, force: map[string]string{}, broken: map[string]error{}}
	network := transport.NewMemoryNetwork(transport.MemoryConfig{})
	logger := slog.New(slog.NewTextHandler(w.log, nil))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var nodes []conf.Node
	for _, name := range []string{"one", "two", "three"} {
		nodes = append(nodes, conf.Node{Name: name, Role: conf.Director})
	}
	for _, c := range nodes {
		streams := network.Node(c.Name)
		path := filepath.Join(t.TempDir(), "authkeys")
		n := &Node{self: c.Name, logger: logger, cfg: Config{Local: &conf.Local{Name: c.Name, Nodes: nodes}, Datagrams: ear{self: c.Name, trio: w}, Logger: logger}}
		w.nodes[c.Name] = n
		w.write(c.Name, path, "# of "+c.Name+"\nauth 1\n1 sha1 "+firstKey+"\n")
		n.calls = newCalls(n, streams)
		wg.Go(func() { n.calls.serve(ctx) })
		t.Cleanup(func() { streams.Close() })
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	for _, n := range w.nodes { // until all of them serve
		for slices.ContainsFunc(n.Keys(ctx), func(k NodeKeys) bool { return k.Away != "" }) {
			time.Sleep(time.Millisecond)
		}
	}
	return w
}

// write makes a file and the ring that has read it.
func (w *trio) write(name, path, text string) {
	w.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	keys, active, err := conf.LoadAuthKeys(path)
	if err != nil {
		w.t.Fatal(err)
	}
	set := func(keys []conf.Key, active int) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if err := w.broken[name]; err != nil {
			return err
		}
		var numbers []string
		for _, k := range slices.SortedFunc(slices.Values(keys), func(a, b conf.Key) int { return a.Index - b.Index }) {
			numbers = append(numbers, fmt.Sprint(k.Index))
		}
		w.force[name] = fmt.Sprintf("%s, seals with %d", strings.Join(numbers, " "), active)
		return nil
	}
	if err := set(keys, active); err != nil {
		w.t.Fatal(err)
	}
	w.nodes[name].cfg.Keys = NewKeyRing(path, "test", keys, active, set)
}

func (w *trio) file(name string) string {
	b, err := os.ReadFile(w.nodes[name].cfg.Keys.path)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

func (w *trio) append(name, text string) {
	path := w.nodes[name].cfg.Keys.path
	if err := os.WriteFile(path, []byte(w.file(name)+text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *trio) leave(names ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.away)
	for _, n := range names {
		w.away[n] = true
	}
}

// inForce is what is in force on all three, in one line when they agree.
func (w *trio) inForce() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.force["one"] == w.force["two"] && w.force["two"] == w.force["three"] {
		return w.force["one"]
	}
	return fmt.Sprintf("one: %s; two: %s; three: %s", w.force["one"], w.force["two"], w.force["three"])
}

func (w *trio) expect(what, want string) {
	w.t.Helper()
	if got := w.inForce(); got != want {
		w.t.Errorf("%s: in force are %s, not %s", what, got, want)
	}
}

func (w *trio) refused(err error, says ...string) {
	w.t.Helper()
	for _, s := range says {
		if err == nil || !strings.Contains(err.Error(), s) {
			w.t.Errorf("it says %v, not %q", err, s)
		}
	}
}

func done(t *testing.T, c KeyChange, err error) KeyChange {
	t.Helper()
	if err != nil || len(c.Undone) > 0 || len(c.Done) != 3 {
		t.Errorf("%+v, %v", c, err)
	}
	return c
}

func TestKeysAreRotatedOnEveryNode(t *testing.T) {
	w := threeNodes(t)
	ctx := WithOrder(t.Context(), Order{By: "alice"})
	n := w.nodes["two"]
	add := func() KeyChange {
		c, err := n.AddKey(ctx, 0, conf.NewSecret(secondKey))
		return done(t, c, err)
	}
	added := add()
	if added.Key.Index != 2 || added.Key.Fingerprint == "" {
		t.Errorf("%+v", added)
	}
	w.expect("added", "1 2, seals with 1")
	if again := add(); again.Key != added.Key {
		t.Errorf("added again it is %+v, not %+v", again.Key, added.Key)
	}
	_, err := n.RemoveKey(ctx, 1)
	w.refused(err, "key 1 is what one, two, three seals with")
	c, err := n.UseKey(ctx, 2)
	done(t, c, err)
	w.expect("used", "1 2, seals with 2")
	c, err = n.UseKey(ctx, 2)
	done(t, c, err)
	c, err = w.nodes["three"].RemoveKey(ctx, 1)
	done(t, c, err)
	w.expect("removed", "2, seals with 2")
	for _, name := range []string{"one", "two", "three"} {
		if got, want := w.file(name), "# of "+name+"\nauth 2\n2 sha1 "+secondKey+"\n"; got != want {
			t.Errorf("the file of %s is\n%s\nnot\n%s", name, got, want)
		}
	}
	_, err = n.RemoveKey(ctx, 1)
	w.refused(err, "no node holds key 1")
	if text := w.log.String(); strings.Contains(text, secondKey) || strings.Contains(text, firstKey) || strings.Count(text, "what=use key=2") != 6 || !strings.Contains(text, "by=alice") {
		t.Errorf("the log:\n%s", text)
	}
}

func TestANodeThatIsAwayIsNamedAndServedLater(t *testing.T) {
	w := threeNodes(t)
	n, ctx := w.nodes["one"], t.Context()
	w.leave("three")
	c, err := n.AddKey(ctx, 5, conf.NewSecret(secondKey))
	if err != nil || !slices.Equal(c.Done, []string{"one", "two"}) || len(c.Undone) != 1 || c.Undone[0] != (Undone{"three", "it is not heard on any link"}) {
		t.Errorf("%+v, %v", c, err)
	}
	_, err = n.UseKey(ctx, 5)
	w.refused(err, "key 5 is not used before every node holds it", "three cannot be asked: it is not heard on any link")
	_, err = n.RemoveKey(ctx, 5)
	var force *ForceError
	if !errors.As(err, &force) || force.Command != "keepbeat keys remove 5 --force" || !strings.Contains(force.Cost, "three cannot be asked") {
		t.Errorf("%v", err)
	}
	w.leave()
	_, err = n.UseKey(ctx, 5)
	w.refused(err, "three does not hold key 5")
	w.expect("nothing was switched", "one: 1 5, seals with 1; two: 1 5, seals with 1; three: 1, seals with 1")
	c, err = n.AddKey(ctx, 5, conf.Secret{}) // what this node holds
	done(t, c, err)
	w.expect("and now all have it", "1 5, seals with 1")
	_, err = n.AddKey(ctx, 6, conf.Secret{})
	w.refused(err, "this node holds no key 6")

	w.leave("three")
	c, err = n.RemoveKey(WithOrder(ctx, Order{Force: true}), 5)
	if err != nil || !slices.Equal(c.Done, []string{"one", "two"}) || len(c.Undone) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	w.leave()
	c, err = n.RemoveKey(ctx, 5)
	done(t, c, err)
	w.expect("taken from the last", "1, seals with 1")
}

func TestANumberMeansOneKey(t *testing.T) {
	w := threeNodes(t)
	n, ctx := w.nodes["one"], t.Context()
	w.write("three", n.cfg.Keys.path+"3", "auth 1\n1 sha1 "+firstKey+"\n2 sha1 something-else-altogether\n")
	_, err := n.AddKey(ctx, 2, conf.NewSecret(secondKey))
	w.refused(err, "key 2 is another one on three (fingerprint ")
	_, err = n.AddKey(ctx, 3, conf.NewSecret(firstKey))
	w.refused(err, "that key is key 1 already on one")
	w.expect("nothing was added anywhere", "one: 1, seals with 1; two: 1, seals with 1; three: 1 2, seals with 1")
	w.write("one", n.cfg.Keys.path, "auth 1\n1 sha1 "+firstKey+"\n2 sha1 "+secondKey+"\n")
	_, err = n.UseKey(ctx, 2)
	w.refused(err, "key 2 is another one on three (fingerprint ", "two does not hold key 2")
	_, err = n.UseKey(ctx, 9)
	w.refused(err, "no node holds key 9")
	c, err := n.AddKey(ctx, 0, conf.NewSecret("a-third-one-of-16-or-more"))
	if done(t, c, err).Key.Index != 3 {
		t.Errorf("the free number is %d", c.Key.Index)
	}
	c, err = n.RemoveKey(ctx, 2) // both
	done(t, c, err)
	w.expect("the twins are gone", "1 3, seals with 1")
	var full NodeKeys
	for i := 1; i <= conf.MaxKeyIndex; i++ {
		full.Keys = append(full.Keys, KeyInfo{i, fmt.Sprint(i)})
	}
	_, err = numberFor([]NodeKeys{full}, 0, "new")
	w.refused(err, "the numbers 1 to 15 are all taken")
}

func TestAFileThatWasEditedByHandIsLeftAloneAndNamed(t *testing.T) {
	w := threeNodes(t)
	n, ctx := w.nodes["one"], t.Context()
	w.append("two", "7 sha1 typed-in-by-somebody-at-night\n")
	const says = "has been edited by hand and is not what is in force (key 7 is new)"
	list := n.Keys(ctx)
	if list[0].Fault != "" || !strings.Contains(list[1].Fault, says) || list[2].Fault != "" {
		t.Errorf("%+v", list)
	}
	c, err := n.AddKey(ctx, 2, conf.NewSecret(secondKey))
	if err != nil || len(c.Undone) != 1 || c.Undone[0].Node != "two" || !strings.Contains(c.Undone[0].Why, says) {
		t.Errorf("%+v, %v", c, err)
	}
	w.expect("two is as it was", "one: 1 2, seals with 1; two: 1, seals with 1; three: 1 2, seals with 1")
	if err := os.Chmod(w.nodes["two"].cfg.Keys.path, 0o644); err != nil {
		t.Fatal(err)
	}
	if list := n.Keys(ctx); !strings.Contains(list[1].Fault, "chmod 600") {
		t.Errorf("%+v", list[1])
	}
	for _, k := range list {
		if s := fmt.Sprintf("%+v", k); strings.Contains(s, "typed-in") || strings.Contains(s, firstKey) {
			t.Error(s)
		}
	}
}

func TestAChangeThatCannotBePutInForceLeavesTheFileAsItWas(t *testing.T) {
	w := threeNodes(t)
	w.broken["one"] = errors.New("no memory")
	before := w.file("one")
	c, err := w.nodes["two"].AddKey(t.Context(), 2, conf.NewSecret(secondKey))
	if err != nil || len(c.Undone) != 1 || !strings.Contains(c.Undone[0].Why, "no memory") || w.file("one") != before {
		t.Errorf("%+v, %v, %q", c, err, w.file("one"))
	}
	w.mu.Lock()
	delete(w.broken, "one")
	w.mu.Unlock()
	c, err = w.nodes["two"].AddKey(t.Context(), 2, conf.Secret{})
	done(t, c, err)
}

func TestTwoCommandsDoNotChangeKeysAtOnce(t *testing.T) {
	w := threeNodes(t)
	n, ctx := w.nodes["one"], t.Context()
	other := w.nodes["three"].beginKeys(WithOrder(ctx, Order{By: "bob"}))
	for slices.ContainsFunc(other.nodes, func(k NodeKeys) bool { return k.Away != "" }) {
		other.end() // a busy machine: a node did not answer in time, and has to be claimed for this test
		other = w.nodes["three"].beginKeys(WithOrder(ctx, Order{By: "bob"}))
	}
	_, err := n.AddKey(ctx, 2, conf.NewSecret(secondKey))
	w.refused(err, "another command by bob is changing keys")
	w.expect("nothing was done", "1, seals with 1")
	other.end()
	c, err := n.AddKey(ctx, 2, conf.NewSecret(secondKey))
	done(t, c, err)
	// One that has lost its claim meanwhile changes nothing.
	if _, err := other.on(ctx, KeyInfo{Index: 2}, keysRequest{Do: "remove"}); err == nil || !strings.Contains(err.Error(), "try again") {
		t.Errorf("%v", err)
	}
	w.expect("after the other one", "1 2, seals with 1")
	ring := n.cfg.Keys
	if err := ring.claim("dead", ""); err != nil {
		t.Fatal(err)
	}
	ring.until = time.Now().Add(-time.Second) // who held it died
	if _, err := n.UseKey(ctx, 2); err != nil {
		t.Error(err)
	}
}

func TestANodeDoesWhatItIsAskedOnlyForTheKeyThatIsMeant(t *testing.T) {
	w := threeNodes(t)
	n := w.nodes["one"]
	if err := n.cfg.Keys.claim("mine", ""); err != nil {
		t.Fatal(err)
	}
	for says, q := range map[string]*keysRequest{
		"cannot be changed here":           nil,
		`"shred" is not known here`:        {Do: "shred", Token: "mine"},
		"key 1 is not the one that is":     {Do: "use", Token: "mine", Index: 1, Fingerprint: "0000-0000-0000-0000"},
		"key 2 is not the one that is":     {Do: "use", Token: "mine", Index: 2},
		"the number of a key is 1 to 15":   {Do: "add", Token: "mine", Index: 99, Key: wireKey(secondKey)},
		"the key is too short: 3":          {Do: "add", Token: "mine", Index: 2, Key: wireKey("abc")},
		"key 1 is there already":           {Do: "add", Token: "mine", Index: 1, Key: wireKey(secondKey)},
		"another command is changing keys": {Do: "add", Token: "theirs", Index: 2, Key: wireKey(secondKey)},
	} {
		if _, err := n.changeKeys(q); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), secondKey) {
			t.Errorf("%+v: %v, not %q", q, err, says)
		}
	}
	q := keysRequest{Do: "add", Index: 2, Key: wireKey(secondKey)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		if s := fmt.Sprintf(verb, q) + fmt.Sprintf(verb, q.Key); strings.Contains(s, secondKey) || strings.Contains(s, "616e6f74") || strings.Contains(s, "97 110") {
			t.Errorf("%s prints %s", verb, s)
		}
	}
	w.expect("nothing was changed", "1, seals with 1")
}

func TestFingerprintsTellKeysAndClustersApart(t *testing.T) {
	print := func(cluster, key string) string {
		p, err := NewKeyRing("", cluster, nil, 0, nil).Fingerprint(conf.NewSecret(key))
		if err != nil || len(p) != 19 {
			t.Fatal(p, err)
		}
		return p
	}
	a := print("web", firstKey)
	if a != print("web", firstKey) || a == print("web", secondKey) || a == print("db", firstKey) {
		t.Error("two that are alike differ, or two that differ are alike")
	}
}
