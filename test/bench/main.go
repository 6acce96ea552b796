// Command bench measures what DESIGN promises in figures, and prints one JSON
// object on standard output; what it is doing goes to standard error. It shows
// budgets beside figures and fails only when it could not measure.
//
//	bench failover [-profile default,fast] [-event all] [-n 5]
//	               [-compare all] [-system all] [-short-n 4] [-lasting-n 1] [-peers]
//	bench failover -event router [-short-n 4] [-peers]
//	bench vrrp     [-for 10s] [-part lateness,thousand] [-peers]
//	bench checks   [-servers 10,100,1000,5000] [-for 10s] [-peers] [-system all] [-patience 6m]
//	               [-kernel]         (in a kernel with IPVS: labtool kernel -- bench checks -kernel)
//	bench ipvs     [-n 5] [-peers]   (in a kernel with IPVS: labtool kernel -- bench ipvs)
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

func main() {
	commands := map[string]func(context.Context, []string) (any, error){
		"failover": failover, "checks": checking, "ipvs": programming, "vrrp": routers,
		"httpd": httpd, "pool": pool, // the real servers of `checks`, and our part, each in a process of its own
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: bench failover|checks|ipvs|vrrp [flags]")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	before := machine()
	result, err := commands[os.Args[1]](ctx, os.Args[2:])
	stop()
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if result != nil {
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "  ")
		if err := out.Encode(map[string]any{
			"benchmark": os.Args[1], "conditions": map[string]any{"before": before, "after": machine()}, "results": result,
		}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// choose reads a list of names; "all" and nothing are all of them, "none" is none.
func choose(flagName, list string, all []string) ([]string, error) {
	switch list {
	case "", "all":
		return all, nil
	case "none":
		return nil, nil
	}
	chosen := strings.Split(list, ",")
	for _, c := range chosen {
		if !slices.Contains(all, c) {
			return nil, fmt.Errorf("-%s %s: there are %s", flagName, c, strings.Join(all, ", "))
		}
	}
	return chosen, nil
}

// parse parses flags and refuses what is not one.
func parse(f *flag.FlagSet, args []string) error {
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%q: not understood; there are flags only", f.Arg(0))
	}
	return nil
}
