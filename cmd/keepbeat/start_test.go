package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A daemon that does not know what an earlier one left would open the guard for
// it together with its lease, while another node may own it.
func TestTheDaemonDoesNotStartOverAJournalThatItCannotRead(t *testing.T) {
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "authkeys"), "auth 1\n1 sha1 a-secret-of-this-test-only\n")
	config := filepath.Join(dir, "ha.yaml")
	write(t, config, "cluster: test\nnodes:\n  "+name+": {}\n  one-more: {}\n  arbiter: {role: witness}\nlinks:\n  - bcast: kbtest1\n  - bcast: kbtest2\n"+
		"authkeys: "+filepath.Join(dir, "authkeys")+"\nrun_dir: "+dir+"\ndata_dir: "+filepath.Join(dir, "data")+"\n")
	if err := os.Mkdir(filepath.Join(dir, "journal"), 0o700); err != nil {
		t.Fatal(err)
	}
	entry := filepath.Join(dir, "journal", "web.json")
	for _, damage := range []string{"", `{"group":"web","epo`, "\x00\x00", `{"group":"web"}`} {
		write(t, entry, damage)
		r := command(t, "keepbeat", "run", "--config", config)
		if r.code != 1 || !strings.Contains(r.stderr, "journal "+entry) || !strings.Contains(r.stderr, "take that back by hand and remove the file") {
			t.Errorf("over %q: %+v", damage, r)
		}
	}
}
