package main

import (
	"errors"
	"flag"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// comparisonOptions are the flags of a comparison as they were given.
type comparisonOptions struct {
	happenings, systems *string
	n, lastingN, lanes  *int
	lasting             *time.Duration
	peers               *bool
}

func comparisonFlags(f *flag.FlagSet) comparisonOptions {
	return comparisonOptions{
		happenings: f.String("compare", "all", "events that each system lives through, with commas between; none"),
		systems:    f.String("system", "all", "systems that are compared: parts of their names, with commas between"),
		peers:      f.Bool("peers", false, "compare keepalived and heartbeat, too"),
		n:          f.Int("short-n", 4, "how often death, stop and standby happen to each system; to heartbeat with a deadtime of 10 s half as often"),
		lastingN:   f.Int("lasting-n", 1, "how often what lasts happens to each system: cable, partition, cut, freeze, kill"),
		lasting:    f.Duration("lasting", 12*time.Second, "how long that lasts"),
		lanes:      f.Int("lanes", 5, "how many systems live through that at the same time"),
	}
}

// routers leaves the routers of VRRP, and what may befall any of them.
func (o comparisonOptions) routers() { *o.systems, *o.happenings = "advert_int", "death,stop" }

func (o comparisonOptions) parse() (c comparison, err error) {
	if *o.n < 0 || *o.lastingN < 0 || *o.lanes < 1 || *o.lasting < time.Second {
		return c, fmt.Errorf("-short-n %d -lasting-n %d -lanes %d -lasting %v: want at least 0, 0, 1 and 1s", *o.n, *o.lastingN, *o.lanes, *o.lasting)
	}
	c = comparison{n: *o.n, lastingN: *o.lastingN, lanes: *o.lanes, lasting: *o.lasting}
	if c.systems, err = chooseSystems(systems(*o.peers), *o.systems); err != nil {
		return c, err
	}
	var names []string
	for _, h := range happenings() {
		names = append(names, h.name)
	}
	chosen, err := choose("compare", *o.happenings, names)
	if err != nil {
		return c, err
	}
	for _, name := range chosen {
		for _, h := range happenings() {
			if h.name == name {
				c.happenings = append(c.happenings, h)
			}
		}
	}
	return c, nil
}

// method says how the rows came about.
func (c comparison) method() string {
	if len(c.happenings) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "each system on two directors of its own as namespaces of this kernel, with two heartbeat networks and a service network; the event befalls the owner of the address; "+
		"a pair's fencing device answers at once, and nothing is waited for before it; the client asks every %v by UDP; of two observers that ask every %v each can reach one director only; %d systems at a time live through what lasts, one through the rest. Events: ", askEvery, observeEvery, c.lanes)
	for i, h := range c.happenings {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s: %s", h.name, h.what)
		if h.lasting {
			fmt.Fprintf(&b, ", for %v", c.lasting)
		}
	}
	return b.String()
}

// table is the comparison for a person; milliseconds.
func table(rows []*Row) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "system\tconfiguration\tevent\tn\toutage min/med/p95/max\ttwo owners min/med/max\toutage afterwards max\tuntaken\tnoise\tload\tfsync\tnot measured")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t", r.System, r.Configuration, r.Event, r.Count)
		after := "-"
		if r.After != nil {
			after = fmt.Sprintf("%.0f", r.After.Max)
		}
		if r.Count > 0 {
			fmt.Fprintf(w, "%.0f / %.0f / %.0f / %.0f\t%.0f / %.0f / %.0f\t%s\t%d\t%.0f\t%.1f\t%.1f\t", r.Outage.Min, r.Outage.Median, r.Outage.P95, r.Outage.Max,
				r.TwoOwners.Min, r.TwoOwners.Median, r.TwoOwners.Max, after, r.Untaken, r.Noise, r.Load, r.Fsync)
		} else {
			fmt.Fprint(w, strings.Repeat("-\t", 7))
		}
		fmt.Fprintln(w, oneLine(r.NotMeasured))
	}
	w.Flush()
	return b.String()
}

// oneLine is the beginning of a message that may have many lines.
func oneLine(s string) string {
	const enough = 200
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > enough {
		s = s[:enough] + " ..."
	}
	return s
}

// failures names what should have been measured and was not; what a system does not have is none.
func failures(rows []*Row) error {
	var errs []error
	for _, r := range rows {
		if r.failed {
			errs = append(errs, fmt.Errorf("%s %s, %s: %s", r.System, r.Configuration, r.Event, oneLine(r.NotMeasured)))
		}
	}
	return errors.Join(errs...)
}
