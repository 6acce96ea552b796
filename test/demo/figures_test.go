package main

import (
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/test/lab/probe"
)

func at(ms int64) probe.Instant { return probe.Instant(ms * int64(time.Millisecond)) }

func page(sent, received int64, who string) probe.Sample {
	return probe.Sample{Sent: at(sent), Received: at(received), Who: who}
}

func failure(sent, received int64) probe.Sample {
	return probe.Sample{Sent: at(sent), Received: at(received), Error: "refused"}
}

func TestOnlyWhatGoesWrongOutsideOfEveryWindowIsAnError(t *testing.T) {
	death := window{name: "death", from: at(100), to: at(200)}
	fallback := window{name: "fallback", from: at(300), to: at(400), onlyFallback: true}
	for name, c := range map[string]struct {
		sample  probe.Sample
		excused [2]int
		errors  int
	}{
		"a page of a real server":                      {page(10, 12, "rs1"), [2]int{}, 0},
		"a failure before the window":                  {failure(10, 99), [2]int{}, 1},
		"a failure that was under way when it began":   {failure(90, 110), [2]int{1, 0}, 0},
		"a failure inside":                             {failure(120, 130), [2]int{1, 0}, 0},
		"a failure sent before it ended":               {failure(199, 2000), [2]int{1, 0}, 0},
		"a failure sent after it ended":                {failure(201, 202), [2]int{}, 1},
		"a fallback page while a real server is well":  {page(210, 211, "fallback"), [2]int{}, 1},
		"a fallback page at a takeover":                {page(150, 151, "fallback-director2"), [2]int{1, 0}, 0},
		"a fallback page where it is right":            {page(310, 311, "fallback-director2"), [2]int{0, 1}, 0},
		"a failure where the fallback should answer":   {failure(310, 311), [2]int{}, 1},
		"a real server's page where the fallback may":  {page(310, 311, "rs2"), [2]int{}, 0},
		"a failure that lasts from window into window": {failure(150, 350), [2]int{1, 0}, 0},
	} {
		v := judge([]probe.Sample{c.sample}, []window{death, fallback})
		if v.requests != 1 || len(v.errors) != c.errors || v.excused[0] != c.excused[0] || v.excused[1] != c.excused[1] {
			t.Errorf("%s: %+v, want excused %v, errors %d", name, v, c.excused, c.errors)
		}
	}
}

func TestAnOpenWindowHasNoEnd(t *testing.T) {
	if v := judge([]probe.Sample{failure(1000, 2000)}, []window{{from: at(100)}}); v.excused[0] != 1 {
		t.Errorf("%+v", v)
	}
}

func TestTheFirstPageIsTheOneReceivedFirstOfThoseSentAfterwards(t *testing.T) {
	samples := []probe.Sample{page(90, 105, "rs1"), failure(101, 102), page(102, 300, "rs1"), page(110, 120, "fallback"), page(150, 160, "rs2")}
	if s, ok := firstPage(samples, at(100), isReal); !ok || s.Received != at(160) {
		t.Errorf("real: %v, %+v", ok, s)
	}
	if s, ok := firstPage(samples, at(100), isFallback); !ok || s.Received != at(120) {
		t.Errorf("fallback: %v, %+v", ok, s)
	}
	if s, ok := firstPage(samples, at(400), isReal); ok {
		t.Errorf("none was sent so late: %+v", s)
	}
}

func TestTheTableOfIPVSIsReadAsTheKernelShowsIt(t *testing.T) {
	got := weights(`IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  C0A838C8:0051 wlc
  -> C0A83868:0050      Route   7      0          0
UDP  C0A838C8:0050 rr
  -> C0A83868:0050      Route   8      0          0
TCP  C0A838C8:0050 wlc
  -> C0A83867:0050      Route   0      3          12
  -> 7F000001:0050      Local   1      0          0
  -> C0A83868
FWM  00000007 twos
  -> C0A83868:0050      Route   9      0          0
`)
	if len(got) != 2 || got[real1] != 0 || got[local] != 1 {
		t.Errorf("%v", got)
	}
}

func TestTheProfileOfTheExampleIsReplaced(t *testing.T) {
	const ha = "cluster: c\nprofile: default\nauthkeys: /x\n"
	if got := withProfile(ha, "calm"); got != "cluster: c\nauthkeys: /x\nprofile: calm\n" {
		t.Errorf("%q", got)
	}
	if got := withProfile(ha, ""); got != ha {
		t.Errorf("%q", got)
	}
}
