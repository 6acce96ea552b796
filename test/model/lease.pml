/*
 * The quorum lease and its revocation: DESIGN, section 4, rules 1 to 8, for
 * three voters (0, 1, 2), two of which are directors (0, 1), and one group.
 *
 * How the world is cut down to something that can be searched completely:
 *
 * TIME. Global time moves on in ticks. Every node has its own clock, which in
 * one tick moves on by one; once it may gain a tick and later lose it again,
 * and so on (`ahead`): at any time it is 0 or 1 ticks ahead of global time, so
 * that two clocks may differ by up to 2 in any interval. A lease is L ticks of
 * its holder's clock, a promise P = L + 2 ticks of the voter's: the 3 % of rule
 * 3, rounded up as far as clocks differ here. Nothing limits how long anything else takes:
 * each step may happen at once or never, which is how daemons hang.
 *
 * MESSAGES are sets that only time empties: whoever could receive one may do so
 * now, later, again, after a newer one, or never. A Renew is known by what is
 * left of the lease that it asks for, by its sender's clock. Acknowledgements likewise.
 * "Revoked" is a fact that is on disk for good, so that its message needs no set
 * of its own (but see REVOCATION_NOT_DURABLE).
 *
 * RAFT is one log whose end is moved by one entry at a time; `entries` keeps what
 * the slowest node has not applied yet. Each node applies entries one by one,
 * whenever it wants. Proposals are made from what the proposer has
 * applied and are compared with the end of the log when they are committed.
 *
 * THE KERNEL outlives the daemon: `up` is the epoch whose addresses it has,
 * `deadline` what is left until the guard cuts them off.
 */

#ifndef L
#define L 1        /* length of a lease, in ticks of the director's clock */
#endif
#ifdef MARGIN_100
#define P L        /* broken, rule 3: a promise as long as the lease */
#else
#define P (L + 2)  /* length of a promise, in ticks of the voter's clock */
#endif
#ifndef INCARNATIONS
#define INCARNATIONS 3
#endif
#ifndef EPOCHS
#define EPOCHS 3
#endif
#define LOG 6      /* entries that the slowest node may lack */

#define NOBODY 3
#define ROUND(r) (1 << ((r) - 1))  /* a Renew with r ticks left, in a set */
#define PAIR(v, n) ((v) * 2 + (n)) /* voter v, director n */

/* What the log comes to (cluster/state). */
typedef Applied {
	byte inc[2];   /* incarnation of each director */
	bit valid[2];  /* not ended by a revocation or a fencing */
	bit boot[2];   /* given to the daemon that runs now */
	byte owner;
	byte epoch
};
Applied entries[LOG];
byte end;          /* index of the newest state */
byte applied[3];   /* by node: index of the state that it has */

bit ahead[3];      /* a clock that has gained its tick */

/* Directors: the daemon's memory. */
byte holds[2];     /* incarnation that it renews; 0: not admitted */
byte sent[2];      /* set of Renews under way, to every voter */
byte acks[6];      /* by voter and director: set of acknowledgements under way */
byte left[6];      /* by voter and director: of the lease, as far as this voter goes */
byte over[2];      /* epoch that was reported stopped */

/* Directors: the kernel. */
byte up[2];       /* epoch that is up; 0: none */
byte deadline[2];  /* of the guard, in ticks of the node's clock; 0: cut off */

/* Proposals on their way into the log; they outlive the proposer. */
bit ask[2];        /* Admit */
bit askOld[2];     /*  by a daemon that is gone */
bit askRunning[2]; /*  which runs groups */
byte askAfter[2];  /*  after this incarnation */
byte stopInc[2];   /* Stopped; 0: none */
byte stopEpoch[2];

/* Voters. */
byte promise[6];   /* what is left of it */
byte revoked[6];   /* on disk: incarnations up to this one get no promise */
#ifdef REVOCATION_NOT_DURABLE
byte said[6];      /* what has been said, and may still arrive */
#define REVOKED said
#else
#define REVOKED revoked
#endif

#ifdef FENCING
byte fenced[2];    /* incarnation that the leader saw when it asked the device; 0: no answer to report */
#endif

byte i_, first_, second_, third_; /* scratch, 0 between steps */

#define S(n) entries[applied[n]]
#define NEWEST entries[end]

/* Permission: what the kernel lets through. */
#define acts(n) (up[n] != 0 && deadline[n] != 0)

/* The lease of this daemon: the second best of three voters (rule 4). */
#define live(n) (((left[PAIR(0,n)] != 0) + (left[PAIR(1,n)] != 0) + (left[PAIR(2,n)] != 0)) >= 2)

#define admitted(n) (S(n).valid[n] && S(n).boot[n])
#define owns(n) (S(n).owner == n && S(n).epoch != over[n])

inline copy(to, from) {
	entries[to].inc[0] = entries[from].inc[0]; entries[to].inc[1] = entries[from].inc[1];
	entries[to].valid[0] = entries[from].valid[0]; entries[to].valid[1] = entries[from].valid[1];
	entries[to].boot[0] = entries[from].boot[0]; entries[to].boot[1] = entries[from].boot[1];
	entries[to].owner = entries[from].owner; entries[to].epoch = entries[from].epoch
}

inline clear(at) {
	entries[at].inc[0] = 0; entries[at].inc[1] = 0; entries[at].valid[0] = 0; entries[at].valid[1] = 0;
	entries[at].boot[0] = 0; entries[at].boot[1] = 0; entries[at].owner = 0; entries[at].epoch = 0
}

/* An entry is committed: what follows changes NEWEST. */
inline commit() {
	assert(end < LOG - 1);
	copy(end + 1, end);
	end++
}

#ifdef WITNESS_LEADS
#define witnessFollows (applied[2] > 0)
#define followed() applied[2]--
#else
#define witnessFollows true
#define followed() skip
#endif

/* What every node has applied is forgotten. */
inline trim() {
	do
	:: applied[0] > 0 && applied[1] > 0 && witnessFollows ->
		i_ = 0;
		do
		:: i_ < end -> copy(i_, i_ + 1); i_++
		:: else -> break
		od;
		clear(end);
		end--; applied[0]--; applied[1]--; followed()
	:: else -> break
	od;
	i_ = 0
}

/* When the last epoch of the search has come, nobody waits for promises any more. */
#define matters(x) (NEWEST.epoch < EPOCHS -> x : 0)

inline setOwner(to) {
	NEWEST.owner = to;
	NEWEST.epoch++;
	if
	:: NEWEST.epoch == EPOCHS ->
		stopInc[0] = 0; stopEpoch[0] = 0; stopInc[1] = 0; stopEpoch[1] = 0;
		promise[0] = 0; promise[1] = 0; promise[2] = 0; promise[3] = 0; promise[4] = 0; promise[5] = 0
	:: else
	fi
}

/* Messages of an earlier incarnation or daemon are not listened to. */
inline forgetRounds(n) {
	sent[n] = 0;
	acks[PAIR(0,n)] = 0; acks[PAIR(1,n)] = 0; acks[PAIR(2,n)] = 0
}

/*
 * A daemon ends and another starts at once; how long that takes is how long it
 * then does nothing. What is up in the kernel stays up. A node's director and its voter
 * end together, but are free to do so apart here: that is more, not less.
 */
inline restartDirector(n) {
	forgetRounds(n);
	left[PAIR(0,n)] = 0; left[PAIR(1,n)] = 0; left[PAIR(2,n)] = 0;
	holds[n] = 0;
	over[n] = 0;
	askOld[n] = ask[n];
	i_ = 0;
	do
	:: i_ <= end -> entries[i_].boot[n] = 0; i_++
	:: else -> break
	od;
	i_ = 0
}

inline restartVoter(v) {
	/* Rule 3: a voter that has just started treats every promise as running for the longest time. */
#ifdef PROMISE_FORGOTTEN
	promise[PAIR(v,0)] = 0; promise[PAIR(v,1)] = 0;
#else
	promise[PAIR(v,0)] = matters(P); promise[PAIR(v,1)] = matters(P);
#endif
#ifdef REVOCATION_NOT_DURABLE
	revoked[PAIR(v,0)] = 0; revoked[PAIR(v,1)] = 0;
#endif
	skip
}

/* ---- time */

#define less(x, by) x = (x > by -> x - by : 0)

#ifdef SEND_TIME_LATE
/* Broken, rule 2: time is noted when the answer is there, so no round ages under way. */
#define age(n, by) skip
#else
#define age(n, by) sent[n] = sent[n] >> by; \
	acks[PAIR(0,n)] = acks[PAIR(0,n)] >> by; acks[PAIR(1,n)] = acks[PAIR(1,n)] >> by; acks[PAIR(2,n)] = acks[PAIR(2,n)] >> by
#endif

inline advance(n, by) {
	if
	:: n < 2 ->
		age(n, by);
		less(left[PAIR(0,n)], by); less(left[PAIR(1,n)], by); less(left[PAIR(2,n)], by);
		less(deadline[n], by)
	:: else
	fi;
	less(promise[PAIR(n,0)], by);
	less(promise[PAIR(n,1)], by)
}

inline tick(n) {
	advance(n, 1);
	ahead[n] = 1;
	if
	:: ahead[0] && ahead[1] && ahead[2] -> ahead[0] = 0; ahead[1] = 0; ahead[2] = 0
	:: else
	fi
}

active proctype Clock() {
	do
	:: d_step { !ahead[0] -> tick(0) }
	:: d_step { !ahead[1] -> tick(1) }
	:: d_step { !ahead[2] -> tick(2) }
	od
}

/* ---- voters */

/* Rule 4: the lease is what a majority has acknowledged, counted from when it was sent; the guard is told. */
#ifdef SEND_TIME_LATE
#define counted(r) L
#define taken(v, n, r) acks[PAIR(v,n)] = acks[PAIR(v,n)] & ~ROUND(r)
#else
#define counted(r) r
#define taken(v, n, r) skip
#endif

inline better(v, n, r) {
	if
	:: left[PAIR(v,n)] < r -> left[PAIR(v,n)] = r; extend(n)
	:: else
	fi
}

inline extend(n) {
	first_ = left[PAIR(0,n)]; second_ = left[PAIR(1,n)]; third_ = left[PAIR(2,n)];
	/* the middle one of three */
	if
	:: first_ > second_ -> i_ = first_; first_ = second_; second_ = i_
	:: else
	fi;
	if
	:: third_ <= first_ -> i_ = first_
	:: third_ >= second_ -> i_ = second_
	:: else -> i_ = third_
	fi;
	if
	:: i_ > deadline[n] -> deadline[n] = i_
	:: else
	fi;
	i_ = 0; first_ = 0; second_ = 0; third_ = 0
}

#ifdef LATE_ACKS
#define answer(v, n, r) acks[PAIR(v,n)] = acks[PAIR(v,n)] | ROUND(r)
#else
#define answer(v, n, r) better(v, n, r)
#endif

#define acknowledged(v, n, r) (acks[PAIR(v,n)] & ROUND(r)) && left[PAIR(v,n)] < counted(r) -> \
	left[PAIR(v,n)] = counted(r); taken(v, n, r); extend(n)

#ifdef INCARNATION_IGNORED
#define mayPromise(v, n) (holds[n] != 0)
#else
/* Rule 5: an incarnation that was revoked gets no promise any more. */
#define mayPromise(v, n) (holds[n] > revoked[PAIR(v,n)])
#endif

/* Rule 3: promise until now + P, whatever is left of the lease that it is for. */
#define renew(v, n, r) (sent[n] & ROUND(r)) && mayPromise(v, n) -> \
	promise[PAIR(v,n)] = matters(P); answer(v, n, r)

#ifdef NO_WAIT
#define waited(v, n) true
#else
/* Rule 5: a voter revokes only when its promise has run out. */
#define waited(v, n) (promise[PAIR(v,n)] == 0)
#endif

inline revoke(v, n, number) {
	revoked[PAIR(v,n)] = number;
#ifdef REVOCATION_NOT_DURABLE
	said[PAIR(v,n)] = number;
#endif
	skip
}

/*
 * l leads, as far as it knows, and asks for the revocation of n: any silent
 * director; here only of the one that it takes for the owner, unless REVOKE_ALWAYS.
 */
#ifdef REVOKE_ALWAYS
#define worthIt(l, n) true
#else
#define worthIt(l, n) (S(l).owner == n)
#endif
#define asked(l, v, n) (NEWEST.epoch < EPOCHS && worthIt(l, n) && S(l).valid[n] && S(l).inc[n] > revoked[PAIR(v,n)] && waited(v, n))

proctype Voter(byte v) {
	do
	:: d_step { renew(v, 0, 1) }
	:: d_step { renew(v, 1, 1) }
#if L > 1
	:: d_step { renew(v, 0, 2) }
	:: d_step { renew(v, 1, 2) }
#endif
#if L > 2
	:: d_step { renew(v, 0, 3) }
	:: d_step { renew(v, 1, 3) }
#endif
	:: d_step { asked(1, v, 0) -> revoke(v, 0, S(1).inc[0]) }
#ifdef WITNESS_LEADS
	:: d_step { asked(2, v, 0) -> revoke(v, 0, S(2).inc[0]) }
	:: d_step { asked(2, v, 1) -> revoke(v, 1, S(2).inc[1]) }
#endif
	:: d_step { asked(0, v, 1) -> revoke(v, 1, S(0).inc[1]) }
#ifdef RESTARTS_OF_VOTERS
	:: d_step { NEWEST.epoch < EPOCHS -> restartVoter(v) }
#endif
	od
}

/* ---- directors */

/* What becomes of it (cluster/state, admit). */
inline admit(n) {
	ask[n] = 0;
	if
	:: !askOld[n] && NEWEST.boot[n] && NEWEST.inc[n] != askAfter[n] /* asked twice, or revoked since */
	:: !askOld[n] && NEWEST.boot[n] && !NEWEST.valid[n] && askRunning[n] /* it stops first */
	:: else ->
		commit();
		NEWEST.inc[n]++;
		NEWEST.valid[n] = 1;
		NEWEST.boot[n] = !askOld[n]
	fi;
	askOld[n] = 0; askRunning[n] = 0; askAfter[n] = 0
}

#ifdef LEFTOVER
#define leftover(n) false
#else
/* Rule 8, and the leftovers of an earlier daemon: no lease for what the log has given away. */
#define leftover(n) (up[n] != 0 && !(S(n).owner == n && S(n).epoch == up[n]))
#endif

/* On its way to the log for any time, also when the daemon is gone, or (the shorter search) there at once. */
inline propose(n, after, running) {
	ask[n] = 1; askOld[n] = 0; askAfter[n] = after; askRunning[n] = running;
#ifndef LATE_PROPOSALS
	admit(n)
#endif
}
#define mayAsk(n) (end < LOG - 1 && NEWEST.inc[n] < INCARNATIONS)

/*
 * A director renews always; here only while it has something to lose or to win,
 * unless RENEW_ALWAYS. A lease that it takes before that gives it nothing which it
 * cannot have then: as long as it runs, so do the promises, and who promised promises again.
 */
#ifdef RENEW_ALWAYS
#define concerned(n) true
#else
#define concerned(n) (up[n] != 0 || S(n).owner == n)
#endif

#define someRefuse(n) (revoked[PAIR(0,n)] >= holds[n] || revoked[PAIR(1,n)] >= holds[n] || revoked[PAIR(2,n)] >= holds[n])

proctype Director(byte n) {
	do
	/* Rule 2: sent to every voter; the time is noted before. */
	:: d_step { holds[n] != 0 && concerned(n) && !(sent[n] & ROUND(L)) -> sent[n] = sent[n] | ROUND(L) }
#ifdef LATE_ACKS
	:: d_step { acknowledged(0, n, 1) }
	:: d_step { acknowledged(1, n, 1) }
	:: d_step { acknowledged(2, n, 1) }
#if L > 1
	:: d_step { acknowledged(0, n, 2) }
	:: d_step { acknowledged(1, n, 2) }
	:: d_step { acknowledged(2, n, 2) }
#endif
#if L > 2
	:: d_step { acknowledged(0, n, 3) }
	:: d_step { acknowledged(1, n, 3) }
	:: d_step { acknowledged(2, n, 3) }
#endif
#endif

	/* Rule 1: it renews for the incarnation that the log gave to this very daemon. */
	:: d_step { admitted(n) && holds[n] != S(n).inc[n] && !leftover(n) ->
		holds[n] = S(n).inc[n];
		forgetRounds(n)
	}
	/* It asks for one when it has started, */
	:: d_step { !S(n).boot[n] && !(ask[n] && !askOld[n]) && mayAsk(n) -> propose(n, 0, 0) }
	/* when some voter refuses the present one, without stopping, */
	:: d_step { admitted(n) && holds[n] == S(n).inc[n] && someRefuse(n) && !(ask[n] && askAfter[n] == holds[n]) && mayAsk(n) ->
		propose(n, S(n).inc[n], 1) }
	/* and, rule 8, after a revocation when it has stopped everything. */
	:: d_step { S(n).boot[n] && !S(n).valid[n] && up[n] == 0 && !(ask[n] && !askRunning[n] && askAfter[n] == S(n).inc[n]) && mayAsk(n) ->
		propose(n, S(n).inc[n], 0) }

#ifdef RESTARTS_OF_DIRECTORS
	:: d_step { concerned(n) && (entries[0].boot[n] || holds[n] != 0) -> restartDirector(n) }
#endif

	/* It starts what is its own while its lease lasts. */
	:: d_step { admitted(n) && owns(n) && live(n) && up[n] == 0 -> up[n] = S(n).epoch }
	/* It stops what is not, whenever it comes to that. */
	:: d_step { up[n] != 0 && (!S(n).boot[n] || !admitted(n) || S(n).owner != n || S(n).epoch != up[n]) -> up[n] = 0 }
#ifdef HANDOVER
	/* Rule 7: what it reports stopped is stopped, and over, whatever becomes of the report. */
	:: d_step { admitted(n) && S(n).owner == n && !(stopInc[n] == S(n).inc[n] && stopEpoch[n] == S(n).epoch) && NEWEST.epoch < EPOCHS ->
#ifdef STOPPED_BEFORE_STOP
		skip;
#else
		up[n] = 0; over[n] = S(n).epoch;
#endif
		stopInc[n] = S(n).inc[n]; stopEpoch[n] = S(n).epoch
	}
#endif
	od
}

/* ---- the log: what becomes of each proposal */

/* Rule 7: Stopped counts for this incarnation and this epoch only. */
inline stopped(n) {
	if
#ifdef STOPPED_NAMES_NOTHING
	:: NEWEST.owner == n ->
#else
	:: NEWEST.valid[n] && NEWEST.inc[n] == stopInc[n] && NEWEST.owner == n && NEWEST.epoch == stopEpoch[n] ->
#endif
		commit();
		setOwner((NEWEST.valid[1-n] -> 1-n : NOBODY))
	:: else
	fi;
	stopInc[n] = 0; stopEpoch[n] = 0
}

#define count(n, inc) ((REVOKED[PAIR(0,n)] >= inc) + (REVOKED[PAIR(1,n)] >= inc) + (REVOKED[PAIR(2,n)] >= inc))

#ifdef NO_COMPARE
#define unchanged(l, n) true
#else
/* Rule 6: the entry applies only if owner, epoch and incarnation are what the proposer saw. */
#define unchanged(l, n) (NEWEST.valid[n] && NEWEST.inc[n] == S(l).inc[n])
#endif

/* l has collected Revoked from a majority, as far as it knows the leader (rule 5). */
#define collected(l, n) (S(l).valid[n] && count(n, S(l).inc[n]) >= 2 && unchanged(l, n) && NEWEST.epoch < EPOCHS)

inline endIncarnation(n) {
	commit();
	NEWEST.valid[n] = 0;
	if
	:: NEWEST.owner == n -> setOwner((NEWEST.valid[1-n] -> 1-n : NOBODY))
	:: else
	fi
}

/* l names an owner for a group that has none. */
#ifdef NO_COMPARE
#define free(l, to) (S(l).owner == NOBODY && S(l).valid[to] && NEWEST.owner != to && NEWEST.epoch < EPOCHS)
#else
#define free(l, to) (S(l).owner == NOBODY && S(l).valid[to] && NEWEST.owner == NOBODY && NEWEST.epoch == S(l).epoch \
	&& NEWEST.valid[to] && NEWEST.inc[to] == S(l).inc[to] && NEWEST.epoch < EPOCHS)
#endif

active proctype Log() {
	do
#ifdef LATE_PROPOSALS
	:: d_step { mayAsk(0) && ask[0] -> admit(0) }
	:: d_step { mayAsk(1) && ask[1] -> admit(1) }
#endif
	:: d_step { end < LOG - 1 && stopInc[0] != 0 && NEWEST.epoch < EPOCHS -> stopped(0) }
	:: d_step { end < LOG - 1 && stopInc[1] != 0 && NEWEST.epoch < EPOCHS -> stopped(1) }
	:: d_step { end < LOG - 1 && collected(1, 0) -> endIncarnation(0) }
	:: d_step { end < LOG - 1 && collected(0, 1) -> endIncarnation(1) }
	:: d_step { end < LOG - 1 && free(0, 0) -> commit(); setOwner(0) }
	:: d_step { end < LOG - 1 && free(0, 1) -> commit(); setOwner(1) }
	:: d_step { end < LOG - 1 && free(1, 0) -> commit(); setOwner(0) }
	:: d_step { end < LOG - 1 && free(1, 1) -> commit(); setOwner(1) }
	/* Each node follows when it likes. */
	:: d_step { applied[0] < end -> applied[0]++; trim() }
	:: d_step { applied[1] < end -> applied[1]++; trim() }
#ifdef WITNESS_LEADS
	:: d_step { end < LOG - 1 && collected(2, 0) -> endIncarnation(0) }
	:: d_step { end < LOG - 1 && collected(2, 1) -> endIncarnation(1) }
	:: d_step { end < LOG - 1 && free(2, 0) -> commit(); setOwner(0) }
	:: d_step { end < LOG - 1 && free(2, 1) -> commit(); setOwner(1) }
	:: d_step { applied[2] < end -> applied[2]++; trim() }
#endif
	od
}

#ifdef FENCING
/* ---- fencing, as an entry: the device resets the machine, then the leader says so in the log. */

#ifdef FENCING_KEEPS_INCARNATION
/* Broken, rule 6: the groups move, the incarnation stays, and is not compared. */
#define fencedAs(n) true
inline reportFenced(n) {
	if
	:: NEWEST.owner == n -> commit(); setOwner((NEWEST.valid[1-n] -> 1-n : NOBODY))
	:: else
	fi;
	fenced[n] = 0
}
#else
#define fencedAs(n) (NEWEST.valid[n] && NEWEST.inc[n] == fenced[n])
inline reportFenced(n) {
	if
	:: fencedAs(n) -> endIncarnation(n)
	:: else
	fi;
	fenced[n] = 0
}
#endif

#define fence(l, n) worthIt(l, n) && S(l).valid[n] && fenced[n] == 0 && NEWEST.epoch < EPOCHS -> \
	fenced[n] = S(l).inc[n]; up[n] = 0; deadline[n] = 0; restartDirector(n)

active proctype Fencing() {
	do
	:: d_step { fence(1, 0) }
	:: d_step { fence(0, 1) }
#ifdef WITNESS_LEADS
	:: d_step { fence(2, 0) }
	:: d_step { fence(2, 1) }
#endif
	:: d_step { end < LOG - 1 && fenced[0] != 0 && NEWEST.epoch < EPOCHS -> reportFenced(0) }
	:: d_step { end < LOG - 1 && fenced[1] != 0 && NEWEST.epoch < EPOCHS -> reportFenced(1) }
	od
}
#endif

/* ---- the promise */

#ifndef GOAL
#define GOAL (acts(0) && acts(1)) /* two directors act for one group at one instant */
#endif

active proctype Promise() {
	d_step { GOAL -> assert(false) }
}

init {
	d_step {
		entries[0].inc[0] = 1; entries[0].inc[1] = 1;
		entries[0].valid[0] = 1; entries[0].valid[1] = 1;
		entries[0].boot[0] = 1; entries[0].boot[1] = 1;
		entries[0].owner = 0; entries[0].epoch = 1;
		holds[0] = 1; holds[1] = 1
	}
	atomic {
		run Voter(0); run Voter(1); run Voter(2);
		run Director(0); run Director(1)
	}
}
