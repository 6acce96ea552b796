// Package fault attacks clusters of real daemons: it injects faults drawn from a
// seed while a client, two observers and an ARP watcher look at the address, and
// administrators on both directors apply specifications without a pause.
//
// What is looked for are the two things that must not happen, whatever the fault:
//
//   - A conflict: two directors answer for the address at the same instant, or two
//     hardware addresses answer one ARP request. What was seen is also checked as a
//     history of a lock, with porcupine: see ownership.go.
//   - Lost configuration: a version that was acknowledged is gone, or is another
//     one on some node; the history of applies is checked as a register with
//     compare-and-set: see configuration.go.
//
// Silences are measured and printed. They are judged only by what a user would
// notice: the address answers again within 30 s after the last fault has ended,
// and all is well within a minute (four in
// the lab kernel).
//
// `make fault` draws for FAULT_TIME (25 minutes); `make test-fault`, a part of `make test`,
// injects each kind once. Both attack a trio and a pair of rule fencing (once: the pair not in
// the lab kernel, which is slow); FAULT_CLUSTER=pair has nothing but pairs. SEED=n repeats a draw, FAULT=regexp chooses kinds.
package fault
