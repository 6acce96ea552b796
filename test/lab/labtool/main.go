// Command labtool is what the lab runs inside its hosts: the first process of a
// host, responders, clients, servers; and what starts a program in the lab
// kernel. The package test/lab wraps it; it is of use by hand as well.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sort"
	"syscall"
)

// exitError ends the program with a status that is not 1, and says nothing more.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

type command struct {
	usage string
	run   func(ctx context.Context, args []string) error
}

func commands() map[string]command {
	return map[string]command{
		"hold":       {"NAME MOUNTS...: be the first process of a host (for the lab only)", hold},
		"uml-init":   {"be the first process of the lab kernel (for the lab only)", umlInit},
		"respond":    {"-name NAME: answer probes on every address", respond},
		"probe":      {"-to ADDRESS [-interval 1ms]: ask a responder; a JSON line an answer, a summary at the end", ask},
		"http":       {"-url URL [-interval 5ms] [-timeout 1s] [-keep] [-serial]: fetch a page; a JSON line each, a summary at the end", getHTTP},
		"httpd":      {"-name NAME ADDRESS:PORT...: be a real server; SIGUSR1 makes it sick, SIGUSR2 well", httpd},
		"kernel":     {"[-uml] [-mem 1G] [-timeout 10m] [-pass DIR]... -- PROGRAM ARGS...: run in a kernel with IPVS", inKernel},
		"kerneltest": {"[-run REGEXP] [-timeout 10m] PACKAGE...: run tests tagged labkernel in a kernel with IPVS", kernelTest},
	}
}

func main() {
	all := commands()
	if len(os.Args) < 2 || all[os.Args[1]].run == nil {
		fmt.Fprintln(os.Stderr, "usage: labtool COMMAND ...")
		var names []string
		for name := range all {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			fmt.Fprintf(os.Stderr, "  %s %s\n", name, all[name].usage)
		}
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := all[os.Args[1]].run(ctx, os.Args[2:])
	var status exitError
	switch {
	case err == nil:
	case errors.As(err, &status):
		os.Exit(int(status))
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	default:
		fmt.Fprintf(os.Stderr, "labtool %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

// noMore refuses arguments that nobody asked for.
func noMore(flags *flag.FlagSet) error {
	if flags.NArg() > 0 {
		return fmt.Errorf("%q: not understood; this command takes flags only", flags.Arg(0))
	}
	return nil
}
