// Package vrrp speaks the Virtual Router Redundancy Protocol, versions 2 (RFC
// 3768) and 3 (RFC 5798, RFC 9568): a pure machine, and a thin shell that gives
// it sockets, timers and addresses.
package vrrp
