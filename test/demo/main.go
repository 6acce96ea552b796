// Command demo plays the story of a pair of directors on a network in the lab:
// real IPVS, real HTTP, keepbeat as an operator runs it. `make demo` runs it in a
// kernel with IPVS. It narrates each step, exits 0 only if every step was seen to
// be true, and prints the figures as one JSON object on the last line:
//
//	takeover_ms      from the death of the owner to the client's first page
//	standby_ms       for which the VIP was silent at hb_standby
//	failback_ms      the same when the preferred director took back
//	server_out_ms    from the end of a web server to weight 0 in the kernel's table
//	link_cut_moves   how often the group moved while one of two links was cut
//	hang_silent_ms   from SIGSTOP of the owner's daemon to its host's last answer for the VIP
//	double_owner_ms  for which both directors answered for the VIP, in the whole story
//	client_errors    requests that failed, or were answered by the fallback, outside
//	                 of the windows that the story announces and prints at its end
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/uml"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	profile := flag.String("profile", "", "profile instead of the files' own: fast, default, calm (by itself calm in the lab kernel)")
	flag.Parse()
	if flag.NArg() > 0 || *profile != "" && leaseOf(*profile) == 0 {
		fmt.Fprintln(os.Stderr, "usage: demo [-profile fast|default|calm]")
		os.Exit(2)
	}
	if *profile == "" && uml.Inside() {
		// One processor, on which a system call takes thirty microseconds, runs
		// three daemons and everybody else.
		*profile = conf.ProfileCalm.Name
	}
	n := newNarrator(os.Stdout)
	logf := func(format string, args ...any) {
		n.write(strings.TrimRight(fmt.Sprintf(format, args...), "\n") + "\n")
	}
	var f figures
	err := lab.Standalone(ctx, "demo", logf, func(t lab.TB) { f = play(&teller{t, n}, n, *profile) })
	if err != nil {
		n.write(fmt.Sprintf("\nThe demonstration FAILED in step %s\n", n.step))
		os.Exit(1)
	}
	line, err := json.Marshal(f)
	if err != nil {
		n.write(err.Error() + "\n")
		os.Exit(1)
	}
	n.write(fmt.Sprintf("\nEvery step was seen to be true, in %v.\n%s\n", time.Since(n.began).Round(time.Second), line))
}

// teller says at once what has failed, before the logs are shown.
type teller struct {
	lab.TB
	n *narrator
}

// Fatalf does not return.
func (t *teller) Fatalf(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	t.n.write("  FAILED    " + strings.ReplaceAll(what, "\n", "\n            ") + "\n")
	if t.n.expected != "" {
		t.n.write(fill("            ", "            ", "This was expected: "+t.n.expected))
	}
	t.n.write("\nWhat the daemons logged:\n")
	t.TB.Fatalf("%s", what)
}

// row is a line of the table of windows.
func row(name, length string, requests int, what string) string {
	return fmt.Sprintf("              %-24s %8s   %4d %s\n", name, length, requests, what)
}

// describe says of a request that went wrong when that was.
func describe(s probe.Sample, windows []window, began probe.Instant) string {
	what := s.Error
	if s.OK() {
		what = "answered by " + s.Who
	}
	after := "before every window"
	for _, w := range windows {
		if w.from <= s.Sent {
			after = fmt.Sprintf("%s after the window %q began", ms(s.Sent.Sub(w.from)), w.name)
		}
	}
	return fmt.Sprintf("at %.3f s, for %s, %s: %s", s.Sent.Sub(began).Seconds(), ms(s.Received.Sub(s.Sent)), after, what)
}

// leaseOf is the length of the lease in a profile of that name.
func leaseOf(profile string) time.Duration {
	for _, p := range []conf.Profile{conf.ProfileFast, conf.ProfileDefault, conf.ProfileCalm} {
		if p.Name == profile {
			return p.Lease
		}
	}
	return 0 // nothing is within it
}

// stateOf is the state of a node.
func stateOf(s cluster.Status, name string) string {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n.State
		}
	}
	return ""
}
