package watchdog

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// programVariable names the program under test; built from the tree where it is not given.
const programVariable = "KEEPBEAT_BIN"

// haYAML is a cluster of one node: what is asked here needs no other.
const haYAML = `cluster: lab
name: alone
nodes: {alone: {}}
links:
  - bcast: hb0
  - bcast: hb1
authkeys: %[1]s/authkeys
data_dir: %[1]s/data
run_dir: %[1]s/run
watchdog: {device: /dev/watchdog, timeout: 3s}
`

// startKeepbeat starts the program under test in the lab kernel, with a
// watchdog, and waits until it has armed it.
func (s *stage) startKeepbeat() error {
	program := os.Getenv(programVariable)
	if program == "" {
		return errors.New("the program under test is not named: " + programVariable)
	}
	dir, err := os.MkdirTemp("", "keepbeat")
	if err != nil {
		return err
	}
	files := map[string]string{
		"ha.yaml": fmt.Sprintf(haYAML, dir), "authkeys": "auth 1\n1 sha1 a-secret-of-the-lab-only\n",
		"haresources.yaml": "groups:\n  web: {resources: [{vip: 192.168.56.200/24/hb0}]}\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	for i, link := range []string{"hb0", "hb1"} {
		for _, args := range [][]string{
			{"link", "add", link, "type", "dummy"}, {"addr", "add", fmt.Sprintf("192.168.%d.1/24", 56+i), "dev", link}, {"link", "set", link, "up"},
		} {
			if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
				return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
			}
		}
	}
	s.daemon = exec.Command(program, "run", "--config", filepath.Join(dir, "ha.yaml"))
	out, err := s.daemon.StderrPipe()
	if err != nil {
		return err
	}
	if err := s.daemon.Start(); err != nil {
		return err
	}
	armed := make(chan error, 1)
	go func() {
		lines, told := bufio.NewScanner(out), false
		for lines.Scan() {
			fmt.Println(lines.Text())
			if !told && strings.Contains(lines.Text(), "watchdog armed") {
				told = true
				armed <- nil
			}
		}
		if !told {
			armed <- errors.New("keepbeat has ended without arming the watchdog")
		}
	}()
	select {
	case err := <-armed:
		return err
	case <-time.After(30 * time.Second):
		return errors.New("keepbeat has not armed the watchdog within 30 s")
	}
}

func init() {
	stories["keepbeat itself, stopped by SIGSTOP"] = story{
		play: func(s *stage) error {
			if err := s.startKeepbeat(); err != nil {
				return err
			}
			time.Sleep(5 * time.Second)
			if err := errors.Join(s.mark(), s.signal(unix.SIGSTOP)); err != nil {
				return err
			}
			return s.doomed()
		},
		want: reset, within: 3 * time.Second, says: "watchdog armed",
	}
	stories["keepbeat itself, at rest and then stopped as an administrator does"] = story{
		play: func(s *stage) error {
			if err := s.startKeepbeat(); err != nil {
				return err
			}
			time.Sleep(8 * time.Second)
			if err := errors.Join(s.signal(unix.SIGTERM), s.ends()); err != nil {
				return err
			}
			time.Sleep(5 * time.Second)
			return nil
		},
		want: lives, says: "watchdog armed",
	}
}
