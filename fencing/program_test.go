package fencing

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

func writeProgram(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// scripted returns a Fencer on node a with one script for node b.
func scripted(t *testing.T, text string, change func(*conf.FenceDevice)) (*Fencer, string) {
	t.Helper()
	dir := t.TempDir()
	writeProgram(t, dir+"/fence.sh", "#!/bin/bash\ncd "+dir+"\n"+text)
	d := conf.FenceDevice{
		Name: "hook", Type: conf.FenceScript, Program: dir + "/fence.sh", Timeout: 20 * time.Second,
		Targets: []conf.FenceTarget{{Node: "b", Port: "vm 7"}},
	}
	if change != nil {
		change(&d)
	}
	f := New(Config{Node: "a"})
	f.Configure(&conf.Fencing{Devices: []conf.FenceDevice{d}})
	return f, dir
}

func within(d time.Duration) func(*conf.FenceDevice) {
	return func(x *conf.FenceDevice) { x.Timeout = d }
}

func secretFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAScriptIsToldWhatToDo(t *testing.T) {
	t.Setenv("LEAK", "of the daemon's environment")
	// A descriptor that is not closed on exec by itself would be the daemon's sockets after a re-exec.
	f, dir := scripted(t, `
echo "$# $1 $2|$KEEPBEAT_ACTION $KEEPBEAT_NODE $KEEPBEAT_PORT $KEEPBEAT_BY|$password $zone|$LEAK" >told
ls /proc/self/fd | wc -l >fds
ps -o pgid= $$ | tr -d ' ' >group; echo $$ >>group
read x && echo "input: $x" >>told
exit 0`, func(d *conf.FenceDevice) {
		d.Params = map[string]conf.Param{"password": {File: secretFile(t, "hunter2\nsecond line\n")}, "zone": {Value: "$(id) `id` * '"}}
	})
	out, err := f.Fence(t.Context(), Target{Node: "b"}, conf.FenceReboot, nil)
	if err != nil || !out.Done || len(out.Attempts) != 1 {
		t.Fatalf("%+v, %v", out, err)
	}
	want := "2 reboot b|reboot b vm 7 a|hunter2 $(id) `id` * '|\n"
	if got := read(t, dir+"/told"); got != want {
		t.Errorf("told %q\nwant %q", got, want)
	}
	if got := strings.TrimSpace(read(t, dir+"/fds")); got != "4" { // and that of the directory
		t.Errorf("%s descriptors", got)
	}
	if g := strings.Fields(read(t, dir+"/group")); g[0] != g[1] {
		t.Errorf("process group %v", g)
	}
}

func TestWhatAScriptMayAnswer(t *testing.T) {
	for _, c := range []struct {
		name, text string
		done       bool
		want       string // of the errors
	}{
		{"exit status 0 is done", "exit 0", true, ""},
		{"any other status is not", "echo one; echo; echo two >&2; exit 7", false, "exit status 7: one; two"},
		{"a signal is not", "kill -9 $$", false, "signal: killed, and it printed nothing"},
		{"without reboot it is off and on", `[ "$1" != reboot ] || exit 3; echo $1 >>did`, true, ""},
		{"without any action it fails", "exit 3", false, "the device has no such action (exit status 3, and it printed nothing)"},
		{"control characters do not reach a terminal", `printf 'a\033[2Jb\rc\0d\377'; exit 1`, false, "exit status 1: a [2Jb c d\ufffd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, dir := scripted(t, c.text, nil)
			out, err := f.Fence(t.Context(), Target{Node: "b"}, conf.FenceReboot, nil)
			if out.Done != c.done || (err == nil) != c.done {
				t.Fatalf("%+v, %v", out, err)
			}
			if err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("says %v\nwant %s", err, c.want)
			}
			if strings.Contains(c.text, "did") && read(t, dir+"/did") != "off\non\n" {
				t.Errorf("did %q", read(t, dir+"/did"))
			}
		})
	}
}

// took fails the test when fencing took as long as what it should not wait for.
func took(t *testing.T, began time.Time, most time.Duration) {
	t.Helper()
	if d := time.Since(began); d > most {
		t.Errorf("took %s", d)
	}
}

// ended waits until a process is gone, which may take the kernel a moment.
func ended(t *testing.T, pidFile string) {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(read(t, pidFile)))
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
	}
	t.Errorf("process %d is still there", pid)
	_ = unix.Kill(pid, unix.SIGKILL)
}

func TestAScriptThatHangsIsKilledWithItsChildren(t *testing.T) {
	const hang = `sleep 1000 & echo $! >child; trap '' TERM; echo about to hang; while :; do sleep 1000; done`
	for _, limit := range patience {
		f, dir := scripted(t, hang, within(limit))
		began := time.Now()
		out, err := f.Fence(t.Context(), Target{Node: "b"}, conf.FenceOff, nil)
		took(t, began, limit+30*time.Second)
		if err != nil && strings.HasSuffix(err.Error(), fmt.Sprintf("killed: not done within %v", limit)) && limit != patience[len(patience)-1] {
			continue // it had no time to print
		}
		if out.Done || err == nil || !strings.Contains(err.Error(), fmt.Sprintf("killed: not done within %v; it printed: about to hang", limit)) {
			t.Errorf("%+v, %v", out, err)
		}
		ended(t, dir+"/child")
		return
	}
}

// patience is how long a script that has to do something before it is killed gets:
// more when a busy machine did not let it.
var patience = []time.Duration{2 * time.Second, 20 * time.Second}

func TestAScriptThatExitsWith0WhenItIsKilledHasNotFenced(t *testing.T) {
	f, _ := scripted(t, `trap 'exit 0' TERM; sleep 1000 & wait`, within(time.Second))
	if out, err := f.Fence(t.Context(), Target{Node: "b"}, conf.FenceOff, nil); out.Done || err == nil {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestOutputWithoutEndIsNotKept(t *testing.T) {
	for _, limit := range patience {
		f, _ := scripted(t, `yes 0123456789012345678901234567890123456789`, within(limit))
		out, err := f.Fence(t.Context(), Target{Node: "b"}, conf.FenceOff, nil)
		kept := 0
		if len(out.Attempts) > 0 {
			kept = len(out.Attempts[0].Error)
		}
		if err == nil || kept > keptOutput+200 {
			t.Errorf("%d bytes: %.200v", kept, err)
		}
		if kept >= 1000 {
			return
		}
	}
	t.Error("nothing of its output is kept")
}

func TestAChildThatKeepsThePipeHoldsNothingUp(t *testing.T) {
	f, dir := scripted(t, `setsid sleep 1000 & echo $! >child; exit 0`, nil)
	began := time.Now()
	out, err := f.Fence(t.Context(), Target{Node: "b"}, conf.FenceOff, nil)
	took(t, began, 15*time.Second)
	if err != nil || !out.Done {
		t.Errorf("%+v, %v", out, err)
	}
	// It has left the group on purpose, and only the test ends it.
	pid, err := strconv.Atoi(strings.TrimSpace(read(t, dir+"/child")))
	if err != nil || unix.Kill(pid, unix.SIGKILL) != nil {
		t.Errorf("the child %d: %v", pid, err)
	}
}

func TestSecretsAreStars(t *testing.T) {
	const password = "p&ss wörd"
	t.Setenv("FENCE_TOKEN", "tok-en")
	file := secretFile(t, password+"\r\n")
	f, _ := scripted(t, `
head -c 5000 /dev/zero | tr '\0' x
for i in $(seq 400); do printf '%s%s ' "$password" "$token"; done
echo "login=$password url=http://h/?p=p%26ss+w%C3%B6rd basic $(printf %s "$password" | base64)" >&2
exit 1`, func(d *conf.FenceDevice) {
		d.Params = map[string]conf.Param{"password": {File: file}, "token": {Env: "FENCE_TOKEN"}}
	})
	_, err := f.Fence(t.Context(), Target{Node: "b"}, conf.FenceOff, nil)
	if err == nil || !strings.Contains(err.Error(), "login=**** url=http://h/?p=**** basic ****") {
		t.Errorf("says %v", err)
	}
	for _, piece := range []string{"wörd", "p&ss", "tok", "en ", "C3%B6"} {
		if err != nil && strings.Contains(err.Error(), piece) {
			t.Errorf("%q of a secret is in: %v", piece, err)
		}
	}
	s := secret("hunter2")
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%v %s %q %x %#v %d", s, s, s, s, s, s), fmt.Sprintf("%+v", params{values: map[string]secret{"a": s}, secrets: []secret{s}})} {
		if strings.Contains(text, "hunter") || strings.Contains(text, "68756e") {
			t.Errorf("printed as %s", text)
		}
	}
}

func TestSecretsHaveToBeKeptWell(t *testing.T) {
	dir := t.TempDir()
	make := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	open := make("open", "x", 0o640)
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		p    conf.Param
		want string
	}{
		{"readable by the group", conf.Param{File: open}, "others than its owner have rights on it (mode 0640); chmod 600 " + open},
		{"missing", conf.Param{File: dir + "/none"}, "no such file"},
		{"a FIFO", conf.Param{File: fifo}, "not a file"},
		{"a directory", conf.Param{File: dir}, "not a file"},
		{"empty", conf.Param{File: make("empty", "\nx\n", 0o600)}, "its first line is empty"},
		{"with a control character", conf.Param{File: make("odd", "a\x00b\n", 0o600)}, "a line break or another control character"},
		{"a variable that is not set", conf.Param{Env: "NO_SUCH_VARIABLE_HERE"}, "has no variable NO_SUCH_VARIABLE_HERE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := resolve(map[string]conf.Param{"password": c.p}, os.LookupEnv)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "parameter password: ") {
				t.Errorf("says %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestAProgramThatOthersCanChangeIsNotRun(t *testing.T) {
	for mode, want := range map[os.FileMode]string{
		0o775: "group or others may write to it (mode 0775); chmod go-w", 0o757: "chmod go-w", 0o644: "not executable; chmod +x",
	} {
		f, dir := scripted(t, "touch ran; exit 0", nil)
		if err := os.Chmod(dir+"/fence.sh", mode); err != nil {
			t.Fatal(err)
		}
		out, err := f.Fence(t.Context(), Target{Node: "b"}, conf.FenceOff, nil)
		if err == nil || !strings.Contains(err.Error(), want) || len(out.Attempts) != 1 {
			t.Errorf("mode %o: %+v, %v", mode, out, err)
		}
		if _, err := os.Stat(dir + "/ran"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("mode %o: it ran", mode)
		}
		if err := f.Can("b"); !errors.Is(err, ErrNoDevice) || !strings.Contains(err.Error(), want) {
			t.Errorf("mode %o: Can says %v", mode, err)
		}
	}
}

func TestVariablesOfTheLoaderAreRefused(t *testing.T) {
	for _, name := range []string{"PATH", "LD_PRELOAD", "BASH_ENV", "PYTHONPATH", "KEEPBEAT_NODE", "with-dash"} {
		f, dir := scripted(t, "touch ran", func(d *conf.FenceDevice) { d.Params = map[string]conf.Param{name: {Value: "/x"}} })
		if _, err := f.Fence(t.Context(), Target{Node: "b"}, conf.FenceOff, nil); err == nil || !strings.Contains(err.Error(), "parameter "+name) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(dir + "/ran"); err == nil {
			t.Errorf("%s: it ran", name)
		}
	}
}

func TestAScriptIsLookedAtByMonitor(t *testing.T) {
	for text, want := range map[string]string{
		`[ "$1 $2" = "monitor b" ]`:     "",
		`exit 3`:                        "",
		`echo no power; exit 1`:         "exit status 1: no power",
		`sleep 1000`:                    "killed: no answer within 1s",
		`[ "$KEEPBEAT_PORT" = "vm 7" ]`: "",
	} {
		limit := 20 * time.Second
		if strings.HasPrefix(text, "sleep") {
			limit = time.Second
		}
		f, _ := scripted(t, text, within(limit))
		list, err := f.Test(t.Context(), "")
		if err != nil || len(list) != 1 || list[0].Error != want || !list[0].Here || list[0].Checked.IsZero() {
			t.Errorf("%s: %+v, %v", text, list, err)
		}
		if st := f.Status(); st[0].Error != want {
			t.Errorf("status: %+v", st)
		}
	}
	f, _ := scripted(t, "", nil)
	if _, err := f.Test(t.Context(), "hock"); err == nil || err.Error() != `no device is called "hock"; did you mean "hook"?` {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Test(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestAProgramInADirectoryOfOthersIsNotRun(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test changes who may write to directories as root does")
	}
	dir := filepath.Join(t.TempDir(), "open")
	path := filepath.Join(dir, "agent")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := usable(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := usable(path); err == nil || !strings.Contains(err.Error(), dir+" may be written by everybody") {
		t.Errorf("got %v", err)
	}
}
