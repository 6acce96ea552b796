package cluster

import (
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

// disk is where versions are written; it may be slow and full.
type disk struct {
	mu      sync.Mutex // guards what follows
	written []uint64
	err     error
	slow    time.Duration
}

func (d *disk) write(v uint64, _ conf.Files) error {
	d.mu.Lock()
	slow, err := d.slow, d.err
	d.mu.Unlock()
	time.Sleep(slow)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.written = append(d.written, v)
	d.mu.Unlock()
	return nil
}

// writer is a node of which only the write-back lives.
func writer(t *testing.T, d *disk) (n *Node, version func(uint64) *state.State) {
	n = &Node{self: "one", id: "one/uuid", cfg: Config{Boot: 7, Write: d.write}, logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	n.jobs.init()
	t.Cleanup(n.jobs.wait)
	packed, err := packFiles(conf.Files{})
	if err != nil {
		t.Fatal(err)
	}
	return n, func(v uint64) *state.State {
		st := &state.State{SpecFiles: packed, Nodes: map[string]state.Node{"one": {Valid: true, Boot: 7, ID: "one/uuid"}}}
		st.SpecInfo.Version = v
		return st
	}
}

func TestTheNewestVersionIsWrittenThoughAnOlderOneIsBeingWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{slow: time.Second}
		n, version := writer(t, d)
		n.writeFiles(version(2))
		n.writeFiles(version(3)) // while 2 is under way; the loop asks again when that is done
		synctest.Wait()
		time.Sleep(2 * time.Second)
		n.writeFiles(version(3))
		time.Sleep(2 * time.Second)
		n.writeFiles(version(3))
		synctest.Wait()
		if !slices.Equal(d.written, []uint64{2, 3}) {
			t.Errorf("written: versions %v, want 2 and 3", d.written)
		}
	})
}

func TestOldVersionsOfALogThatIsReadAgainAreNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		n, version := writer(t, d)
		st := version(2)
		st.Nodes["one"] = state.Node{Valid: true, Boot: 6, ID: "one/uuid"} // admitted: the daemon before this one
		n.writeFiles(st)
		synctest.Wait()
		if d.written != nil {
			t.Errorf("written: versions %v, although the log may hold newer ones", d.written)
		}
	})
}

func TestAWriteBackThatFailedIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{err: errors.New("no space left on device")}
		n, version := writer(t, d)
		n.writeFiles(version(2))
		synctest.Wait()
		n.mu.Lock()
		said := n.specErr
		n.mu.Unlock()
		if want := "version 2 of the specification runs here, and its files could not be written: no space left on device (tried again every 3s)"; said != want {
			t.Errorf("status says %q, want %q", said, want)
		}
		d.mu.Lock()
		d.err = nil
		d.mu.Unlock()
		time.Sleep(filesRetry + time.Second)
		n.writeFiles(version(2)) // the loop looks again
		synctest.Wait()
		n.mu.Lock()
		said = n.specErr
		n.mu.Unlock()
		if !slices.Equal(d.written, []uint64{2}) || said != "" {
			t.Errorf("written: versions %v; status says %q", d.written, said)
		}
	})
}

func TestAFirstVersionWhoseAnswerIsLostIsNoFaultOfTheFiles(t *testing.T) {
	for _, arrives := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n, version := writer(t, &disk{})
			n.cfg.Files = func() (*conf.Spec, conf.Files, error) {
				if arrives { // before the answer, which never comes
					n.writeFiles(version(1))
					synctest.Wait()
				}
				return nil, conf.Files{}, errors.New("it is not known whether this was done")
			}
			_ = n.proposeFirst(t.Context()) // tried again by the loop
			n.mu.Lock()
			said := n.specErr
			n.mu.Unlock()
			if want := map[bool]string{false: "it is not known whether this was done"}[arrives]; said != want {
				t.Errorf("version 1 is in force: %v; status says of the files %q, want %q", arrives, said, want)
			}
		})
	}
}

func TestThatASpecificationDoesNotFitIsSaidAfterItWasWrittenToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		n, version := writer(t, d)
		n.cfg.Local = &conf.Local{Name: "one", Quorum: conf.QuorumPing, PingGroup: []netip.Addr{netip.MustParseAddr("10.0.0.5")}}
		st := version(2)
		st.Spec = &conf.Spec{Groups: []conf.Group{{Name: "web", Resources: []conf.Resource{{VIP: &conf.VIP{Address: netip.MustParseAddr("10.0.0.5")}}}}}}
		n.writeFiles(st)
		synctest.Wait()
		n.mu.Lock()
		said := n.specErr
		n.mu.Unlock()
		if want := "the specification does not fit its ha.yaml: group web: vip 10.0.0.5 is in ping_group"; !slices.Equal(d.written, []uint64{2}) || !strings.HasPrefix(said, want) {
			t.Errorf("written: versions %v; status says %q", d.written, said)
		}
	})
}

func TestAnApplyWaitsForTheVersionInForceToBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _ := writer(t, &disk{})
		read := 0
		n.cfg.Files = func() (*conf.Spec, conf.Files, error) {
			read++
			return &conf.Spec{}, conf.Files{}, nil
		}
		n.filesVer = 3 // the state of this node without consensus is at version 0
		if _, err := n.Apply(t.Context(), 0, true); err == nil || read != 0 {
			t.Errorf("files of another version were taken for an edit: %v", err)
		}
		n.filesVer = 0
		if c, err := n.Apply(t.Context(), 0, true); err != nil || read != 1 || c.Base != 0 {
			t.Errorf("%+v, %v", c, err)
		}
	})
}

// Who asks may have another name server than the node that makes the version.
func TestAnApplyTellsTheWarningsOfTheNodeThatReadsTheFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _ := writer(t, &disk{})
		warned := make([]conf.Warning, mostWarnings+2)
		for i := range warned {
			warned[i] = conf.Warning{File: "web.yaml", Line: i + 1, Column: 1, Msg: "real server web1: resolved once"}
		}
		n.cfg.Files = func() (*conf.Spec, conf.Files, error) {
			return &conf.Spec{}, conf.Files{Warnings: warned}, nil
		}
		c, err := n.Apply(t.Context(), 0, true)
		if err != nil || len(c.Warnings) != mostWarnings+1 {
			t.Fatalf("%d warnings, %v", len(c.Warnings), err)
		}
		if first, last := c.Warnings[0], c.Warnings[mostWarnings]; first != "web.yaml:1:1: warning: real server web1: resolved once" ||
			last != "and 2 warnings more, which `keepbeat check-config` shows" {
			t.Errorf("%s\n%s", first, last)
		}
	})
}

// Otherwise an edit that is made at once is taken for one of the former version, and put aside.
func TestAnApplyIsDoneWhenItsFilesAreWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{slow: time.Second}
		n, version := writer(t, d)
		begin := time.Now()
		n.writeFiles(version(2))
		if !n.awaitFiles(t.Context(), 2) || time.Since(begin) < time.Second {
			t.Errorf("after %v it counts as written, though %v is", time.Since(begin), d.written)
		}
		if n.awaitFiles(t.Context(), 3) {
			t.Error("a version that nobody writes counts as written")
		}
	})
}
