package main

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/resources/ipvs"
)

func real(i int) netip.AddrPort { return netip.AddrPortFrom(serverAddress(i), 8080) }

func TestAServerThatLeavesTheTableIsTimedFromItsFailure(t *testing.T) {
	w := newWatched(3)
	w.put(real(0), 1)
	w.put(real(1), 1)
	if full, n := w.filled(); !full.IsZero() || n != 2 {
		t.Errorf("full with %d of 3", n)
	}
	w.put(real(2), 1)
	w.remove(real(2)) // before the failure: it does not count
	told := time.Now()
	w.remove(real(0))
	w.remove(real(1))
	w.put(real(1), 1) // it came back
	all, others := w.removed(told, 8080, 1)
	if full, _ := w.filled(); full.IsZero() || len(all) != 1 || others != 0 {
		t.Errorf("full at %v, removed %v, others %d", full, all, others)
	}
	w.set(map[netip.AddrPort]int{real(2): 1})
	if _, others := w.removed(told, 8080, 1); others != 1 {
		t.Errorf("%d went without having failed, want the one that set left out", others)
	}
}

// ldirectord reads these lines by their columns.
func TestTheStandInForIpvsadmAnswersAsThatDoes(t *testing.T) {
	l := &lookout{seen: newWatched(2)}
	run := func(args string) string {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			l.hear(theirs)
		}()
		if _, err := io.WriteString(ours, "ipvsadm "+args+"\n"); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(ours)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	head := strings.Count(run("-L -n"), "\n")
	said := run("-A -t 10.255.0.1:80 -s wlc") + run("-a -t 10.255.0.1:80 -r 127.1.0.0:8080 -m -w 1") +
		run("-a -t 10.255.0.1:80 -r 127.1.0.1:8080 -m -w 1") + run("-e -t 10.255.0.1:80 -r 127.1.0.0:8080 -m -w 0") +
		run("-d -t 10.255.0.1:80 -r 127.1.0.1:8080")
	list, thresholds := strings.Split(run("-L -n"), "\n"), run("-L -n --thresholds")
	if head != 3 || said != "" || len(list) != 6 || list[3] != "TCP  10.255.0.1:80 wlc" ||
		strings.Join(strings.Fields(list[4]), " ") != "-> 127.1.0.0:8080 Masq 0 0 0" || !strings.Contains(thresholds, "-> 127.1.0.0:8080               0          0 ") {
		t.Errorf("%q\n%s", list, thresholds)
	}
}

func TestTheStandInOfThePoolDoesWhatItIsTold(t *testing.T) {
	ours, theirs := net.Pipe()
	l := &lookout{seen: newWatched(10)}
	heard := make(chan struct{})
	go func() { defer close(heard); l.hear(theirs) }()
	table := &toldTable{entries: map[ipvs.Key]*ipvs.Entry{}, out: ours}
	for _, wanted := range [][]ipvs.Entry{tableOf(1, 10, 1), tableOf(1, 5, 3), nil, tableOf(1, 7, 0)} {
		var keys []ipvs.Key
		for _, e := range tableOf(1, 1, 1) {
			keys = append(keys, e.Service.Key)
		}
		actual, err := table.List(t.Context(), keys)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := table.Apply(t.Context(), ipvs.Diff(wanted, actual)); err != nil {
			t.Fatal(err)
		}
		if actual, err = table.List(t.Context(), keys); err != nil {
			t.Fatal(err)
		}
		if got, want := ipvs.Text(actual), ipvs.Text(wanted); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	ours.Close()
	<-heard
	if full, n := l.seen.filled(); full.IsZero() || n != 7 {
		t.Errorf("the benchmark has seen %d servers, full at %v", n, full)
	}
}
