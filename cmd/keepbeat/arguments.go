package main

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/spf13/cobra"
)

// placeholder is a word of a usage line that stands for an argument.
var placeholder = regexp.MustCompile(`(?:^| )([A-Z]+)\b`)

// exactly wants n arguments, and says which one is missing.
func exactly(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) >= n {
			return atMost(n)(c, args)
		}
		names := placeholder.FindAllStringSubmatch(c.Use, -1)
		if len(args) < len(names) {
			return fmt.Errorf("%s is missing", names[len(args)][1])
		}
		return fmt.Errorf("%d arguments are wanted, and there are %d", n, len(args))
	}
}

func atMost(n int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > n {
			return fmt.Errorf("%q is one word too many", args[n])
		}
		return nil
	}
}

// noWords wants none, or of a command that has others below it one of these.
func noWords(c *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case !c.HasSubCommands():
		return atMost(0)(c, args)
	case !c.HasParent() && (args[0] == "start" || args[0] == "stop"):
		return errors.New("the daemon is started and stopped by systemd: systemctl " + args[0] + " keepbeat")
	case !c.HasParent() && args[0] == "reload":
		return errors.New("vrrp.yaml is read again by `keepbeat vrrp reload`, and what belongs to a cluster by `keepbeat apply`")
	}
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		return fmt.Errorf("unknown command %q; did you mean %q?", args[0], near[0])
	}
	return fmt.Errorf("unknown command %q", args[0])
}

// span is a duration of a command line. It says how one is written, which Go's does not.
type span struct{ *time.Duration }

func (s span) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil {
		return errors.New("a time is written like 30s, 10m or 2h30m")
	}
	*s.Duration = d
	return nil
}

func (s span) Type() string { return "duration" }

// String is empty for no time at all, so that help shows no default.
func (s span) String() string {
	if s.Duration == nil || *s.Duration == 0 {
		return ""
	}
	return s.Duration.String()
}
