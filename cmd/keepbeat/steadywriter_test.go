package main

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// logged makes a log into a pipe or a socket that nobody reads yet.
func logged(t *testing.T, kind string) (log *slog.Logger, flush func(), reader *os.File) {
	t.Helper()
	t.Setenv("JOURNAL_STREAM", "")
	var r, w *os.File
	var err error
	if kind == "pipe" {
		r, w, err = os.Pipe()
	} else {
		var fds [2]int
		fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		r, w = os.NewFile(uintptr(fds[0]), "reader"), os.NewFile(uintptr(fds[1]), "writer")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(); _ = w.Close() })
	log, flush = newLogger(w, false)
	return log, flush, r
}

func TestALogThatNobodyReadsHoldsUpNobody(t *testing.T) {
	for _, kind := range []string{"pipe", "socket"} {
		t.Run(kind, func(t *testing.T) {
			log, flush, reader := logged(t, kind)
			const lines = 20000 // some megabytes, more than pipe and queue take
			for i := range lines {
				log.Info(strings.Repeat("x", 100), "n", i)
			}
			flush() // ends, though nobody reads

			// Whoever reads at last finds whole lines in order, and how many are
			// missing where: more than once, if the queue was begun anew meanwhile.
			next, lost := 0, 0
			in := bufio.NewScanner(reader)
			for next < lines && in.Scan() {
				text := in.Text()
				var n int
				_, message, _ := strings.Cut(text, "level=")
				if strings.HasPrefix(message, "WARN msg=\"lines of this log are lost") {
					if _, err := fmt.Sscanf(text[strings.LastIndex(text, "lines="):], "lines=%d", &n); err != nil || n == 0 {
						t.Fatalf("after %d lines: %q (%v)", next, text, err)
					}
					next, lost = next+n, lost+n
					continue
				}
				if _, err := fmt.Sscanf(message, "INFO msg="+strings.Repeat("x", 100)+" n=%d", &n); err != nil || n != next {
					t.Fatalf("line %d: %q (%v)", next, text, err)
				}
				next++
			}
			if next != lines || lost == 0 {
				t.Fatalf("%d of %d lines, %d of them lost (%v)", next, lines, lost, in.Err())
			}
			log.Info("after") // the reader takes it in time
			if !in.Scan() || !strings.HasSuffix(in.Text(), "msg=after") {
				t.Errorf("then came %q (%v)", in.Text(), in.Err())
			}
		})
	}
}

func TestALogThatIsReadIsCompleteAtTheEnd(t *testing.T) {
	log, flush, reader := logged(t, "pipe")
	got := make(chan int)
	go func() {
		n := 0
		in := bufio.NewScanner(reader)
		for in.Scan() && !strings.Contains(in.Text(), "the end") {
			n++
		}
		got <- n
	}()
	for i := range 3000 {
		log.Info("line", "n", i)
	}
	log.Info("the end")
	flush()
	if n := <-got; n != 3000 {
		t.Errorf("%d lines", n)
	}
}

func TestALogWhoseReaderHasGoneHoldsUpNobody(t *testing.T) {
	log, flush, reader := logged(t, "socket")
	_ = reader.Close()
	for range 1000 {
		log.Info("hello")
	}
	flush()
}
