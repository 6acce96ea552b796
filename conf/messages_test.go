package conf

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the messages that are given now into testdata; read them before committing")

// Beside every faulty (or doubtful) file of testdata stands what is said of it.
func TestEveryFaultHasItsMessage(t *testing.T) {
	directors := pairOf(QuorumMajority)
	directors.Nodes = append(directors.Nodes, Node{"arbiter", Witness})
	// Files with such a name are read by a node of a pair.
	local := func(name string) *Local {
		for prefix, q := range map[string]Quorum{"pair-fencing": QuorumFencing, "pair-ping": QuorumPing, "pair-unsafe": QuorumUnsafe} {
			if strings.HasPrefix(name, prefix) {
				l := pairOf(q)
				if q == QuorumPing {
					l.PingGroup = []netip.Addr{netip.MustParseAddr("10.0.0.254")}
				}
				return l
			}
		}
		return directors
	}
	const pool = "virtual: [{address: 10.0.0.1:80, real: [10.0.0.11 gate]}]\n"
	say := func(warns []Warning, err error) string {
		var b strings.Builder
		for _, w := range warns {
			b.WriteString(w.String() + "\n")
		}
		if err != nil {
			b.WriteString(err.Error() + "\n")
		}
		return b.String()
	}
	for kind, parse := range map[string]func(name string, data []byte) string{
		"ha": func(name string, data []byte) string {
			_, warns, err := ParseLocal(name, data, "Director1")
			return say(warns, err)
		},
		"haresources": func(name string, data []byte) string {
			_, warns, err := ParseSpec(Files{Name: name, Haresources: data, Pools: map[string][]byte{DefaultPool: []byte(pool)}, Resolver: testHosts()}, local(name))
			return say(warns, err)
		},
		"ldirectord": func(name string, data []byte) string {
			_, warns, err := ParseSpec(Files{
				Haresources: []byte("groups: {web: {resources: [{vip: 10.0.0.1}, {vip: 2001:db8::1}, {ldirectord: " + name + "}]}}"),
				Pools:       map[string][]byte{name: data}, Resolver: testHosts(),
			}, directors)
			return say(warns, err)
		},
		"vrrp": func(name string, data []byte) string {
			_, warns, err := ParseVRRP(VRRPFiles{Name: name, Data: data, Pools: map[string][]byte{DefaultPool: []byte(pool)}, Resolver: testHosts(), Secret: testSecrets})
			return say(warns, err)
		},
		"authkeys": func(name string, data []byte) string {
			_, _, err := parseAuthKeys(name, data)
			return say(nil, err)
		},
	} {
		files, err := filepath.Glob(filepath.Join("testdata", kind, "*"))
		if err != nil || len(files) < 10 {
			t.Fatalf("%s: %d files (%v)", kind, len(files), err)
		}
		for _, file := range files {
			if filepath.Ext(file) == ".err" {
				continue
			}
			name := filepath.Base(file)
			t.Run(kind+"/"+name, func(t *testing.T) {
				data, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				got := parse(name, data)
				if got == "" {
					t.Fatal("nothing is said")
				}
				message := strings.TrimSuffix(file, filepath.Ext(file)) + ".err"
				if *update {
					if err := os.WriteFile(message, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(message)
				if err != nil {
					t.Fatal(err)
				}
				if got != string(want) {
					t.Errorf("it says\n%sand should say\n%s", got, want)
				}
				if strings.Contains(got, "hunter2") {
					t.Errorf("it shows a password: %s", got)
				}
				for _, line := range strings.Split(strings.TrimSuffix(got, "\n"), "\n") {
					if !strings.HasPrefix(line, name+":") && !strings.HasPrefix(line, DefaultPool+":") {
						t.Errorf("a line without the file: %q", line)
					}
				}
			})
		}
	}
}
