/*
 * Pairs: two directors that vote, and no third node (DESIGN, section 4, "Two
 * directors alone cannot vote"). -DPING is the rule ping; without it the rule is fencing.
 * One group. P1 to P9 are the numbers of docs/safety.md, "Pairs".
 *
 * What lease.pml shows is taken for granted here: incarnations, and all that
 * goes by acknowledgements within one generation. What is left:
 *
 * TIME as there: clocks differ by up to two ticks in any interval, a lease is L
 * ticks, a promise P = L + 2.
 *
 * MESSAGES arrive at once or never: a late Renew, or a late answer to a ping,
 * gives less than a new one. Silence is nobody's choice: a node may take the
 * other for silent at any time, and hear it again at any time. Only
 * what a hello says may be old: `cold`.
 *
 * RAFT: while both vote an entry needs both and is in both logs. A survivor's
 * log goes on from there. `log...` is what a node has in its log, `owner`, `epoch` what it acts by.
 *
 * THE DEVICE takes any time, resets the machine or does not, and says so or does
 * not. An order that was given up may still be carried out at any later time.
 *
 * THE SERVICE NETWORK, with the tie-breaker: a machine can come off it and back.
 */

#ifndef L
#define L 1
#endif
#define P (L + 2)
#ifndef PROBE
#define PROBE (2 * L + 2) /* for how many ticks nobody may answer: P5 */
#endif
#ifndef EPOCHS
#define EPOCHS 3
#endif
#ifndef GENERATIONS
#define GENERATIONS 3
#endif

#define NOBODY 3
#define FIRST 2 /* the first generation: nobody opened it */
#define BOTH 3  /* voters, as a set */
#define ONLY(n) (1 << (n))
#define peer (1 - n)

/* On disk. */
byte counter[2];   /* of the generation */
byte opener[2];    /*  and who opened it: with the counter, its id */
byte voters[2];    /* of the newest configuration in the node's log */
byte logOwner[2];
byte logEpoch[2];
bit intent[2];     /* dropped at a start */

/* The daemon. */
bit admitted[2];   /* the log has admitted this very start */
byte owner[2];     /* applied */
byte epoch[2];
byte given[2];     /* of the lease: what the other has promised */
byte alone[2];     /*  and what the rule allows without the other */
bit started[2];    /* a lease has run since the process began */
bit confirmed[2];  /* an operator has said that it is to go on */
byte cold[2];      /* for how long the other's word that it does not act is good */
byte promised[2];  /* to the other, by this voter */

/* The kernel. */
byte up[2];        /* epoch */
byte deadline[2];

bit ahead[2];      /* clocks */

#ifdef PING
bit detached[2];   /* off the service network */
bit probing[2];
byte clear[2];     /* ticks for which nobody has answered */
byte fresh[2];     /* for how long the last clear probe is good */
#else
byte order[2];     /* to the device: 0 none, 1 asked, 2 carried out */
bit stray[2];      /* one that was given up may still be carried out */
bit done[2];       /* the device has said that the other is off */
#endif

#define acts(n) (up[n] != 0 && deadline[n] != 0)

#ifdef GENERATION_IGNORED
#define together true
#else
/* P8: who speaks of another generation is refused. */
#define together (counter[0] == counter[1] && opener[0] == opener[1])
#endif

#ifdef VOTES_DURING_INTENT
#define takesPart(n) true
#else
/* P3: who intends to go on alone gives no vote and takes no entry. */
#define takesPart(n) (!intent[n])
#endif
#define whole (together && voters[0] == BOTH && voters[1] == BOTH && takesPart(0) && takesPart(1))
#define only(n) (voters[n] == ONLY(n))
#define votes(n) ((voters[n] & ONLY(n)) != 0)

/* ---- time */

#define max(x, y) (x > y -> x : y)
#define less(x) x = (x > 0 -> x - 1 : 0)

#ifdef PING
#define sharedWire (!detached[0] && !detached[1])
/* P5: the other has the address; or is about to: the second of the two yields to the first's probe. */
#ifdef PROBES_UNSEEN
#define answered(n) (sharedWire && acts((1-(n))))
#else
#define answered(n) (sharedWire && (acts((1-(n))) || (n) == 1 && probing[1-(n)]))
#endif
/* Probes are much denser than ticks: an address that comes up while somebody probes is noticed. */
#define noticed(n) clear[1-n] = (answered((1-n)) -> 0 : clear[1-n])
/* P5: silence counts only while the tie-breaker answers. */
#ifdef TIE_BREAKER_AT_THE_END
#define counts(n) true
#else
#define counts(n) (!detached[n])
#endif
#define look(n) less(fresh[n]); \
	clear[n] = (probing[n] && !answered(n) && counts(n) -> (clear[n] < PROBE -> clear[n] + 1 : PROBE) : 0)
#else
#define noticed(n) skip
#define look(n) skip
#endif

inline tick(x) {
	less(given[x]); less(alone[x]); less(deadline[x]); less(promised[x]); less(cold[x]);
	look(x);
	ahead[x] = 1;
	if
	:: ahead[0] && ahead[1] -> ahead[0] = 0; ahead[1] = 0
	:: else
	fi
}

active proctype Clock() {
	do
	:: d_step { !ahead[0] -> tick(0) }
	:: d_step { !ahead[1] -> tick(1) }
	od
}

/* ---- the lease */

/* P1: the rule stands in for the word of the other voter; a voter's own is always needed (lease.pml). */
#define lease(n) (votes(n) -> (only(n) -> alone[n] : max(given[n], alone[n])) : given[n])
#define live(n) (lease(n) > 0)

inline extend(x) {
	deadline[x] = max(deadline[x], lease(x));
	if
	:: live(x) -> started[x] = 1; confirmed[x] = 0
	:: else
	fi;
	noticed(x)
}

/* A node that has nothing to lose renews too; what it has of that is only to have started. */
#define concerned(n) (up[n] != 0 || owner[n] == n)

#ifdef PROMISES_DURING_INTENT
#define promises(n) (together && voters[n] != ONLY(n))
#else
/* P3: who intends to go on alone promises the other nothing. */
#define promises(n) (together && voters[n] != ONLY(n) && !intent[peer])
#endif

#ifdef PING
#ifdef RESUMES
#define unlapsed(n) true
#else
/* P2: only while its lease has not lapsed, or right after the probe. */
#define unlapsed(n) (live(n) || fresh[n] > 0)
#endif
/* P2: the tie-breaker answers; the lease counts from the question. */
#define rule(n) (!detached[n] && unlapsed(n))
#else
/* P2: it runs, so it has not been fenced. */
#define rule(n) true
#endif

#ifdef SOLE_NEEDS_NO_RULE
#define knowsBetter(n) only(n)
#else
/* The only voter, and the other has come back into its generation without a vote: nothing threatens it. */
#define knowsBetter(n) (only(n) && together)
#endif

#ifdef HELLO_IS_ENOUGH
/* P6: an only voter that has restarted has merely heard that the other is there. */
#define seen(n) (only(n) && counter[peer] < counter[n])
#else
/* P6, P9: it has heard, since it started, that the other is behind and cold. */
#define seen(n) (only(n) && counter[peer] < counter[n] && cold[n] > 0)
#endif

#define goesAlone(n) (votes(n) && admitted[n] && (knowsBetter(n) || seen(n) || started[n] && rule(n)))

/* ---- starts */

#ifdef ALONE_AFTER_RESTART
/* Broken, P6: the daemon goes on as its log has it. */
#define forget(x) skip
#else
#define forget(x) started[x] = 0; admitted[x] = 0; owner[x] = NOBODY; epoch[x] = 0
#endif

#ifdef PING
#define forgetRule(x) probing[x] = 0; clear[x] = 0; fresh[x] = 0
#else
#define forgetRule(x) stray[x] = stray[x] || order[x] == 1; order[x] = 0; done[x] = 0
#endif

inline restart(x) {
	forget(x);
	given[x] = 0; alone[x] = 0;
	confirmed[x] = 0; cold[x] = 0;
	intent[x] = 0; /* P7: it was not completed, so it is dropped */
	promised[x] = P;
	forgetRule(x)
}

/* ---- a node */

#ifdef PING
#ifdef STARTS_ALONE
#define mayStart(n) true
#else
/* P4: an address comes up under the other's word, or right after a clear probe. */
#define mayStart(n) (knowsBetter(n) || voters[n] != ONLY(n) && given[n] > 0 || fresh[n] > 0)
#endif
#else
#define mayStart(n) true
#endif

/* P9: cold is who does not act, and cannot begin to without hearing of the other. */
#ifdef COLD_WITH_LEFTOVERS
#define isCold(n) (!started[n] && !confirmed[n] && !intent[n])
#else
#define isCold(n) (!started[n] && !confirmed[n] && !intent[n] && !acts(n))
#endif

#ifdef COLD_BEFORE_INTENT
#define coldHelps(n) true
#else
#define coldHelps(n) (intent[n] || only(n) && !started[n])
#endif

#ifdef NO_WAIT
#define waited(n) true
#else
#define waited(n) (promised[n] == 0)
#endif

/* Who may try to be the survivor: a voter that has run, or that an operator lets. */
#define survivor(n) (votes(n) && !knowsBetter(n) && (started[n] || confirmed[n]) && counter[n] < GENERATIONS)

#ifdef PING
#define noOrder(n) true
#define idleIfLapsed(n) (live(n) || up[n] == 0)
#define clearly(n) (probing[n] && clear[n] == PROBE && !detached[n] || cold[n] > 0)
#else
#define noOrder(n) (order[n] == 0)
#define idleIfLapsed(n) true
#define clearly(n) (done[n] || cold[n] > 0)
#endif
#ifdef NO_PROBE
#define certain(n) true
#else
#define certain(n) clearly(n)
#endif

#define change(to) logOwner[n] = to; logEpoch[n]++; logOwner[peer] = (whole -> to : logOwner[peer]); logEpoch[peer] = (whole -> logEpoch[n] : logEpoch[peer])
#define follow(n) owner[n] = logOwner[n]; epoch[n] = logEpoch[n]
#define moreEpochs(n) (logEpoch[n] < EPOCHS)
#define decides(n) (whole || only(n) && takesPart(n))

proctype Node(byte n) {
	do
	:: d_step { admitted[n] && epoch[n] != logEpoch[n] -> follow(n) }
	/* Rule 1. What an earlier daemon left and the log has given away is stopped first. */
	:: d_step { !admitted[n] && (up[n] == 0 || logOwner[n] == n && logEpoch[n] == up[n]) && (whole || only(n) || together && voters[peer] == ONLY(peer)) ->
		admitted[n] = 1; follow(n) }

	:: d_step { admitted[n] && promises(n) && concerned(n) && (given[n] < L || promised[peer] < P) -> given[n] = L; promised[peer] = P; extend(n) }
	:: d_step { admitted[n] && promises(n) && !concerned(n) && !started[n] -> started[n] = 1; confirmed[n] = 0 }
	:: d_step { goesAlone(n) && concerned(n) && alone[n] < L -> alone[n] = L; extend(n) }
	:: d_step { goesAlone(n) && !concerned(n) && !started[n] -> started[n] = 1; confirmed[n] = 0 }

	:: d_step { admitted[n] && owner[n] == n && live(n) && up[n] == 0 && mayStart(n) -> up[n] = epoch[n]; noticed(n) }
	/* It is to stop, or it has failed and will be tried again. */
	:: d_step { up[n] != 0 -> up[n] = 0 }
	/* Rule 7: reported stopped; the other gets it, or nobody does. */
	:: d_step { admitted[n] && owner[n] == n && epoch[n] == logEpoch[n] && whole && moreEpochs(n) -> up[n] = 0; change(peer); follow(n) }
#ifdef PING
	:: d_step { admitted[n] && owner[n] == n && epoch[n] == logEpoch[n] && whole && moreEpochs(n) -> up[n] = 0; change(NOBODY); follow(n) }
	:: d_step { decides(n) && admitted[n] && logOwner[n] == NOBODY && moreEpochs(n) -> change(n); follow(n) }
#endif

	/* P3: the other is revoked when the promise to it has run out, then the intent is recorded. */
	:: d_step { survivor(n) && !intent[n] && waited(n) && idleIfLapsed(n) ->
		intent[n] = 1;
#ifndef COLD_BEFORE_INTENT
		cold[n] = 0 /* P9: only what is said from now on counts */
#endif
	}
#ifdef PING
	:: d_step { intent[n] && !probing[n] -> probing[n] = 1; clear[n] = 0; noticed(n) }
	:: d_step { intent[n] -> intent[n] = 0; probing[n] = 0; clear[n] = 0 }
#else
	:: d_step { intent[n] && order[n] == 0 && !done[n] -> order[n] = 1 }
	/* The other is heard again. */
	:: d_step { intent[n] && order[n] == 0 && !done[n] -> intent[n] = 0 }
#endif
	/* P4: the generation becomes the current one, this node its only voter, and takes the groups. */
	:: d_step { intent[n] && survivor(n) && certain(n) ->
		counter[n]++; opener[n] = n; voters[n] = ONLY(n);
		intent[n] = 0; confirmed[n] = 0; cold[n] = 0; started[n] = 1; admitted[n] = 1;
		if
		:: logOwner[n] != n && moreEpochs(n) -> change(n)
		:: else
		fi;
		follow(n);
#ifdef PING
		probing[n] = 0; clear[n] = 0; fresh[n] = L
#else
		/* P4: what a device may still answer was asked for another survival. */
#ifndef LATE_ANSWER
		stray[n] = stray[n] || order[n] == 1; order[n] = 0;
#endif
		done[n] = 0
#endif
	}
	/* P6: an operator's word to a node that waits. */
	:: d_step { !started[n] && votes(n) && !confirmed[n] && counter[n] < GENERATIONS -> confirmed[n] = 1 }
	/* P9: a hello of the other says that it is cold; good for a lease. */
	:: d_step { isCold(peer) && cold[n] < L && counter[peer] <= counter[n] && coldHelps(n) -> cold[n] = L }

	/* P8: a greater counter is heard: everything stops, the log is put aside, it comes back without a vote. */
	:: d_step { counter[n] < counter[peer] && only(peer) && up[n] == 0 && noOrder(n) ->
		counter[n] = counter[peer]; opener[n] = opener[peer]; voters[n] = ONLY(peer);
		restart(n);
		logOwner[n] = logOwner[peer]; logEpoch[n] = logEpoch[peer]
	}
	/* It votes again: first in the log of the only voter, then in its own. */
	:: d_step { only(n) && takesPart(n) && together && voters[peer] == ONLY(n) && admitted[peer] -> voters[n] = BOTH }
	:: d_step { together && voters[n] == ONLY(peer) && voters[peer] == BOTH && takesPart(peer) ->
		voters[n] = BOTH; logOwner[n] = logOwner[peer]; logEpoch[n] = logEpoch[peer] }

	/* P7: a daemon dies at any time. */
	:: d_step { started[n] || admitted[n] || intent[n] || confirmed[n] -> restart(n) }
#ifdef PING
	:: d_step { !detached[n] ->
		detached[n] = 1;
#ifndef TIE_BREAKER_AT_THE_END
		clear[n] = 0 /* P5 */
#endif
	}
	:: d_step { detached[n] -> detached[n] = 0; noticed(n) }
#endif
	od
}

#ifndef PING
/* ---- the device that resets the other */

proctype Device(byte n) {
	do
	:: d_step { order[n] == 1 -> order[n] = 2; restart(peer); up[peer] = 0; deadline[peer] = 0 }
	:: d_step { stray[n] -> stray[n] = 0; restart(peer); up[peer] = 0; deadline[peer] = 0 }
	:: d_step { order[n] == 2 -> order[n] = 0; done[n] = 1 }
	/* It fails, or its answer is lost; what has not been carried out may be later. */
	:: d_step { order[n] != 0 ->
		stray[n] = stray[n] || order[n] == 1;
		order[n] = 0;
#ifdef FENCING_IGNORED
		done[n] = 1
#endif
	}
	od
}
#endif

/* ---- the promise */

#ifndef GOAL
#ifdef PING
#define GOAL (acts(0) && acts(1) && sharedWire)
#else
#define GOAL (acts(0) && acts(1))
#endif
#endif

active proctype Promise() {
	d_step { GOAL -> assert(false) }
}

init {
	d_step {
		counter[0] = 1; counter[1] = 1; opener[0] = FIRST; opener[1] = FIRST;
		voters[0] = BOTH; voters[1] = BOTH;
		admitted[0] = 1; admitted[1] = 1;
		logOwner[0] = 0; logOwner[1] = 0; logEpoch[0] = 1; logEpoch[1] = 1;
		owner[0] = 0; owner[1] = 0; epoch[0] = 1; epoch[1] = 1
	}
	atomic {
		run Node(0); run Node(1);
#ifndef PING
		run Device(0); run Device(1)
#endif
	}
}
