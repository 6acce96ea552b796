/*
 * Changes of voters while a lease runs: DESIGN, section 4, rule 4. Four nodes;
 * node 0 is the director whose lease it is about, at first 0, 1 and 2 vote. Messages
 * as in lease.pml. Incarnations, restarts and clocks that differ are shown there; here there is one
 * incarnation and one clock, and a promise is one tick longer than the lease.
 *
 * A configuration stands in the logs of some nodes; it is committed when it is in
 * those of a majority of its own voters. One that is not can be taken back. A voter
 * that is taken in is another one than before: it knows of no revocation.
 */

#ifndef L
#define L 1
#endif
#define P (L + 1)
#ifndef CHANGES
#define CHANGES 2
#endif

#define HAS(set, v) (((set) >> (v)) & 1)

byte voters[CHANGES + 1]; /* the configurations, as sets */
byte committed;           /* index of the newest */
byte logs[4];              /* by node: newest in its log, committed or not */
byte known;               /* newest committed one that node 0 has applied */
byte wait;                /* until the next change may be made */

byte left[4];             /* by voter: of the lease */
byte named[4];            /* by voter: the configuration that its last acknowledgement named */
byte deadline;            /* of node 0's guard */
byte promise[4];          /* by voter */
bit revoked[4];
byte born[4];             /* by voter: the configuration that took it in; in earlier ones it is nobody */
bit taken;                /* the log has given the group to somebody else */
byte takenAt;             /* behind that configuration */

#define majority(set, a, b, c, d) ((HAS(set,0) && (a)) + (HAS(set,1) && (b)) + (HAS(set,2) && (c)) + (HAS(set,3) && (d)) > (HAS(set,0) + HAS(set,1) + HAS(set,2) + HAS(set,3)) / 2)

/* What a majority of a configuration has acknowledged still runs for t ticks. */
#define of(i, v) (born[v] <= (i))
#define runs(i, t) majority(voters[i], of(i,0) && left[0] >= (t), of(i,1) && left[1] >= (t), of(i,2) && left[2] >= (t), of(i,3) && left[3] >= (t))
#ifdef NEWER_IGNORED
#define newer(i, t) true
#else
/* Rule 4: and of every newer one that stands in its own log or was named. */
#define newer(i, t) (!(logs[0] == i || named[0] == i || named[1] == i || named[2] == i || named[3] == i) || i <= known || runs(i, t))
#endif
#if CHANGES > 2
#define third(t) newer(3, t)
#else
#define third(t) true
#endif
/* Rule 8: in node 0's log a later configuration stands behind the entry that ended its incarnation. */
#ifdef END_IGNORED
#define ended false
#else
#define ended (taken && known > takenAt)
#endif
#define lease(t) (!ended && runs(known, t) && newer(1, t) && newer(2, t) && third(t))

#define longer(t) (lease(t) && deadline < (t) -> (t) : deadline)
#if L == 1
#define extend() deadline = longer(1)
#else
#define extend() deadline = longer(2); deadline = longer(1)
#endif

#define less(x) x = (x > 0 -> x - 1 : 0)

active proctype Clock() {
	do
	:: d_step { true ->
		less(wait); less(deadline);
		less(promise[0]); less(promise[1]); less(promise[2]); less(promise[3]);
		less(left[0]); less(left[1]); less(left[2]); less(left[3]) }
	od
}

proctype Voter(byte v) {
	do
	/* Rule 3: the acknowledgement names the newest configuration in this voter's log. */
	:: d_step { !revoked[v] -> promise[v] = P; left[v] = L; named[v] = logs[v]; extend() }
	:: d_step { !revoked[v] && promise[v] == 0 -> revoked[v] = 1 }
	/* The entry of a change arrives, and with it the news that the one before is committed. */
	:: d_step { committed < CHANGES && voters[committed+1] != 0 && logs[v] <= committed -> logs[v] = committed + 1; known = (v == 0 -> committed : known); extend() }
	:: d_step { logs[v] < committed -> logs[v] = committed }
	od
}

#ifdef CHANGES_DO_NOT_WAIT
#define mayChange true
#else
#define mayChange (wait == 0)
#endif

#define present voters[committed]
#define next voters[committed+1]
#define flip(v) (present ^ (1 << (v)))
#define change(v) committed < CHANGES && next == 0 && mayChange -> \
	next = flip(v); \
	born[v] = (HAS(next,v) -> committed + 1 : born[v]); revoked[v] = (HAS(next,v) -> 0 : revoked[v]); promise[v] = (HAS(next,v) -> 0 : promise[v]); left[v] = (HAS(next,v) -> 0 : left[v]); \
	next = (HAS(next,0) + HAS(next,1) + HAS(next,2) + HAS(next,3) < 2 -> 0 : next)
#define stands(i) majority(voters[i], logs[0] >= i, logs[1] >= i, logs[2] >= i, logs[3] >= i)
#define haveRevoked(i) majority(voters[i], of(i,0) && revoked[0], of(i,1) && revoked[1], of(i,2) && revoked[2], of(i,3) && revoked[3])

active proctype Leader() {
	do
	:: d_step { change(1) }
	:: d_step { change(2) }
	:: d_step { change(3) }
#ifdef TWO_AT_ONCE
	:: d_step { committed < CHANGES && next == 0 && mayChange && present == 7 -> next = 9 }
#endif
	:: d_step { committed < CHANGES && next != 0 && stands(committed + 1) -> committed++; wait = P }
	/* Another leader does not have it: it is taken back; and that leader waits, too. */
	:: d_step { committed < CHANGES && next != 0 && !stands(committed + 1) ->
		next = 0; wait = P;
		logs[0] = (logs[0] > committed -> committed : logs[0]); logs[1] = (logs[1] > committed -> committed : logs[1]);
		logs[2] = (logs[2] > committed -> committed : logs[2]); logs[3] = (logs[3] > committed -> committed : logs[3]);
		named[0] = (named[0] > committed -> committed : named[0]); named[1] = (named[1] > committed -> committed : named[1]);
		named[2] = (named[2] > committed -> committed : named[2]); named[3] = (named[3] > committed -> committed : named[3]) }
	:: d_step { known < committed -> known++; extend() }

	/* Rule 5: a majority of the committed configuration has revoked; the entry names it and is refused when it is another by then. */
	:: d_step { !taken && haveRevoked(committed) -> taken = 1; takenAt = committed }
#ifdef CONFIGURATION_NOT_COMPARED
	:: d_step { !taken && committed > 1 && haveRevoked(committed - 2) -> taken = 1; takenAt = committed }
#endif
	od
}

active proctype Promise() {
	d_step { taken && deadline > 0 -> assert(false) }
}

init {
	d_step { voters[0] = 7 }
	atomic { run Voter(0); run Voter(1); run Voter(2); run Voter(3) }
}
