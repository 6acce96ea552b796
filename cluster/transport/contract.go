// Package transport gives streams between nodes (QUIC whose packets travel on
// the links) and fits raft and memberlist to them.
package transport

import (
	"context"
	"net"
)

// Kind says which part of the daemon a stream is for.
type Kind uint8

// Kinds. The zero value is invalid.
const (
	_          Kind = iota
	KindRaft        // raft RPC
	KindGossip      // memberlist push/pull
	KindCall        // requests of one node to another: forwarded commands, status
)

// Streams opens and accepts streams between nodes. QUIC is the real one;
// Memory is the simulation's.
type Streams interface {
	// Dial opens a stream to a node. Errors name the node.
	Dial(ctx context.Context, node string, kind Kind) (net.Conn, error)
	// Listen returns the listener of a kind; each kind has one, the same every
	// time. Conn.RemoteAddr is an Addr with the peer's name.
	Listen(kind Kind) net.Listener
	// Close closes everything and waits for its goroutines.
	Close() error
}

// Addr is the address of a node: its name.
type Addr string

// Network implements net.Addr.
func (Addr) Network() string { return "keepbeat" }

func (a Addr) String() string { return string(a) }
