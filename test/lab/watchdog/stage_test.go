package watchdog

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/test/lab/uml"
)

// The test binary is everything: the test here, the lab kernel's first process,
// the story that runs in the lab kernel, and the daemon that it is about.
const (
	roleVariable  = "KEEPBEAT_WATCHDOG_ROLE" // "daemon", or the name of a story
	stageVariable = "KEEPBEAT_WATCHDOG_DIR"  // a directory of the machine that outlives the lab kernel
)

func TestMain(m *testing.M) {
	var err error
	switch role := os.Getenv(roleVariable); {
	case os.Getenv(uml.SpecVariable) != "" && os.Getpid() == 1:
		err = uml.Init(os.Getenv(uml.SpecVariable))
	case role == "daemon":
		err = daemon()
	case role != "":
		err = play(role, os.Getenv(stageVariable))
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// stage is where a story plays, in the lab kernel.
type stage struct {
	dir    string
	daemon *exec.Cmd
	lines  *bufio.Scanner
}

// play counts a boot of the lab kernel. In the first one the story plays; if there is a second, it was reset.
func play(name, dir string) error {
	if err := insideLabKernel(); err != nil {
		return err
	}
	boots, err := os.OpenFile(filepath.Join(dir, "boots"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer boots.Close()
	if _, err := boots.WriteString("boot\n"); err != nil {
		return err
	}
	if st, err := boots.Stat(); err != nil || st.Size() > int64(len("boot\n")) {
		return err
	}
	s := &stage{dir: dir}
	return stories[name].play(s)
}

// start starts the daemon and waits until it has armed the watchdog.
func (s *stage) start(env ...string) error {
	s.daemon = exec.Command("/proc/self/exe")
	s.daemon.Env = append(os.Environ(), append(env, roleVariable+"=daemon")...)
	s.daemon.Stderr = os.Stderr
	out, err := s.daemon.StdoutPipe()
	if err != nil {
		return err
	}
	s.lines = bufio.NewScanner(out)
	if err := s.daemon.Start(); err != nil {
		return err
	}
	return s.says("armed ")
}

// says waits for a line that begins so.
func (s *stage) says(want string) error {
	if !s.lines.Scan() {
		return fmt.Errorf("the daemon ended; it should have said %q", want)
	}
	if !strings.HasPrefix(s.lines.Text(), want) {
		return fmt.Errorf("the daemon said %q, not %q", s.lines.Text(), want)
	}
	fmt.Println(s.lines.Text())
	return nil
}

func (s *stage) signal(sig syscall.Signal) error { return s.daemon.Process.Signal(sig) }

// ends waits until the daemon has ended well.
func (s *stage) ends() error { return s.daemon.Wait() }

// mark notes the instant from which a reset is counted.
func (s *stage) mark() error {
	return os.WriteFile(filepath.Join(s.dir, "mark"), []byte(strconv.FormatInt(time.Now().UnixNano(), 10)), 0o600)
}

// doomed waits for the reset, which has to come.
func (s *stage) doomed() error {
	time.Sleep(40 * time.Second)
	return fmt.Errorf("the lab kernel was not reset")
}

// end is how a story ended, seen from the machine.
type end struct {
	boots  int
	err    error  // of the lab kernel, with its last words
	status int    // of the story
	said   string // by the story and the daemon
	after  time.Duration
}

// softdogWord is softdog's last before it resets. A reset of user-mode Linux is a second boot, or
// its end in an abort: that where it comes from the interrupt of softdog's timer while a program runs.
const softdogWord = "softdog: Initiating system reboot"

// hung says that the lab kernel stood still until its time was over. A story in
// one that runs on has said long before that it was not reset (doomed): now and
// then user-mode Linux hangs in the reset itself.
func (e end) hung() bool { return e.boots == 1 && errors.Is(e.err, context.DeadlineExceeded) }

func (e end) reset() bool {
	return e.boots == 2 && e.err == nil && e.status == 0 || e.boots == 1 && e.err != nil && strings.Contains(e.err.Error(), softdogWord)
}

func run(t *testing.T, name string) end {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := uml.FindKernel(ctx, root)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := underTest(root)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// The lab kernel has a /tmp of its own; what is in dir it sees.
	if b, err := os.ReadFile(program); err != nil {
		t.Fatal(err)
	} else if err := os.WriteFile(filepath.Join(dir, "keepbeat"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	var said buffer
	var e end
	e.status, e.err = uml.Run(ctx, uml.Config{
		Kernel: kernel, Init: self, Args: []string{self}, Memory: 256,
		Env:    []string{"PATH=" + os.Getenv("PATH"), programVariable + "=" + filepath.Join(dir, "keepbeat"), roleVariable + "=" + name, stageVariable + "=" + dir},
		Pass:   []string{dir},
		Stdout: &said, Stderr: &said,
	})
	ended := time.Now()
	e.said = said.String()
	b, err := os.ReadFile(filepath.Join(dir, "boots"))
	if err != nil {
		t.Fatalf("the story has not begun: %v; %v\n%s", err, e.err, e.said)
	}
	e.boots = strings.Count(string(b), "boot\n")
	if b, err := os.ReadFile(filepath.Join(dir, "mark")); err == nil {
		n, err := strconv.ParseInt(string(b), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		e.after = ended.Sub(time.Unix(0, n))
	}
	return e
}

// underTest returns the program under test, built from the tree unless it is given.
var underTest = func() func(root string) (string, error) {
	var once sync.Once
	var path string
	var err error
	return func(root string) (string, error) {
		if given := os.Getenv(programVariable); given != "" {
			return given, nil
		}
		once.Do(func() {
			path = filepath.Join(os.TempDir(), fmt.Sprintf("keepbeat-%d", os.Getpid()))
			cmd := exec.Command("go", "build", "-o", path, "./cmd/keepbeat")
			cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
			if out, berr := cmd.CombinedOutput(); berr != nil {
				err = fmt.Errorf("%w: %s", berr, out)
			}
		})
		return path, err
	}
}()

type buffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
