package cluster

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepbeat/keepbeat/cluster/transport"
)

func TestOnlyWhatANodeSaysItHasNotTakenIsUndone(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(q request) *response // nil: none
		undone bool
	}{
		"no answer":                    {func(request) *response { return nil }, false},
		"an error after it was taken":  {func(request) *response { return &response{Error: "leadership lost while committing log"} }, false},
		"an error before it was taken": {func(request) *response { return &response{Error: "node is not the leader", Undone: true} }, true},
		"nobody to take it":            {nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := transport.NewMemoryNetwork(transport.MemoryConfig{Latency: time.Millisecond, FailAfter: time.Second})
				a := net.Node("a")
				defer a.Close()
				if c.answer != nil {
					b := net.Node("b")
					defer b.Close()
					l := b.Listen(transport.KindCall)
					go func() {
						conn, err := l.Accept()
						if err != nil {
							t.Error(err)
							return
						}
						defer conn.Close()
						var q request
						if err := readFrame(conn, &q); err != nil {
							t.Error(err)
						}
						if r := c.answer(q); r != nil {
							if err := writeFrame(conn, r); err != nil {
								t.Error(err)
							}
						}
					}()
				}
				got, err := newCalls(nil, a).ask(context.Background(), "b", request{Op: "apply", Command: json.RawMessage("{}")})
				if err == nil || got.Undone != c.undone {
					t.Errorf("undone %v, %v", got.Undone, err)
				}
			})
		})
	}
}
