// Package sim runs whole clusters with the real code on virtual time
// (testing/synctest): only sockets, disks, the kernel's tables and its guard
// are stand-ins. It plays schedules of faults from a seed and watches that an
// exclusive group is never active on two nodes at once.
//
// What it watches:
//   - no two machines answer for an address at once. It looks at every change
//     of a kernel's table with all tables locked, which is every instant at
//     which that can begin (kernel.go);
//   - no address is on a machine outside of the guard;
//   - no machine announces a VRID without a lease, or while another one answers
//     for its address;
//   - a foreign router is fenced only when the log has been asked to, by a node with a
//     lease, while it is heard, and once;
//   - replicated states are equal at equal indexes, epochs grow, and an epoch
//     of a group belongs to one owner;
//   - when the faults have ended every group answers on exactly one machine,
//     within 15 s and what has to be waited for by design;
//   - in peaceful schedules (one link lost, noisy or flapping; planned
//     restarts) nothing moves, no address is silent for an instant, and without
//     a restart nobody is elected.
//
// A schedule is a pure function of its seed, and `make sim RUNS=1 SEED=s` plays
// it again. What is not the seed's: in which order goroutines run that are
// ready at the same virtual instant, nonces of the links and raft's election
// timeouts (both from the runtime's own randomness), and so who is "owner" or
// "leader" when an event names one. The transcript says who it was. A schedule
// that is at the edge may need several runs; SEED=s in a loop does that.
//
// What is not played: the order of bytes within a file that is being written
// when the power goes (stores are in memory and write as a whole), disks that are
// full, failing or, but for one test, slow (any write may be the last), QUIC (streams
// stall where no link carries anything, and know no loss), serial links, memberlist,
// watchdogs and devices that count on them, machines that are suspended, links whose
// key changes, health checks, logs of which fewer than 64 entries stay before a
// snapshot (draw.go says why). Snapshots and upgrades are drawn for some schedules only: others keep the
// whole log, and all nodes run the newest program.
//
// Every call of the pure cores is recorded (record.go), and TestReplay makes them
// again: lease, state, pair.Decide, of daemons that began with a snapshot as
// well. Placement is not: what it decides is, as commands.
//
// Environment: KEEPBEAT_SIM_RUNS, KEEPBEAT_SIM_SEED, KEEPBEAT_SIM_STORY=name of
// a story that every schedule has to hold, KEEPBEAT_SIM_LOG=1 for the daemons'
// logs in the transcripts, KEEPBEAT_SIM_OUT=directory of the transcripts,
// KEEPBEAT_SIM_GUARD=ignored for kernels that enforce nothing. TestCutsAreFound
// builds the simulation with one rule of the lease cut out of the code, and says
// which seed shows it.
package sim
