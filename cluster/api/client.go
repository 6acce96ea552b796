package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	"github.com/keepbeat/keepbeat/cluster"
)

// Client speaks to the daemon of this machine.
type Client struct {
	path string
	http *http.Client
}

// NewClient returns a client of the socket in a run directory.
func NewClient(runDir string) *Client { return NewClientAt(filepath.Join(runDir, SocketName)) }

// NewClientAt returns a client of the socket at a path.
func NewClientAt(path string) *Client {
	return &Client{path: path, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
		DisableKeepAlives: true,
	}}}
}

// Status asks for the state of the cluster.
func (c *Client) Status(ctx context.Context) (s cluster.Status, err error) {
	return s, c.do(ctx, http.MethodGet, "/v1/status", nil, &s)
}

// Why asks why a group is where it is.
func (c *Client) Why(ctx context.Context, group string) (w cluster.Why, err error) {
	return w, c.do(ctx, http.MethodGet, "/v1/why/"+url.PathEscape(group), nil, &w)
}

// Local asks what this node alone knows; it is quick.
func (c *Client) Local(ctx context.Context) (l cluster.LocalStatus, err error) {
	return l, c.do(ctx, http.MethodGet, "/v1/local", nil, &l)
}

// History asks for the decisions about a group, or all (group empty), oldest first.
func (c *Client) History(ctx context.Context, group string) (h History, err error) {
	return h, c.do(ctx, http.MethodGet, "/v1/history?group="+url.QueryEscape(group), nil, &h)
}

// Standby gives up groups of this node.
func (c *Client) Standby(ctx context.Context, m Move) (r Moves, err error) {
	return r, c.do(ctx, http.MethodPost, "/v1/standby", m, &r)
}

// Takeover brings groups to this node.
func (c *Client) Takeover(ctx context.Context, m Move) (r Moves, err error) {
	return r, c.do(ctx, http.MethodPost, "/v1/takeover", m, &r)
}

// Apply makes this node's files the next version of the specification.
func (c *Client) Apply(ctx context.Context, a Apply) (r cluster.Changes, err error) {
	return r, c.do(ctx, http.MethodPost, "/v1/apply", a, &r)
}

// Keys asks which node holds which keys.
func (c *Client) Keys(ctx context.Context) (k Keys, err error) {
	return k, c.do(ctx, http.MethodGet, "/v1/keys", nil, &k)
}

// AddKey gives every node that answers a key.
func (c *Client) AddKey(ctx context.Context, k Key) (r cluster.KeyChange, err error) {
	return r, c.do(ctx, http.MethodPost, "/v1/keys/add", k, &r)
}

// UseKey makes every node seal with a key.
func (c *Client) UseKey(ctx context.Context, k Key) (r cluster.KeyChange, err error) {
	return r, c.do(ctx, http.MethodPost, "/v1/keys/use", k, &r)
}

// RemoveKey takes a key from every node that answers.
func (c *Client) RemoveKey(ctx context.Context, k Key) (r cluster.KeyChange, err error) {
	return r, c.do(ctx, http.MethodPost, "/v1/keys/remove", k, &r)
}

// OrderReal gives an order for a real server.
func (c *Client) OrderReal(ctx context.Context, r Real) (done Reals, err error) {
	return done, c.do(ctx, http.MethodPost, "/v1/real", r, &done)
}

// RealOrders asks which real servers have an order.
func (c *Client) RealOrders(ctx context.Context) (r Reals, err error) {
	return r, c.do(ctx, http.MethodGet, "/v1/real", nil, &r)
}

// Fence has a node fenced.
func (c *Client) Fence(ctx context.Context, f Fence) (r Fenced, err error) {
	return r, c.do(ctx, http.MethodPost, "/v1/fence", f, &r)
}

// FenceConfirm tells a manual device that a node is off.
func (c *Client) FenceConfirm(ctx context.Context, node string) error {
	return c.do(ctx, http.MethodPost, "/v1/fence/confirm", Named{node}, nil)
}

// FenceTest looks whether fencing devices answer; empty: all of this node.
func (c *Client) FenceTest(ctx context.Context, device string) (r FenceDevices, err error) {
	return r, c.do(ctx, http.MethodPost, "/v1/fence/test", Named{device}, &r)
}

// FenceHistory asks what was fenced; empty: all nodes.
func (c *Client) FenceHistory(ctx context.Context, node string) (r FenceHistory, err error) {
	return r, c.do(ctx, http.MethodGet, "/v1/fence/history?node="+url.QueryEscape(node), nil, &r)
}

// QuorumConfirm makes a node of a pair go on without the other.
func (c *Client) QuorumConfirm(ctx context.Context, o Confirm) error {
	return c.do(ctx, http.MethodPost, "/v1/quorum/confirm", o, nil)
}

// AddNode makes a node part of the cluster.
func (c *Client) AddNode(ctx context.Context, n NodeChange) (r cluster.NodesChanged, err error) {
	return r, c.do(ctx, http.MethodPost, "/v1/node/add", n, &r)
}

// RemoveNode takes a node out of the cluster.
func (c *Client) RemoveNode(ctx context.Context, n NodeChange) (r cluster.NodesChanged, err error) {
	return r, c.do(ctx, http.MethodPost, "/v1/node/remove", n, &r)
}

// VRRP asks for the virtual routers of this machine.
func (c *Client) VRRP(ctx context.Context) (v VRRP, err error) {
	return v, c.do(ctx, http.MethodGet, "/v1/vrrp", nil, &v)
}

// ReloadVRRP has the daemon read vrrp.yaml again.
func (c *Client) ReloadVRRP(ctx context.Context) (v VRRP, err error) {
	return v, c.do(ctx, http.MethodPost, "/v1/vrrp/reload", struct{}{}, &v)
}

// Restart makes the daemon re-execute itself; nothing moves. It returns before
// the new program answers.
func (c *Client) Restart(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/v1/restart", struct{}{}, nil)
}

func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://keepbeat"+path, body)
	if err != nil {
		return err
	}
	a, err := c.http.Do(r)
	if err != nil {
		return c.explain(err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		return c.explain(err)
	}
	if a.StatusCode != http.StatusOK {
		var e Error
		if json.Unmarshal(b, &e) == nil && e.Error != "" {
			return &RefusedError{e.Error, e.Files, e.Force, e.Unknown}
		}
		return &RefusedError{Reason: "the daemon answered " + a.Status}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// RefusedError is what a daemon that answers says when it has not done what it was asked, or does not know.
type RefusedError struct {
	Reason string
	Files  bool // Reason lists faults of the configuration files, one a line
	Force  bool // with force it is done
	// Unknown says that it may have been done all the same: Reason says so, too.
	Unknown bool
}

// Error returns the reason.
func (e *RefusedError) Error() string { return e.Reason }

// ErrNoDaemon is wrapped by the error of a call that no daemon answers.
var ErrNoDaemon = errors.New("no keepbeat daemon runs here")

func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w (%s does not answer); start it with `systemctl start keepbeat` or `keepbeat run`", ErrNoDaemon, c.path)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s: permission denied; be root, or a member of the group that socket_group: (to look) or admin_group: (to give orders) names in ha.yaml, or in global_defs of vrrp.yaml; a group counts from the next login on", c.path)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return errors.New("the daemon ended before it answered; whether it was done shows `keepbeat status`")
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the daemon behind %s does not answer in time: look at its log (a command may have been done all the same)", c.path)
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted (a command may have been done all the same)")
	}
	var u *url.Error
	if errors.As(err, &u) { // the address before it is ours, and says nothing to anybody
		return u.Err
	}
	return err
}
