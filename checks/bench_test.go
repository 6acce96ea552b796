package checks

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

const serverEnv = "KEEPBEAT_BENCH_SERVER"

// serveForBenchmark is this test binary as the real servers: one process that
// answers on all of 127.0.0.0/8. It prints its port and ends with its input.
func serveForBenchmark() {
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	answer := []byte("HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/html\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")
	for {
		c, err := l.Accept()
		if err != nil {
			os.Exit(1)
		}
		go func() {
			defer c.Close()
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				c.Write(answer)
			}
		}()
	}
}

func benchServer(b *testing.B) uint16 {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serverEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	port, err := strconv.ParseUint(line[:len(line)-1], 10, 16)
	if err != nil {
		b.Fatal(err)
	}
	return uint16(port)
}

func cpuTime() time.Duration {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkHTTPCheck is the cost of one HTTP check, one after the other.
func BenchmarkHTTPCheck(b *testing.B) {
	port := benchServer(b)
	c := httpAt(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String())
	c.Receive = "ok"
	k, err := NewChecker(c)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	before := cpuTime()
	for b.Loop() {
		ctx, cancel := context.WithTimeout(b.Context(), c.Timeout)
		if _, err := k.Check(ctx); err != nil {
			b.Fatal(err)
		}
		cancel()
	}
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
}

// BenchmarkScheduledHTTP runs N servers' checks each second for some seconds
// and prints one line of JSON for each N. Run it with -benchtime=1x.
func BenchmarkScheduledHTTP(b *testing.B) {
	const seconds = 6
	for _, n := range []int{10, 100, 1000, 5000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			port := benchServer(b)
			s := NewScheduler(Config{})
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			checks := make([]conf.Check, n)
			for i := range checks {
				a := netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)})
				checks[i] = httpAt(netip.AddrPortFrom(a, port).String())
				checks[i].Receive = "ok"
				s.Subscribe(checks[i], nil)
			}
			time.Sleep(1500 * time.Millisecond) // the first round is closer together
			runtime.GC()                        // compiling and the first round are over
			before, cpu, begin := s.Stats(), cpuTime(), time.Now()
			time.Sleep(seconds * time.Second) // real checks a second are what is measured
			after, took := s.Stats(), time.Since(begin)
			cpu = cpuTime() - cpu
			up := 0
			for _, c := range checks {
				if st, _ := s.Status(c); st.Up {
					up++
				} else {
					b.Log(c.Target, st)
				}
			}
			var mem runtime.MemStats
			runtime.ReadMemStats(&mem)
			runs := after.Runs - before.Runs
			line, err := json.Marshal(map[string]any{
				"servers":           n,
				"missed":            after.Missed - before.Missed,
				"waits":             after.Waits - before.Waits,
				"checks_per_s":      round(float64(runs) / took.Seconds()),
				"cpu_s_per_1000":    round(cpu.Seconds() * 1000 / float64(runs)),
				"cpu_percent":       round(100 * cpu.Seconds() / took.Seconds()),
				"late_p99_ms_below": latePercentile(before, after, 0.99),
				"late_max_ms_below": latePercentile(before, after, 1),
				"start_late_ms":     round(before.MaxLate.Seconds() * 1000),
				"up":                up,
				"rss_mib":           round(rss()),
				"heap_mib":          round(float64(mem.HeapInuse) / (1 << 20)),
			})
			if err != nil {
				b.Fatal(err)
			}
			fmt.Println(string(line))
			cancel()
			if err := <-done; err != nil {
				b.Error(err)
			}
		})
	}
}

func round(f float64) float64 { return float64(int64(f*10000+0.5)) / 10000 }

func latePercentile(before, after Stats, p float64) float64 {
	total := after.Runs - before.Runs
	var sum uint64
	for i := range after.Late {
		if sum += after.Late[i] - before.Late[i]; float64(sum) >= p*float64(total) {
			return (64 * time.Microsecond << i).Seconds() * 1000
		}
	}
	return -1
}

func rss() float64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, resident int
	fmt.Sscan(string(b), &size, &resident)
	return float64(resident*os.Getpagesize()) / (1 << 20)
}
