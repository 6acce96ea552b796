package transport

import (
	"syscall"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/cluster/transport/memlink"
)

// BenchmarkIdleRaft prints what three idle raft nodes in one process cost, with
// heartbeats of the default profile: percent of a core for all three, and
// datagrams a second. The links of this benchmark cost nearly nothing; real ones
// add encryption and a system call for each link and datagram.
func BenchmarkIdleRaft(b *testing.B) {
	for _, c := range []struct {
		name  string
		how   func(*RaftConfig)
		plain bool
	}{
		{"heartbeats-as-datagrams", nil, false},
		{"heartbeats-over-streams", func(r *RaftConfig) { r.StreamHeartbeats = true }, false},
		{"rafts-own-transport", nil, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			n := memlink.New(memlink.Config{}, three...)
			links := map[string]*memlink.Node{}
			for i, name := range three {
				links[name] = n.Start(name, link.Boot(i+1))
			}
			ms := map[string]*member{}
			for _, name := range three {
				q, err := NewQUIC(QUICConfig{Self: name, Nodes: three, Datagrams: links[name], Keys: testKeys, Cluster: "test"})
				if err != nil {
					b.Fatal(err)
				}
				ms[name] = newMember(b, name, links[name], q, c.how, c.plain)
			}
			l := leader(b, ms, three...)
			apply(b, l, "one")
			time.Sleep(500 * time.Millisecond)
			const span = 4 * time.Second
			sent, cpu := n.Sent(link.ChannelQUIC)+n.Sent(link.ChannelRaft), cpuTime(b)
			for b.Loop() {
				time.Sleep(span)
			}
			total := time.Duration(b.N) * span
			b.ReportMetric(100*float64(cpuTime(b)-cpu)/float64(total), "%core")
			b.ReportMetric(float64(n.Sent(link.ChannelQUIC)+n.Sent(link.ChannelRaft)-sent)/total.Seconds(), "datagrams/s")
			b.ReportMetric(0, "ns/op")
			for _, m := range ms {
				m.stop(b)
			}
		})
	}
}

func cpuTime(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
