package main

import (
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
)

func (s *story) forms() {
	s.begin("The cluster forms")
	began := probe.Now()
	shut := s.open("forming", s.pages.From, false)
	for _, h := range s.nodes() {
		s.start(h)
	}
	s.done("keepbeat starts on director1, director2 and arbiter, whose data directories are empty; no node is told to be the first.")
	s.expect("They hear each other on both links, and director1, which is preferred, owns the VIP and the table of IPVS.")
	page := s.page(began, "a real server", isReal)
	shut(page.Received)
	status := s.waitStatus(s.director1, "the group to be active on director1 and every link to be up", func(st cluster.Status) bool {
		up, all := links(st)
		return st.Leader != "" && len(st.Trouble) == 0 && activeOn(st, s.director1) && up == 4 && all == 4
	})
	s.wait("both real servers in the table", cheap, func() bool {
		w := s.weightsOn(s.director1)
		return w[real1] > 0 && w[real2] > 0
	})
	s.seen("The client had its first page %s after the daemons' start. Leader: %s. Profile: %s. 4 of 4 links of director1 are up.",
		ms(page.Received.Sub(began)), status.Leader, status.Profile)
	s.show(s.director1)
}

func (s *story) bothServersAnswer() {
	s.begin("The client reaches both real servers through the VIP")
	s.done("Nothing: ordinary traffic.")
	s.expect("wlc gives both about the same, as soon as what had waited for the cluster is served.")
	began := probe.Now()
	s.watch(2 * time.Second)
	since := began
	s.wait("two seconds in which each real server had more than a quarter of the pages", cheap, func() bool {
		since = max(began, probe.Now().Add(-2*time.Second))
		who := s.pages.Summary(since).Who
		all := who["rs1"] + who["rs2"]
		return all >= 10 && who["rs1"]*4 > all && who["rs2"]*4 > all
	})
	pages := s.served(since)
	s.command("director1", "ipvsadm -Ln", s.director1.Run("ipvsadm", "-Ln"))
	s.seen("Pages in two seconds: %s.", pages)
}

func (s *story) ownerDies() {
	s.begin("director1 dies")
	s.done("All its links are cut and all its processes killed, in the same instant.")
	s.expect("When its lease has run out director2 takes over, and the client has pages again.")
	died := s.director1.Die()
	shut := s.open("death of director1", died, false)
	_, first := s.moved(s.director1, s.director2, died)
	page := s.page(max(died, first.At), "a real server", isReal)
	shut(page.Received)
	takeover := page.Received.Sub(died)
	s.figures.Takeover = milliseconds(takeover)
	s.seen("director2 answered for the VIP after %s; the first page came %s after the death.", ms(first.Received.Sub(died)), ms(takeover))
	s.waitStatus(s.director2, "the group to be active on director2", func(st cluster.Status) bool { return activeOn(st, s.director2) })
	s.show(s.director2)
	s.watch(time.Second)
	s.alone()
}

func (s *story) ownerReturns() {
	s.begin("director1 returns, and takes back")
	s.done("It is switched on and its daemon starts, as at boot. auto_failback is on.")
	s.expect("The group goes back, handed over: director2 stops it before director1 starts it.")
	since := probe.Now()
	s.director1.Revive()
	s.startFallback(s.director1)
	s.start(s.director1)
	silent, page := s.handover("failback to director1", s.director2, s.director1, since)
	s.figures.Failback = milliseconds(silent)
	s.seen("The VIP was silent for %s; the first page came %s after director1's first answer.", ms(silent), ms(page))
	st := s.waitStatus(s.director1, "the group to be active on director1", func(st cluster.Status) bool { return activeOn(st, s.director1) })
	s.seen("Reason in the log: %s.", groupOf(st).Reason)
	s.watch(time.Second)
	s.alone()
}

func (s *story) standby() {
	s.begin("hb_standby on director1")
	s.done("heartbeat's old command, on director1.")
	s.expect("director1 gives its group to director2, and stays in the cluster.")
	since := probe.Now()
	out, err := s.hbStandby(s.director1)
	s.command("director1", "hb_standby", out)
	s.check(err == nil, "hb_standby on director1: %v", err)
	silent, page := s.handover("hb_standby", s.director1, s.director2, since)
	s.figures.Standby = milliseconds(silent)
	s.seen("The VIP was silent for %s; the first page came %s after director2's first answer.", ms(silent), ms(page))
	s.waitStatus(s.director1, "the group to be active on director2", func(st cluster.Status) bool { return activeOn(st, s.director2) })
	out, err = s.director1.Keepbeat("why", group)
	s.check(err == nil, "keepbeat why: %v\n%s", err, out)
	s.command("director1", "keepbeat why "+group, out)
	s.watch(time.Second)
	s.alone()
}

func (s *story) oneServerStops() {
	s.begin("httpd on real server 1 stops")
	s.done("Its web server is ended; the check (negotiate, every second, .test.html) has to find out.")
	s.expect("rs1 gets weight 0 (quiescent: yes) and stays in the table; rs2 serves everybody.")
	stopped := probe.Now()
	shut := s.open("rs1 stops", stopped, false)
	s.stopHTTP(0)
	s.waitWeights(s.director2, "rs1 to have weight 0", func(w map[string]int) bool {
		weight, there := w[real1]
		return there && weight == 0 && w[real2] > 0
	})
	out := probe.Now()
	shut(out)
	s.figures.ServerOut = milliseconds(out.Sub(stopped))
	s.watch(2 * time.Second)
	s.seen("Weight 0 after %s. Pages in the two seconds since: %s.", ms(out.Sub(stopped)), s.served(out))
	s.show(s.director2)
}

// waitWeights waits until the kernel's table on the director is as wanted.
func (s *story) waitWeights(h *lab.Host, what string, ok func(map[string]int) bool) {
	// This is measured.
	s.wait(what, cheap, func() bool { return ok(s.weightsOn(h)) })
}

func (s *story) bothServersStop() {
	s.begin("httpd on real server 2 stops, too")
	s.done("No real server is left.")
	s.expect("The fallback of the pool, 127.0.0.1:80 on the director itself, answers.")
	stopped := probe.Now()
	shut := s.open("rs2 stops, too", stopped, false)
	// It is right from now until a real server is back: serversReturn ends it.
	s.open("fallback", stopped, true)
	s.stopHTTP(1)
	page := s.page(stopped, "the fallback", isFallback)
	shut(page.Received)
	s.check(page.Who == fallbackPage+"-director2", "the owner's fallback is %s-director2; the page is from %s", fallbackPage, page.Who)
	s.seen("The fallback's first page came after %s.", ms(page.Received.Sub(stopped)))
	s.show(s.director2)
	s.watch(time.Second)
}

func (s *story) serversReturn() {
	s.begin("Both return")
	s.done("Both web servers are started.")
	s.expect("Both get their weight again, and the fallback goes.")
	began := probe.Now()
	for i := range s.reals {
		s.startHTTP(i)
	}
	s.waitWeights(s.director2, "both real servers in the table, without the fallback", func(w map[string]int) bool {
		return w[real1] > 0 && w[real2] > 0 && w[local] == 0
	})
	back := probe.Now()
	s.windows[len(s.windows)-1].to = back
	s.page(back, "a real server", isReal)
	s.watch(2 * time.Second)
	s.seen("In service again after %s. Pages since: %s. (wlc counts the connections that the end of a server left in the table against it.)",
		ms(back.Sub(began)), s.served(back))
}

func (s *story) linkIsCut() {
	s.begin("One heartbeat link is cut")
	before := s.waitStatus(s.director2, "every link to be up", func(st cluster.Status) bool {
		up, all := links(st)
		return up == all && activeOn(st, s.director2)
	})
	s.done("The cable of eth2 on director2, the owner, is pulled out, and put back later.")
	s.expect("The link is shown down, and nothing moves: every datagram went over both links.")
	cut := probe.Now()
	s.director2.PortOn(s.second).Down()
	s.waitStatus(s.director2, "the status of director2 to show the link down", func(st cluster.Status) bool {
		up, _ := links(st)
		return up == 2
	})
	s.show(s.director2)
	s.watch(3 * time.Second)
	s.director2.PortOn(s.second).Up()
	after := s.waitStatus(s.director2, "the link to be up again", func(st cluster.Status) bool {
		up, all := links(st)
		return up == all
	})
	s.figures.LinkCut = groupOf(after).Epoch - groupOf(before).Epoch
	sum := s.asks.Summary(cut)
	s.check(s.figures.LinkCut == 0 && len(sum.Who) == 1 && sum.Who["director2"] > 0,
		"the group moved %d times (epoch %d, then %d); answers for the VIP: %v", s.figures.LinkCut, groupOf(before).Epoch, groupOf(after).Epoch, sum.Who)
	s.seen("0 moves, epoch %d all the time; the client's longest wait for an answer was %s. Back in place, the link came up by itself.",
		groupOf(after).Epoch, ms(s.asks.Outage(cut).Length()))
	s.alone()
}

func (s *story) daemonHangs() {
	s.begin("The owner's daemon hangs")
	lease := leaseOf(s.waitStatus(s.director2, "a status", func(st cluster.Status) bool { return activeOn(st, s.director2) }).Profile)
	s.done("SIGSTOP for keepbeat on director2. Its kernel and its network are well: only the guard in that kernel can silence the address now.")
	s.expect("director2's address is silent within the lease (%v), and director1 takes over.", lease)
	hung := s.daemons[s.director2].Freeze()
	shut := s.open("hang on director2", hung, false)
	_, first := s.moved(s.director2, s.director1, hung)
	page := s.page(max(hung, first.At), "a real server", isReal)
	shut(page.Received)
	s.waitStatus(s.director1, "the group to be active on director1", func(st cluster.Status) bool { return activeOn(st, s.director1) })
	last := max(hung, lastAnswer(s.observers[s.director2].Samples(), hung))
	s.figures.HangSilent = milliseconds(last.Sub(hung))
	s.check(last.Sub(hung) <= lease, "director2 answered for the VIP until %s after its daemon hung; its lease is %v", ms(last.Sub(hung)), lease)
	s.seen("director2 gave its last answer %s after the SIGSTOP, director1 its first %s after it; the client's next page came after %s.",
		ms(last.Sub(hung)), ms(first.Received.Sub(hung)), ms(page.Received.Sub(hung)))
	if s.director2.HasAddress(vip) {
		s.seen("The address is still on director2's interface; the guard drops what comes for it.")
	}
	s.show(s.director1)
	s.alone()

	s.done("SIGCONT: the daemon on director2 goes on where it stood, and still believes that it is the owner.")
	s.expect("It learns that it is not, cleans up, and never answers for the VIP.")
	woken := s.daemons[s.director2].Thaw()
	s.waitStatus(s.director2, "director2 to be a member again, and to say that director1 is the owner", func(st cluster.Status) bool {
		return activeOn(st, s.director1) && stateOf(st, "director2") == "up"
	})
	s.wait("the address to leave director2", cheap, func() bool { return !s.director2.HasAddress(vip) && len(s.weightsOn(s.director2)) == 0 })
	clean := probe.Now()
	s.watch(2 * time.Second)
	late := lastAnswer(s.observers[s.director2].Samples(), hung.Add(lease))
	s.check(late == 0, "director2 answered for the VIP %s after its daemon was continued", ms(late.Sub(woken)))
	s.alone()
	s.seen("%s after SIGCONT director2 had taken away address and table and was a member again. It answered nobody in all that time.", ms(clean.Sub(woken)))
	s.show(s.director2)
}

func (s *story) reckon() {
	s.begin("The reckoning")
	v := judge(s.pages.Stop(), s.windows)
	s.alone()
	s.figures.Errors = len(v.errors)
	s.done("A request counts as an error when it failed, or got the fallback's page, and no part of it (from being sent to its end) lies in one of these announced windows:")
	for i, w := range s.windows {
		what := "failed or strayed"
		if w.onlyFallback {
			what = "fallback's pages, rightly"
		}
		s.write(row(w.name, ms(w.to.Sub(w.from)), v.excused[i], what))
	}
	s.expect("No error outside, and never two owners.")
	if len(v.errors) > 0 {
		var lines []string
		for _, e := range v.errors[:min(len(v.errors), 10)] {
			lines = append(lines, describe(e, s.windows, s.pages.From))
		}
		s.t.Fatalf("%d of %d requests went wrong outside of every window, the first of them:\n%s", len(v.errors), v.requests, strings.Join(lines, "\n"))
	}
	s.seen("%d requests, 0 errors outside. Both directors answered at once for 0 ms.", v.requests)
}
