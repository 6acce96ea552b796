package consensus

import (
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

func TestALogThatCannotBeWrittenSaysSoUntilItCan(t *testing.T) {
	s, err := OpenBolt(t.TempDir(), hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	entry := &raft.Log{Index: 1, Term: 1, Data: []byte("x")}
	if err := s.Log.StoreLog(entry); err != nil || s.Failing() != nil {
		t.Fatalf("%v, %v", err, s.Failing())
	}
	if err := s.Close(); err != nil { // as good as a disk that refuses
		t.Fatal(err)
	}
	for name, write := range map[string]func() error{
		"StoreLog":    func() error { return s.Log.StoreLog(entry) },
		"StoreLogs":   func() error { return s.Log.StoreLogs([]*raft.Log{entry}) },
		"DeleteRange": func() error { return s.Log.DeleteRange(1, 1) },
		"Set":         func() error { return s.Stable.Set([]byte("k"), nil) },
		"SetUint64":   func() error { return s.Stable.SetUint64([]byte("k"), 1) },
	} {
		s.failed.note(nil)
		if err := write(); err == nil || s.Failing() == nil {
			t.Errorf("%s: %v, and Failing says %v", name, err, s.Failing())
		}
	}
	if MemoryStores().Failing() != nil {
		t.Error("a store in memory fails")
	}
}
