package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// option matches where cobra's usage introduces an option, not where a text mentions one.
var option = regexp.MustCompile(`(?m)^ +(-\w, )?--[a-z-]+`)

func TestTheManualHasEveryCommandAndOption(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "man", "keepbeat.8"))
	if err != nil {
		t.Fatal(err)
	}
	manual := strings.ReplaceAll(string(b), `\-`, "-")
	a := &app{stdout: io.Discard, stderr: io.Discard}
	root, old := a.root(), a.clStatus()
	a.common(root)
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.HasParent() && !strings.Contains(manual, c.Name()) {
			t.Errorf("keepbeat.8 does not have %s", c.CommandPath())
		}
		for _, name := range option.FindAllString(c.LocalFlags().FlagUsages(), -1) {
			if name = name[strings.Index(name, "--"):]; c.Root() == root && !strings.Contains(manual, name) {
				t.Errorf("keepbeat.8 does not have %s of %s", name, c.CommandPath())
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	walk(old)
}
