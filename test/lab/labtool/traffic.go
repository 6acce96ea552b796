package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/keepbeat/keepbeat/test/lab/probe"
)

func respond(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("respond", flag.ContinueOnError)
	name := flags.String("name", "", "what to answer")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := noMore(flags); err != nil {
		return err
	}
	return probe.Respond(ctx, *name)
}

func ask(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("probe", flag.ContinueOnError)
	var to netip.Addr
	flags.TextVar(&to, "to", netip.Addr{}, "the address to ask")
	interval := flags.Duration("interval", time.Millisecond, "time between two questions")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := noMore(flags); err != nil {
		return err
	}
	if !to.IsValid() {
		return errors.New("-to: which address?")
	}
	return recording(func(report func(probe.Sample)) error { return probe.Ask(ctx, to, *interval, report) })
}

func getHTTP(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("http", flag.ContinueOnError)
	var cfg probe.HTTPConfig
	flags.StringVar(&cfg.URL, "url", "", "the page to fetch")
	flags.DurationVar(&cfg.Interval, "interval", 5*time.Millisecond, "time between the starts of two requests")
	flags.DurationVar(&cfg.Timeout, "timeout", time.Second, "longest time for one request")
	keep := flags.Bool("keep", false, "keep connections instead of a new one for each request")
	flags.BoolVar(&cfg.Serial, "serial", false, "one request after the other: each waits for the answer to the one before")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := noMore(flags); err != nil {
		return err
	}
	if cfg.URL == "" {
		return errors.New("-url: which page?")
	}
	cfg.Close = !*keep
	return recording(func(report func(probe.Sample)) error { return probe.GetHTTP(ctx, cfg, report) })
}

// recording prints each sample as it comes, for who reads along, and at the end
// {"summary": ...}, for a person.
func recording(run func(report func(probe.Sample)) error) error {
	var (
		mu      sync.Mutex // guards what follows
		out     = bufio.NewWriterSize(os.Stdout, 64<<10)
		encoder = json.NewEncoder(out)
		samples []probe.Sample
		lost    error
	)
	from := probe.Now()
	err := run(func(s probe.Sample) {
		mu.Lock()
		defer mu.Unlock()
		samples = append(samples, s)
		if e := errors.Join(encoder.Encode(s), out.Flush()); e != nil {
			lost = e
		}
	})
	if err := errors.Join(err, lost); err != nil {
		return err
	}
	summary := struct {
		Summary probe.Summary `json:"summary"`
	}{probe.Summarize(samples, from, probe.Now())}
	return errors.Join(encoder.Encode(summary), out.Flush())
}

func httpd(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("httpd", flag.ContinueOnError)
	name := flags.String("name", "", "what / answers")
	if err := flags.Parse(args); err != nil {
		return err
	}
	server := &probe.HTTPServer{Name: *name, Listen: flags.Args()}
	health := make(chan os.Signal, 4)
	signal.Notify(health, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(health)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-health:
				server.SetSick(s == syscall.SIGUSR1)
				fmt.Println("sick:", s == syscall.SIGUSR1)
			}
		}
	}()
	return server.Serve(ctx, func() { fmt.Println("ready") })
}
