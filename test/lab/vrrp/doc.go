// Package vrrp holds keepbeat as a router against keepalived 2.2.7 of Debian, in
// networks of the lab, and both with tshark's eyes.
//
// Two routers share addresses on a hub; an observer records every advertisement
// with the kernel's time, from which follows when each was master, and for how
// long two or nobody were. The same events befall keepbeat with keepalived and
// keepalived with keepalived, at the same time on the same machine: the latter is
// the measure of the former. A margin is what an observer cannot tell (one
// advertisement more or less) and what the machine itself was late by meanwhile.
// What both do is compared as well: their messages byte by byte, their mails, and
// that preempt_delay, a reload or a mistake ends as with two of one kind.
//
// The stories of old configurations that need IPVS are in test/lab/kernel.
//
//	make test-lab RUN=vrrp
package vrrp
