package autoreload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/conf"
)

const (
	groupsOne = "groups: {web: {resources: [{ldirectord: web.yaml}]}}\n"
	groupsTwo = "# edited\n" + groupsOne
)

// fakeNode remembers what it was asked. Its Apply reads the directory as the real one does.
type fakeNode struct {
	dir string

	mu      sync.Mutex // guards what follows
	auto    map[string]bool
	version uint64
	err     error
	applied []string // the haresources.yaml and web.yaml of each apply
	bases   []uint64
	fault   string
	calls   int
}

func (n *fakeNode) Autoreloads(file string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.auto[file]
}

func (n *fakeNode) FilesFault(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fault = text
}

func (n *fakeNode) Apply(_ context.Context, base uint64, _ bool) (cluster.Changes, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls++
	n.bases = append(n.bases, base)
	if n.err != nil {
		return cluster.Changes{}, n.err
	}
	if base != n.version {
		return cluster.Changes{Base: n.version}, fmt.Errorf("the specification is at version %d, not %d", n.version, base)
	}
	files, err := conf.ReadFiles(n.dir)
	if err != nil {
		return cluster.Changes{}, err
	}
	n.version++
	n.applied = append(n.applied, string(files.Haresources)+string(files.Pools["web.yaml"]))
	return cluster.Changes{Base: base, Version: n.version, Lines: []string{"something"}}, nil
}

func (n *fakeNode) see(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

// put writes a file as an editor does: beside, and then into place.
func put(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path+"~new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+"~new", path); err != nil {
		t.Fatal(err)
	}
}

func files(groups, pool string) conf.Files {
	return conf.Files{Haresources: []byte(groups), Pools: map[string][]byte{"web.yaml": []byte(pool)}}
}

// prepare makes a directory in which the daemon has written version 3.
func prepare(t *testing.T, auto ...string) (*Watcher, *fakeNode) {
	t.Helper()
	n := &fakeNode{dir: t.TempDir(), auto: map[string]bool{}, version: 3}
	for _, a := range auto {
		n.auto[a] = true
	}
	w := New(n.dir, slog.New(slog.DiscardHandler))
	daemonWrites(t, w, n.dir, 3, groupsOne, "# pool\n")
	return w, n
}

func daemonWrites(t *testing.T, w *Watcher, dir string, version uint64, groups, pool string) {
	t.Helper()
	if err := w.Write(version, files(groups, pool), func() error {
		put(t, dir, conf.HaresourcesName, groups)
		put(t, dir, "web.yaml", pool)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestAnEditedFileIsAppliedAgainstTheVersionItWasMadeFrom(t *testing.T) {
	w, n := prepare(t, conf.HaresourcesName, "web.yaml")
	put(t, n.dir, "web.yaml", "# new pool\n")
	if w.look(t.Context(), n) {
		t.Error("it wants to look again")
	}
	if len(n.applied) != 1 || n.applied[0] != groupsOne+"# new pool\n" || n.bases[0] != 3 {
		t.Errorf("applied %q against %v", n.applied, n.bases)
	}
}

// A pool begins to execute a file, and then that file is edited.
func TestAFileThatAPoolExecutesIsAppliedLikeThePool(t *testing.T) {
	w, n := prepare(t, "web.yaml")
	const executing = "execute: mail.yaml\n"
	put(t, n.dir, "mail.yaml", "# mail\n")
	put(t, n.dir, "web.yaml", executing)
	if w.look(t.Context(), n); n.calls != 1 || n.fault != "" {
		t.Fatalf("%d applies, fault %q", n.calls, n.fault)
	}
	if !w.relevant("mail.yaml") || w.relevant("other.yaml") {
		t.Error("changes of the part are not looked at, or those of other files are")
	}
	part := files(groupsOne, executing)
	part.Pools["mail.yaml"] = []byte("# mail\n")
	if err := w.Write(4, part, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	n.version = 4
	put(t, n.dir, "mail.yaml", "# mail of another server\n")
	if w.look(t.Context(), n); n.calls != 1 {
		t.Error("a part that does not reload by itself was applied")
	}
	n.auto["mail.yaml"] = true
	if w.look(t.Context(), n); n.calls != 2 {
		t.Error("the part was not applied")
	}
}

func TestWhatTheDaemonWroteIsNoEdit(t *testing.T) {
	w, n := prepare(t, conf.HaresourcesName, "web.yaml")
	w.look(t.Context(), n)
	// Another node's version arrives: it is written here, and the log is further already.
	n.version = 5
	daemonWrites(t, w, n.dir, 4, groupsTwo, "# pool of version 4\n")
	w.look(t.Context(), n)
	if n.calls != 0 {
		t.Errorf("%d applies; there must be none", n.calls)
	}
}

func TestAnEditOfAnOldVersionDoesNotUndoTheNewOne(t *testing.T) {
	w, n := prepare(t, conf.HaresourcesName, "web.yaml")
	n.version = 4 // committed, not written here yet
	put(t, n.dir, "web.yaml", "# late edit\n")
	if w.look(t.Context(), n) {
		t.Error("it would try the same again")
	}
	if len(n.applied) != 0 || n.version != 4 {
		t.Errorf("applied %q; version %d", n.applied, n.version)
	}
}

func TestNothingIsAppliedWhereAutoreloadIsOff(t *testing.T) {
	w, n := prepare(t)
	put(t, n.dir, conf.HaresourcesName, groupsTwo)
	w.look(t.Context(), n)
	if n.calls != 0 || n.fault != "" {
		t.Errorf("calls %d, fault %q", n.calls, n.fault)
	}
}

func TestAPoolOfItsOwnAutoreloadDoesNotTakeOtherEditsWithIt(t *testing.T) {
	w, n := prepare(t, "web.yaml")
	put(t, n.dir, "web.yaml", "# new pool\n")
	put(t, n.dir, conf.HaresourcesName, groupsTwo)
	w.look(t.Context(), n)
	if n.calls != 0 || !strings.Contains(n.fault, "haresources.yaml is edited too") || !strings.Contains(n.fault, "keepbeat apply") {
		t.Errorf("calls %d, fault %q", n.calls, n.fault)
	}
	put(t, n.dir, conf.HaresourcesName, groupsOne)
	w.look(t.Context(), n)
	if len(n.applied) != 1 || n.fault != "" {
		t.Errorf("applied %q, fault %q", n.applied, n.fault)
	}
}

func TestAFaultyFileIsShownUntilItIsMended(t *testing.T) {
	w, n := prepare(t, conf.HaresourcesName, "web.yaml")
	n.err = conf.Errors{{File: "web.yaml", Line: 3, Column: 1, Msg: "unknown key"}}
	put(t, n.dir, "web.yaml", "# broken\n")
	if w.look(t.Context(), n) || n.fault != "web.yaml:3:1: unknown key" {
		t.Errorf("fault %q", n.fault)
	}
	n.err = nil
	put(t, n.dir, "web.yaml", "# pool\n") // as it was
	w.look(t.Context(), n)
	if n.fault != "" || len(n.applied) != 0 {
		t.Errorf("fault %q, applied %q", n.fault, n.applied)
	}
}

func TestAnEditThatNeedsForceIsShownAndNotTriedAgain(t *testing.T) {
	w, n := prepare(t, conf.HaresourcesName, "web.yaml")
	n.err = &cluster.ForceError{Cost: "2 of the 2 groups that run would stop: db, web", Command: "keepbeat apply --force"}
	put(t, n.dir, conf.HaresourcesName, groupsTwo)
	if again := w.look(t.Context(), n); again || n.fault != "2 of the 2 groups that run would stop: db, web; `keepbeat apply --force` does it all the same" {
		t.Errorf("again: %v, fault %q", again, n.fault)
	}
}

func TestAVanishedFileIsAFaultAndChangesNothing(t *testing.T) {
	w, n := prepare(t, conf.HaresourcesName, "web.yaml")
	if err := os.Remove(filepath.Join(n.dir, conf.HaresourcesName)); err != nil {
		t.Fatal(err)
	}
	w.look(t.Context(), n)
	if n.calls != 0 || !strings.Contains(n.fault, "no such file") {
		t.Errorf("calls %d, fault %q", n.calls, n.fault)
	}
}

func TestWithoutALeaderTheEditIsTriedAgain(t *testing.T) {
	w, n := prepare(t, "web.yaml")
	n.err = errors.New("no leader")
	put(t, n.dir, "web.yaml", "# new\n")
	if !w.look(t.Context(), n) {
		t.Error("the edit is forgotten")
	}
	n.err = nil
	if w.look(t.Context(), n) || len(n.applied) != 1 {
		t.Errorf("applied %q", n.applied)
	}
}

func TestOnlyFilesOfTheSpecificationAreRelevant(t *testing.T) {
	w, n := prepare(t, conf.HaresourcesName, "web.yaml")
	for name, want := range map[string]bool{
		"": true, conf.HaresourcesName: true, "web.yaml": true,
		"daemon.log": false, "ha.yaml": false, ".web.yaml.swp": false, "web.yaml~": false, "web.yaml.unapplied-20240101T000000": false,
	} {
		if w.relevant(name) != want {
			t.Errorf("%q: %t", name, !want)
		}
	}
	// A pool that an edit names, and that is written after it.
	put(t, n.dir, conf.HaresourcesName, "groups: {web: {resources: [{ldirectord: mail.yaml}]}}\n")
	w.look(t.Context(), n)
	if !w.relevant("mail.yaml") {
		t.Error("the pool that comes after its name is not seen")
	}
}

func TestTheSameFaultIsLoggedOnce(t *testing.T) {
	w, n := prepare(t, "web.yaml")
	var log bytes.Buffer
	w.logger = slog.New(slog.NewTextHandler(&log, nil))
	n.err = conf.Errors{{File: "web.yaml", Line: 3, Column: 1, Msg: "unknown key"}}
	put(t, n.dir, "web.yaml", "# broken\n")
	for range 3 {
		w.look(t.Context(), n)
	}
	if strings.Count(log.String(), "unknown key") != 1 {
		t.Error(log.String())
	}
}

func TestBeforeTheFirstWriteBackNothingIsAnEdit(t *testing.T) {
	n := &fakeNode{dir: t.TempDir(), auto: map[string]bool{conf.HaresourcesName: true}}
	put(t, n.dir, conf.HaresourcesName, groupsOne)
	New(n.dir, slog.New(slog.DiscardHandler)).look(t.Context(), n)
	if n.calls != 0 {
		t.Error("applied")
	}
}

func TestTheFilesAreLookedAtOnceWhenTheyAreQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		changes := make(chan string)
		var looks []time.Duration
		began := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			relevant := func(name string) bool { return name == "haresources.yaml" }
			settle(ctx, changes, relevant, func() bool { looks = append(looks, time.Since(began)); return len(looks) == 1 })
		}()
		for range 5 { // an editor that takes its time
			changes <- "haresources.yaml"
			time.Sleep(200 * time.Millisecond)
		}
		changes <- ".haresources.yaml.swp" // does not count
		time.Sleep(time.Minute)
		cancel()
		<-done
		if len(looks) != 2 || looks[0] != 1100*time.Millisecond || looks[1] != looks[0]+retryEvery {
			t.Errorf("looked at %v", looks)
		}
	})
}

// The rest goes through the kernel.

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

func TestInotifySeesAnEditorsRenameAndADirectoryThatIsReplaced(t *testing.T) {
	defer goleak.VerifyNone(t)
	w, n := prepare(t, conf.HaresourcesName, "web.yaml")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx, n) }()
	applied := func(count int) func() bool {
		return func() (ok bool) {
			n.see(func() { ok = len(n.applied) == count })
			return ok
		}
	}
	put(t, n.dir, "web.yaml", "# renamed into place\n")
	eventually(t, "the edit is not applied", applied(1))
	daemonWrites(t, w, n.dir, 4, groupsOne, "# renamed into place\n")

	// Written in place.
	if err := os.WriteFile(filepath.Join(n.dir, "web.yaml"), []byte("# in place\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the edit in place is not applied", applied(2))
	daemonWrites(t, w, n.dir, 5, groupsOne, "# in place\n")

	// A whole new directory, as configuration management puts it there.
	if err := os.Rename(n.dir, n.dir+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(n.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, n.dir, conf.HaresourcesName, groupsTwo)
	put(t, n.dir, "web.yaml", "# in place\n")
	eventually(t, "the new directory is not seen", applied(3))
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	n.see(func() {
		if n.bases[0] != 3 || n.bases[1] != 4 || n.bases[2] != 5 {
			t.Errorf("bases %v", n.bases)
		}
	})
}
