package main

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/cluster/consensus"
)

// binDir has the binary, with its old names beside it; TestMain builds it.
var binDir string

func TestMain(m *testing.M) {
	consensus.CheckIfAsked()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "keepbeat-cmd-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		build := exec.Command("go", "build", "-ldflags", "-X main.version=v1.2.3-test", "-o", filepath.Join(dir, "keepbeat"), ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			os.Stderr.Write(out)
			return 1
		}
		for _, name := range []string{"hb_standby", "hb_takeover", "cl_status"} {
			if err := os.Symlink("keepbeat", filepath.Join(dir, name)); err != nil {
				panic(err)
			}
		}
		binDir = dir
		return m.Run()
	}())
}

type result struct {
	code        int
	out, stderr string
}

func command(t *testing.T, args ...string) result {
	t.Helper()
	cmd := exec.Command(filepath.Join(binDir, args[0]), args[1:]...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), stderr.String()}
}

// nowhere is a configuration whose run directory no daemon uses.
func nowhere(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "ha.yaml")
	write(t, path, "run_dir: "+dir+"\n") // all else is missing, and not needed to ask
	return path
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWithoutADaemonEveryCommandSaysSoAndFails(t *testing.T) {
	config := nowhere(t)
	for _, args := range [][]string{
		{"keepbeat", "status"}, {"keepbeat", "status", "--json"}, {"keepbeat", "why", "web"}, {"keepbeat", "history"}, {"keepbeat", "history", "web"},
		{"keepbeat", "standby"}, {"keepbeat", "standby", "local", "--to", "director2", "--wait"}, {"keepbeat", "takeover", "foreign", "--wait=5s"},
		{"keepbeat", "apply"}, {"keepbeat", "apply", "--dry-run"}, {"keepbeat", "apply", "--force"}, {"keepbeat", "restart"},
		{"keepbeat", "standby", "--force"}, {"keepbeat", "standby", "--dry-run"},
		{"keepbeat", "keys", "list"}, {"keepbeat", "keys", "generate", "--add"}, {"keepbeat", "keys", "add", "2"}, {"keepbeat", "keys", "use", "2"}, {"keepbeat", "keys", "remove", "2"},
		{"hb_standby"}, {"hb_standby", "failback"}, {"hb_takeover", "local"},
		{"cl_status", "listnodes"}, {"cl_status", "rscstatus", "-m"}, {"cl_status", "nodestatus", "director1"},
		{"cl_status", "listhblinks", "director1"}, {"cl_status", "hblinkstatus", "director1", "eth1"},
	} {
		r := command(t, append(args, "--config", config)...)
		want := args[0] + ": no keepbeat daemon runs here (" + filepath.Join(filepath.Dir(config), "control.sock") + " does not answer)"
		if r.code != 1 || r.out != "" || !strings.HasPrefix(r.stderr, want) {
			t.Errorf("%v: exit %d, %q, %q", args, r.code, r.out, r.stderr)
		}
	}
	if r := command(t, "cl_status", "hbstatus", "--config", config); r.code != 1 || r.out != "Heartbeat is stopped on this machine.\n" {
		t.Errorf("hbstatus: %+v", r)
	}
	if r := command(t, "keepbeat", "status", "--socket", "/nonexistent/s"); r.code != 1 || !strings.Contains(r.stderr, "/nonexistent/s does not answer") {
		t.Errorf("--socket: %+v", r)
	}
}

func TestWrongUsageIsTwo(t *testing.T) {
	config := nowhere(t)
	for says, args := range map[string][]string{
		"a command is missing":                                     {"keepbeat"},
		`unknown command "statsu"`:                                 {"keepbeat", "statsu"},
		"unknown flag: --jason":                                    {"keepbeat", "status", "--jason"},
		`"now" is one word too many`:                               {"keepbeat", "status", "now"},
		"GROUP is missing":                                         {"keepbeat", "why"},
		`"b" is one word too many`:                                 {"keepbeat", "history", "a", "b"},
		"it is one of all, local":                                  {"keepbeat", "standby", "everything"},
		"--wait=30s":                                               {"keepbeat", "standby", "30s"},
		"--wait=-1s: write a time":                                 {"keepbeat", "takeover", "--wait=-1s"},
		`invalid argument "soon"`:                                  {"keepbeat", "standby", "--wait=soon"},
		"--to: name a node":                                        {"keepbeat", "standby", "--to", ""},
		"unknown flag: --to":                                       {"keepbeat", "takeover", "--to", "director2"},
		"--force stops what nobody can have":                       {"keepbeat", "standby", "--force", "--to", "director2"},
		"there is nothing to --wait for":                           {"keepbeat", "standby", "--dry-run", "--wait"},
		"unknown flag: --force":                                    {"keepbeat", "takeover", "--force"},
		"generate, add, use, remove or list":                       {"keepbeat", "keys"},
		`unknown command "check"; did you mean "check-config"?`:    {"keepbeat", "check"},
		`unknown command "validate"; did you mean "check-config"?`: {"keepbeat", "validate"},
		"started and stopped by systemd: systemctl stop keepbeat":  {"keepbeat", "stop"},
		`unknown command "drian"; did you mean "drain"?`:           {"keepbeat", "real", "drian", "10.0.0.1"},
		`unknown command "rotate"`:                                 {"keepbeat", "keys", "rotate"},
		"name the file with the key":                               {"keepbeat", "keys", "add"},
		"the number of a key is 1 to 15":                           {"keepbeat", "keys", "add", "a-key-is-no-argument"},
		"keepbeat keys use N":                                      {"keepbeat", "keys", "use"},
		"keepbeat keys remove N":                                   {"keepbeat", "keys", "remove", "0"},
		"--base: versions start at 1":                              {"keepbeat", "apply", "--base", "0"},
		`invalid argument "x"`:                                     {"keepbeat", "apply", "--base", "x"},
		`"f" is one word too many`:                                 {"keepbeat", "run", "f"},
		`hb_standby: "backfail": it is one`:                        {"hb_standby", "backfail"},
		`hb_standby: "local" is one word`:                          {"hb_standby", "all", "local"},
		`hb_takeover: "x": it is one`:                              {"hb_takeover", "x"},
		"cl_status: a command is missing":                          {"cl_status"},
		`cl_status: unknown command "hbstat"`:                      {"cl_status", "hbstat"},
		"cl_status: LINK is missing":                               {"cl_status", "hblinkstatus", "director1"},
		`keepbeat: "b" is one word too many`:                       {"keepbeat", "check-config", "a", "b"},
	} {
		r := command(t, append(args, "--config", config)...)
		if r.code != 2 || r.out != "" || !strings.Contains(r.stderr, says) || !strings.Contains(r.stderr, "\nusage: ") {
			t.Errorf("%v: exit %d, %q, %q", args, r.code, r.out, r.stderr)
		}
	}
}

func TestHelpVersionAndCompletionNeedNothing(t *testing.T) {
	if r := command(t, "keepbeat", "version"); r.code != 0 || r.out != "keepbeat v1.2.3-test\n" {
		t.Errorf("%+v", r)
	}
	if r := command(t, "keepbeat", "--version"); r.code != 0 || r.out != "keepbeat v1.2.3-test\n" {
		t.Errorf("%+v", r)
	}
	for _, args := range [][]string{{"keepbeat", "--help"}, {"keepbeat", "help", "standby"}, {"hb_standby", "--help"}, {"cl_status", "--help"}, {"keepbeat", "completion", "bash"}, {"keepbeat", "completion", "zsh"}} {
		if r := command(t, args...); r.code != 0 || r.stderr != "" || len(r.out) < 100 {
			t.Errorf("%v: %+v", args, r)
		}
	}
	if r := command(t, "keepbeat", "__complete", "standby", ""); !strings.Contains(r.out, "failback") {
		t.Errorf("completion of standby: %+v", r)
	}
}

func TestTheDaemonAndReleaseRefuseAFaultyConfiguration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ha.yaml")
	write(t, path, "nods: {}\n")
	for _, args := range [][]string{{"keepbeat", "run"}, {"keepbeat", "release"}} {
		if r := command(t, append(args, "--config", path)...); r.code != 1 || !strings.Contains(r.stderr, path+`:1:1: unknown key "nods"; did you mean "nodes"?`) {
			t.Errorf("%v: %+v", args, r)
		}
	}
}

// config fills a directory with the files of a pair that works.
func config(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "ha.yaml"), "cluster: test\nnodes: {director1: {}, director2: {}, arbiter: {role: witness}}\nlinks: [{bcast: eth1}, {bcast: eth2}]\n")
	write(t, filepath.Join(dir, "authkeys"), "auth 1\n1 sha1 0123456789abcdef0123\n")
	write(t, filepath.Join(dir, "haresources.yaml"), "groups:\n  web:\n    prefer: [director1]\n    resources:\n      - vip: 10.0.0.200/24/eth1\n      - ldirectord: web.yaml\n")
	write(t, filepath.Join(dir, "web.yaml"), "virtual:\n  - address: 10.0.0.200:80\n    protocol: tcp\n    service: http\n    real: [10.0.0.5:80 gate]\n")
	return dir
}

func TestCheckConfigOfFilesFromElsewhere(t *testing.T) {
	dir := config(t)
	r := command(t, "keepbeat", "check-config", dir)
	if r.code != 0 || r.stderr != "" {
		t.Fatalf("%+v", r)
	}
	for _, f := range []string{"ha.yaml", "authkeys", "haresources.yaml", "web.yaml"} {
		if !strings.Contains(r.out, filepath.Join(dir, f)) {
			t.Errorf("%s is not named: %s", f, r.out)
		}
		if r := command(t, "keepbeat", "check-config", filepath.Join(dir, f)); r.code != 0 || r.stderr != "" || !strings.Contains(r.out, filepath.Join(dir, f)) {
			t.Errorf("%s alone: %+v", f, r)
		}
	}
	// As the daemon of this node would read them: the keys are elsewhere, and this machine is no node.
	if r := command(t, "keepbeat", "check-config", "--config", filepath.Join(dir, "ha.yaml")); r.code != 1 {
		t.Errorf("as this machine: %+v", r)
	}
	if r := command(t, "keepbeat", "check-config", "--as", "director2", dir); r.code != 0 {
		t.Errorf("--as: %+v", r)
	}
	if r := command(t, "keepbeat", "check-config", "--as", "director9", dir); r.code != 1 || !strings.Contains(r.stderr, "director9") {
		t.Errorf("--as nobody: %+v", r)
	}
}

func TestCheckConfigLooksAtTheMachineWhoseFilesTheseAre(t *testing.T) {
	dir := config(t)
	path := filepath.Join(dir, "ha.yaml")
	write(t, path, "name: director1\ncluster: test\nauthkeys: "+dir+"/authkeys\nquorum: unsafe\nnodes: {director1: {}, director2: {}}\n"+
		"links: [{bcast: kbnone1}, {serial: "+dir+"/ttyS9}]\nwatchdog: "+dir+"/watchdog\nadmin_group: keepbeat-nobody\n")
	r := command(t, "keepbeat", "check-config", "--config", path)
	for _, want := range []string{
		path + `: admin_group: this machine has no group "keepbeat-nobody": make it (groupadd --system keepbeat-nobody), or name one that is there` + "\n",
		path + ": warning: watchdog " + dir + "/watchdog: no such file or directory; load a driver: ",
		path + ": warning: link bcast kbnone1: kbnone1: no such interface; this machine has ",
		path + ": warning: link serial " + dir + "/ttyS9: no such file or directory\n",
	} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("want %q in\n%s", want, r.stderr)
		}
	}
	if r.code != 1 {
		t.Errorf("exit %d", r.code)
	}
	// The daemon says the same.
	if r := command(t, "keepbeat", "run", "--config", path); r.code != 1 || !strings.Contains(r.stderr, "admin_group: this machine has no group") {
		t.Errorf("run: %+v", r)
	}
}

// An own address in ping_group would break no tie.
func TestOwnAddressesAreKnown(t *testing.T) {
	own := netip.MustParseAddr("127.0.0.1")
	if got := ownAddresses([]netip.Addr{own, netip.MustParseAddr("192.0.2.1")}); !slices.Equal(got, []netip.Addr{own}) {
		t.Errorf("%v", got)
	}
}

func TestCheckConfigNamesEveryFaultOfEveryFile(t *testing.T) {
	dir := config(t)
	write(t, filepath.Join(dir, "authkeys"), "auth 1\n1 sha1 short\n")
	write(t, filepath.Join(dir, "haresources.yaml"), "groups:\n  web:\n    prefers: [director1]\n    resources:\n      - vip: 10.0.0.200/24/eth1\n      - ldirectord: web.yaml\n")
	write(t, filepath.Join(dir, "web.yaml"), "virtual:\n  - address: 10.0.0.200:80\n    protocol: tcp\n    reel: []\n")
	r := command(t, "keepbeat", "check-config", dir)
	if r.code != 1 || r.out != "" {
		t.Errorf("%+v", r)
	}
	for _, want := range []string{
		filepath.Join(dir, "authkeys") + ":2",
		filepath.Join(dir, "haresources.yaml") + `:3:5: unknown key "prefers"; did you mean "prefer"?`,
		`web.yaml:4:5: unknown key "reel"; did you mean "real"?`,
	} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("%q is missing in:\n%s", want, r.stderr)
		}
	}
	if r := command(t, "keepbeat", "check-config", filepath.Join(dir, "web.yaml")); r.code != 1 || !strings.HasPrefix(r.stderr, filepath.Join(dir, "web.yaml")+":4:5: ") {
		t.Errorf("the pool alone: %+v", r)
	}
	write(t, filepath.Join(dir, "authkeys"), "auth 1\n1 sha1 0123456789abcdef0123\n")
	if err := os.Chmod(filepath.Join(dir, "authkeys"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := command(t, "keepbeat", "check-config", filepath.Join(dir, "authkeys")); r.code != 1 || !strings.Contains(r.stderr, "chmod 600") {
		t.Errorf("open keys: %+v", r)
	}
}

func TestCheckConfigFollowsWhatAPoolExecutes(t *testing.T) {
	dir := config(t)
	write(t, filepath.Join(dir, "web.yaml"), "execute: mail.yaml\nvirtual:\n  - address: 10.0.0.200:80\n    real: [10.0.0.5:80 gate]\n")
	write(t, filepath.Join(dir, "mail.yaml"), "virtual:\n  - address: 10.0.0.200:25\n    checktype: connect\n    reel: []\n")
	want := filepath.Join(dir, "mail.yaml") + `:4:5: unknown key "reel"; did you mean "real"?`
	for _, path := range []string{dir, filepath.Join(dir, "haresources.yaml"), filepath.Join(dir, "web.yaml")} {
		if r := command(t, "keepbeat", "check-config", path); r.code != 1 || !strings.HasPrefix(r.stderr, want) {
			t.Errorf("%s: %+v", path, r)
		}
	}
	write(t, filepath.Join(dir, "mail.yaml"), "virtual:\n  - address: 10.0.0.200:25\n    checktype: connect\n    real: [10.0.0.5 gate]\n")
	if r := command(t, "keepbeat", "check-config", dir); r.code != 0 || r.stderr != "" || !strings.Contains(r.out, filepath.Join(dir, "mail.yaml")) {
		t.Errorf("%+v", r)
	}
}

func TestCheckConfigOfANodeThatGetsItsFilesFromTheCluster(t *testing.T) {
	dir := config(t)
	write(t, filepath.Join(dir, "ha.yaml"), "cluster: test\nname: director2\nauthkeys: "+filepath.Join(dir, "authkeys")+"\nnodes: {director1: {}, director2: {}, arbiter: {role: witness}}\nlinks: [{bcast: eth1}, {bcast: eth2}]\n")
	for _, f := range []string{"haresources.yaml", "web.yaml"} {
		if err := os.Remove(filepath.Join(dir, f)); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"check-config"}, {"check-config", dir}} {
		r := command(t, append(append([]string{"keepbeat"}, args...), "--config", filepath.Join(dir, "ha.yaml"))...)
		if r.code != 0 || !strings.Contains(r.stderr, filepath.Join(dir, "haresources.yaml")+": warning: not there; this node gets it") {
			t.Errorf("%v: %+v", args, r)
		}
	}
}

func TestCheckConfigLooksAtProgramsOfThisNodesFilesAlone(t *testing.T) {
	dir := config(t)
	write(t, filepath.Join(dir, "ha.yaml"), "cluster: test\nname: director1\nauthkeys: "+filepath.Join(dir, "authkeys")+"\nnodes: {director1: {}, director2: {}, arbiter: {role: witness}}\nlinks: [{bcast: eth1}, {bcast: eth2}]\n")
	write(t, filepath.Join(dir, "web.yaml"), "virtual:\n  - address: 10.0.0.200:443\n    tls_verify: yes\n    tls_ca: /nowhere/ca.pem\n    real: [10.0.0.5:443 gate]\n")
	for _, path := range []string{dir, filepath.Join(dir, "haresources.yaml"), filepath.Join(dir, "web.yaml")} {
		if r := command(t, "keepbeat", "check-config", path); r.code != 0 || !strings.Contains(r.out, "not looked at: programs, certificates") {
			t.Errorf("%s, from elsewhere: %+v", path, r)
		}
		if r := command(t, "keepbeat", "check-config", path, "--config", filepath.Join(dir, "ha.yaml")); r.code != 1 || !strings.Contains(r.stderr, "tls_ca: open /nowhere/ca.pem") {
			t.Errorf("%s, of this node: %+v", path, r)
		}
	}
}

func TestCheckConfigOfACopyWarnsOfKeysThatOthersMayRead(t *testing.T) {
	dir := config(t)
	if err := os.Chmod(filepath.Join(dir, "authkeys"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := command(t, "keepbeat", "check-config", dir); r.code != 0 || !strings.HasPrefix(r.stderr, filepath.Join(dir, "authkeys")+": warning: mode 0644 lets others at the keys") {
		t.Errorf("%+v", r)
	}
}

func TestCheckConfigKnowsTheFilesOfTheOldPrograms(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ldirectord.cf")
	write(t, path, "checktimeout=3\nvirtual=10.0.0.200:80\n\treal=10.0.0.5:80 gate\n")
	if r := command(t, "keepbeat", "check-config", path); r.code != 1 || !strings.HasPrefix(r.stderr, path+": this is a file of ldirectord; ") {
		t.Errorf("%+v", r)
	}
}

func TestCheckConfigMarksWarningsAndPasses(t *testing.T) {
	dir := config(t)
	write(t, filepath.Join(dir, "ha.yaml"), "cluster: test\nnodes: {director1: {}, director2: {}, arbiter: {role: witness}}\nlinks: [{bcast: eth1}]\n")
	r := command(t, "keepbeat", "check-config", dir)
	if r.code != 0 || !strings.Contains(r.stderr, filepath.Join(dir, "ha.yaml")+":3:") || !strings.Contains(r.stderr, ": warning: a single link") {
		t.Errorf("%+v", r)
	}
}

func TestCheckConfigOfWhatIsNoConfiguration(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "noise"), "\x00\xff{[")
	for path, says := range map[string]string{
		filepath.Join(dir, "nothing"): "no such file or directory",
		dir:                           "ha.yaml: no such file in this directory",
		filepath.Join(dir, "noise"):   "noise",
		"/dev/zero":                   "is not a file",
	} {
		if r := command(t, "keepbeat", "check-config", path); r.code != 1 || r.out != "" || !strings.Contains(r.stderr, says) {
			t.Errorf("%s: %+v", path, r)
		}
	}
}
