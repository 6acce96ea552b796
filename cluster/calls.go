package cluster

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/cluster/consensus"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/cluster/transport"
)

// calls are the requests of one node to another, each on a stream of its own:
// a frame there, a frame back. A frame is its length in four bytes, most
// significant first, and JSON.
type calls struct {
	n       *Node
	streams transport.Streams
}

type request struct {
	Op      string `json:"op"` // apply, status, keys, confirm, accused, plan
	Command []byte `json:"command,omitempty"`
	// Generation is the sender\'s: a command of another history is not taken.
	Generation string       `json:"generation,omitempty"`
	Node       string       `json:"node,omitempty"` // confirm, plan
	By         string       `json:"by,omitempty"`
	Keys       *keysRequest `json:"keys,omitempty"`
	Accused    *state.Fence `json:"accused,omitempty"`
}

type response struct {
	Error  string          `json:"error,omitempty"`
	Undone bool            `json:"undone,omitempty"` // with Error: the command has not been taken
	Result *state.Result   `json:"result,omitempty"`
	Status json.RawMessage `json:"status,omitempty"`
	Keys   *NodeKeys       `json:"keys,omitempty"`
	Plan   []string        `json:"plan,omitempty"`
}

const (
	maxFrame    = 192 << 20 // a specification of 37,000 real servers, with its files, twice
	callTimeout = 10 * time.Second
)

func newCalls(n *Node, s transport.Streams) *calls { return &calls{n: n, streams: s} }

// ask sends one request and reads the answer.
func (c *calls) ask(ctx context.Context, node string, q request) (response, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	conn, err := c.streams.Dial(ctx, node, transport.KindCall)
	if err != nil {
		return response{Undone: true}, fmt.Errorf("ask %s: %w", node, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var a response
	if err := writeFrame(conn, q); err != nil {
		return a, fmt.Errorf("ask %s: %w", node, err)
	}
	if err := readFrame(conn, &a); err != nil {
		return a, fmt.Errorf("ask %s: %w", node, err)
	}
	if a.Error != "" {
		return a, fmt.Errorf("%s: %s", node, a.Error)
	}
	return a, nil
}

// forward hands a command to the leader's node.
func (c *calls) forward(ctx context.Context, node string, cmd []byte) (state.Result, error) {
	a, err := c.ask(ctx, node, request{Op: "apply", Command: cmd, Generation: c.n.cons.Generation().String()})
	if err == nil && a.Result == nil {
		err = errors.New(node + " answered without a result")
	}
	if err != nil && !a.Undone {
		err = &consensus.UnknownError{Err: err}
	}
	if err != nil {
		return state.Result{}, err
	}
	return *a.Result, nil
}

// serve answers other nodes until ctx ends.
func (c *calls) serve(ctx context.Context) {
	l := c.streams.Listen(transport.KindCall)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, 64) // a peer cannot make this node hold more
	for {
		conn, err := l.Accept()
		if err != nil {
			return // closed
		}
		select {
		case slots <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			c.answer(ctx, conn)
		})
	}
}

func (c *calls) answer(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var q request
	if err := readFrame(conn, &q); err != nil {
		return
	}
	var a response
	switch q.Op {
	case "apply":
		if g := c.n.cons.Generation().String(); q.Generation != "" && q.Generation != g {
			a.Error, a.Undone = "this node belongs to generation "+g+", not "+q.Generation, true
			break
		}
		r, err := c.n.cons.Apply(ctx, q.Command)
		var unknown *consensus.UnknownError
		if errors.As(err, &unknown) {
			a.Error = unknown.Err.Error()
		} else if err != nil {
			a.Error, a.Undone = err.Error(), true
		} else {
			a.Result = &r
		}
	case "confirm":
		if err := c.n.confirmHere(q.Node, q.By); err != nil {
			a.Error = err.Error()
		}
	case "plan":
		a.Plan = c.n.planHere(q.Node)
	case "accused":
		if q.Accused == nil {
			a.Error = "whom?"
		} else if err := c.n.stillAccused(*q.Accused); err != nil {
			a.Error = err.Error()
		}
	case "status":
		b, err := json.Marshal(c.n.withDigest(c.n.LocalStatus()))
		if err != nil {
			a.Error = err.Error()
		}
		a.Status = b
	case "keys":
		k, err := c.n.changeKeys(q.Keys)
		if err != nil {
			a.Error = err.Error()
		}
		a.Keys = &k
	default:
		a.Error = fmt.Sprintf("request %q is not known here: run the same version on every node", q.Op)
	}
	if err := writeFrame(conn, a); err != nil {
		c.n.logger.Debug("answer to another node", "err", err)
	}
}

func writeFrame(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > maxFrame {
		return errors.New("message is too large")
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...))
	return err
}

func readFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxFrame {
		return fmt.Errorf("message of %d bytes is too large", size)
	}
	// Read as it comes: a length that lies must not cost its memory.
	b, err := io.ReadAll(io.LimitReader(r, int64(size)))
	if err != nil {
		return err
	}
	if len(b) != int(size) {
		return io.ErrUnexpectedEOF
	}
	return json.Unmarshal(b, v)
}
