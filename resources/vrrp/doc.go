// Package vrrp speaks the Virtual Router Redundancy Protocol, versions 2 (RFC
// 3768) and 3 (RFC 5798, RFC 9568): a pure machine, and a thin shell that gives
// it sockets, timers and addresses.
//
// Pure are Message (the bytes), judge (what is taken of what arrives), Machine
// (one virtual router), SyncGroup and world (what a router is worth). Router
// runs them on a Host; Announcer is the part of a master that only speaks, for
// a cluster that decides by itself.
//
// Beyond the RFCs, and as keepalived has it: state FAULT, preempt_delay,
// down_timer_adverts, sync groups, unicast peers; another list of addresses is
// remarked, not refused (but for an empty one of version 3); of two owners one yields in the end; version 3 over
// IPv4 has a pseudo-header under its checksum unless told otherwise, and either
// form is taken. Of our own: a process that was stopped listens before it acts
// (see late.go), and a member that its sync group takes back says so, with
// priority 0. Advertisements are not signed (auth_hmac): the keepalived that
// is in use does not know that.
package vrrp
