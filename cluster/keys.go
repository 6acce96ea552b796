package cluster

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// keysTimeout bounds what one node is given to show or change its keys.
const keysTimeout = 5 * time.Second

// NodeKeys is what a node holds. Keys themselves never leave a node but to
// another one that is to have them.
type NodeKeys struct {
	Node   string    `json:"node"`
	Away   string    `json:"away,omitempty"` // why it could not be asked; nothing else is known then
	Active int       `json:"active,omitempty"`
	Keys   []KeyInfo `json:"keys,omitempty"`  // by number
	Fault  string    `json:"fault,omitempty"` // why its file is not what is in force
}

// KeyInfo names a key.
type KeyInfo struct {
	Index       int    `json:"index"` // 1 to 15
	Fingerprint string `json:"fingerprint"`
}

func (k NodeKeys) print(index int) string {
	for _, x := range k.Keys {
		if x.Index == index {
			return x.Fingerprint
		}
	}
	return ""
}

// KeyChange is what a change of keys came to.
type KeyChange struct {
	Key    KeyInfo  `json:"key"`
	Done   []string `json:"done"`             // nodes on which it is so now
	Undone []Undone `json:"undone,omitempty"` // the others: the same command again does those
}

// Undone is a node on which a change was not made.
type Undone struct {
	Node string `json:"node"`
	Why  string `json:"why"`
}

// wireKey is a key on its way to another node; it prints as stars.
type wireKey []byte

func (wireKey) Format(f fmt.State, verb rune) { conf.Secret{}.Format(f, verb) }

// keysRequest asks a node to show or change its keys.
type keysRequest struct {
	Do          string  `json:"do"` // list, claim, add, use, remove, release
	Token       string  `json:"token,omitempty"`
	By          string  `json:"by,omitempty"`
	Index       int     `json:"index,omitempty"`
	Fingerprint string  `json:"fingerprint,omitempty"` // of the key that is meant
	Key         wireKey `json:"key,omitempty"`         // add
}

// changeKeys does on this node what this or another one asks.
func (n *Node) changeKeys(q *keysRequest) (NodeKeys, error) {
	ring := n.cfg.Keys
	if ring == nil || q == nil {
		return NodeKeys{Node: n.self}, errors.New("keys cannot be changed here while the daemon runs")
	}
	err := n.changeRing(ring, q)
	if err == nil && q.Do != "list" && q.Do != "claim" && q.Do != "release" {
		n.logger.Info("authkeys changed", "what", q.Do, "key", q.Index, "fingerprint", q.Fingerprint, "by", q.By)
	}
	if err != nil || q.Do == "release" {
		return NodeKeys{Node: n.self}, err
	}
	k, err := ring.list()
	k.Node = n.self
	return k, err
}

func (n *Node) changeRing(ring *KeyRing, q *keysRequest) error {
	switch q.Do {
	case "list":
		return nil
	case "claim":
		return ring.claim(q.Token, q.By)
	case "release":
		ring.release(q.Token)
		return nil
	case "add":
		return ring.change(q.Token, func(data []byte) ([]byte, error) {
			if held, ok := ring.held(q.Index); ok && string(held.Bytes()) == string(q.Key) {
				return data, nil
			}
			return conf.AddAuthKey(data, q.Index, conf.NewSecret(string(q.Key)))
		})
	case "use", "remove":
		return ring.change(q.Token, func(data []byte) ([]byte, error) {
			held, ok := ring.held(q.Index)
			if !ok && q.Do == "remove" {
				return data, nil
			}
			if p, err := ring.fingerprint(held); !ok || err != nil || p != q.Fingerprint {
				return nil, fmt.Errorf("key %d is not the one that is meant", q.Index)
			}
			if q.Do == "use" {
				return conf.UseAuthKey(data, q.Index)
			}
			return conf.RemoveAuthKey(data, q.Index)
		})
	}
	return fmt.Errorf("%q is not known here: run the same version on every node", q.Do)
}

// askKeys asks one node, this one too.
func (n *Node) askKeys(ctx context.Context, node string, q keysRequest) (NodeKeys, error) {
	if node == n.self {
		return n.changeKeys(&q)
	}
	if _, heard := n.heard()[node]; !heard {
		return NodeKeys{}, errors.New("it is not heard on any link")
	}
	ctx, cancel := context.WithTimeout(ctx, keysTimeout)
	defer cancel()
	a, err := n.calls.ask(ctx, node, request{Op: "keys", Keys: &q})
	switch {
	case err != nil:
		return NodeKeys{}, errors.New(strings.TrimPrefix(strings.TrimPrefix(err.Error(), "ask "), node+": "))
	case a.Keys == nil:
		return NodeKeys{}, errors.New("it answered without its keys")
	}
	return *a.Keys, nil
}

// askKeysOf asks nodes at once; an error is that node's Away.
func (n *Node) askKeysOf(ctx context.Context, nodes []string, q func(node string) keysRequest) []NodeKeys {
	all := make([]NodeKeys, len(nodes))
	var wg sync.WaitGroup
	for i, name := range nodes {
		wg.Go(func() {
			k, err := n.askKeys(ctx, name, q(name))
			if err != nil {
				k = NodeKeys{Away: err.Error()}
			}
			k.Node = name
			all[i] = k
		})
	}
	wg.Wait()
	return all
}

// memberNames are the nodes of the cluster: by the log, or before that by `nodes:`.
func (n *Node) memberNames() []string {
	var names []string
	nodes, _ := n.nodesOf(n.State())
	for _, c := range nodes {
		names = append(names, c.Name)
	}
	return names
}

// Keys returns the keys of every configured node, in the order of `nodes:`.
func (n *Node) Keys(ctx context.Context) []NodeKeys {
	return n.askKeysOf(ctx, n.memberNames(), func(string) keysRequest { return keysRequest{Do: "list"} })
}

// keysCommand is one change of keys: it has claimed the rings of the nodes that answer.
type keysCommand struct {
	n     *Node
	token string
	by    string
	nodes []NodeKeys
}

func (n *Node) beginKeys(ctx context.Context) keysCommand {
	c := keysCommand{n: n, token: rand.Text(), by: OrderOf(ctx).By}
	c.nodes = n.askKeysOf(ctx, n.memberNames(), func(string) keysRequest { return keysRequest{Do: "claim", Token: c.token, By: c.by} })
	return c
}

func (c keysCommand) end() {
	ctx, cancel := context.WithTimeout(context.Background(), keysTimeout)
	defer cancel()
	c.n.askKeysOf(ctx, c.n.memberNames(), func(string) keysRequest { return keysRequest{Do: "release", Token: c.token} })
}

// on does the same on every node that has been claimed.
func (c keysCommand) on(ctx context.Context, key KeyInfo, q keysRequest) (KeyChange, error) {
	q.Token, q.By, q.Index = c.token, c.by, key.Index
	r := KeyChange{Key: key}
	var there []string
	prints := map[string]string{}
	for _, k := range c.nodes {
		if k.Away != "" {
			r.Undone = append(r.Undone, Undone{k.Node, k.Away})
			continue
		}
		there = append(there, k.Node)
		prints[k.Node] = cmp.Or(key.Fingerprint, k.print(key.Index))
	}
	for _, k := range c.n.askKeysOf(ctx, there, func(node string) keysRequest {
		q := q
		q.Fingerprint = prints[node]
		return q
	}) {
		if k.Away != "" {
			r.Undone = append(r.Undone, Undone{k.Node, k.Away})
		} else {
			r.Done = append(r.Done, k.Node)
		}
	}
	if len(r.Done) == 0 {
		var all []string
		for _, u := range r.Undone {
			all = append(all, u.Node+": "+u.Why)
		}
		return r, errors.New("nothing was changed on any node\n" + strings.Join(all, "\n"))
	}
	return r, nil
}

// AddKey gives every node that answers a key. Index 0 takes a free number, or
// the one under which the key is there already. Without a key the one that
// this node holds under the number goes to those that lack it.
func (n *Node) AddKey(ctx context.Context, index int, key conf.Secret) (KeyChange, error) {
	ring := n.cfg.Keys
	if ring == nil {
		return KeyChange{}, errNoRing
	}
	if len(key.Bytes()) == 0 {
		held, ok := ring.key(index)
		if !ok {
			return KeyChange{}, fmt.Errorf("this node holds no key %d; give one, or let `keepbeat keys generate --add` make one", index)
		}
		key = held
	}
	if err := conf.CheckAuthKey(index, key); err != nil {
		return KeyChange{}, err
	}
	print, err := ring.Fingerprint(key)
	if err != nil {
		return KeyChange{}, err
	}
	c := n.beginKeys(ctx)
	defer c.end()
	if index, err = numberFor(c.nodes, index, print); err != nil {
		return KeyChange{}, err
	}
	return c.on(ctx, KeyInfo{index, print}, keysRequest{Do: "add", Key: wireKey(key.Bytes())})
}

var errNoRing = errors.New("keys cannot be changed here while the daemon runs")

// numberFor finds the number of a key that is added, or says why it cannot have the one asked for.
func numberFor(nodes []NodeKeys, index int, print string) (int, error) {
	used := map[int]bool{}
	for _, k := range nodes {
		for _, x := range k.Keys {
			used[x.Index] = true
			switch same := x.Fingerprint == print; {
			case same && index == 0:
				index = x.Index
			case same && x.Index != index:
				return 0, fmt.Errorf("that key is key %d already on %s", x.Index, k.Node)
			}
		}
	}
	for _, k := range nodes {
		if p := k.print(index); index != 0 && p != "" && p != print {
			return 0, fmt.Errorf("key %d is another one on %s (fingerprint %s); take another number, or none for a free one", index, k.Node, p)
		}
	}
	if index != 0 {
		return index, nil
	}
	for i := 1; i <= conf.MaxKeyIndex; i++ {
		if !used[i] {
			return i, nil
		}
	}
	return 0, fmt.Errorf("the numbers 1 to %d are all taken: remove a key first (`keepbeat keys list`)", conf.MaxKeyIndex)
}

// UseKey makes every node seal with a key. It changes nothing unless every
// configured node answers and holds that very key.
func (n *Node) UseKey(ctx context.Context, index int) (KeyChange, error) {
	c := n.beginKeys(ctx)
	defer c.end()
	print, err := heldByAll(c.nodes, index)
	if err != nil {
		return KeyChange{}, err
	}
	return c.on(ctx, KeyInfo{index, print}, keysRequest{Do: "use"})
}

// heldByAll returns the fingerprint of a key that every node holds, or says who does not.
func heldByAll(nodes []NodeKeys, index int) (print string, err error) {
	var lack []string
	for _, k := range nodes {
		print = cmp.Or(print, k.print(index))
	}
	for _, k := range nodes {
		switch p := k.print(index); {
		case k.Away != "":
			lack = append(lack, fmt.Sprintf("%s cannot be asked: %s", k.Node, k.Away))
		case k.Fault != "":
			lack = append(lack, k.Node+": "+k.Fault)
		case p == "":
			lack = append(lack, fmt.Sprintf("%s does not hold key %d", k.Node, index))
		case p != print:
			lack = append(lack, fmt.Sprintf("key %d is another one on %s (fingerprint %s, not %s)", index, k.Node, p, print))
		}
	}
	if len(lack) == 0 {
		return print, nil
	}
	if print == "" && !slices.ContainsFunc(nodes, func(k NodeKeys) bool { return k.Away != "" || k.Fault != "" }) {
		return "", fmt.Errorf("no node holds key %d; add it first: `keepbeat keys add`", index)
	}
	return "", fmt.Errorf("key %d is not used before every node holds it:\n%s", index, strings.Join(lack, "\n"))
}

// RemoveKey takes a key from every node. It is refused while a node seals with
// it, and while a node is away unless Order.Force is given.
func (n *Node) RemoveKey(ctx context.Context, index int) (KeyChange, error) {
	c := n.beginKeys(ctx)
	defer c.end()
	if err := removable(c.nodes, index, OrderOf(ctx).Force); err != nil {
		return KeyChange{}, err
	}
	return c.on(ctx, KeyInfo{Index: index}, keysRequest{Do: "remove"})
}

func removable(nodes []NodeKeys, index int, force bool) error {
	var sealing, away []string
	held := false
	for _, k := range nodes {
		held = held || k.print(index) != ""
		switch {
		case k.Away != "":
			away = append(away, fmt.Sprintf("%s cannot be asked: %s", k.Node, k.Away))
		case k.Active == index:
			sealing = append(sealing, k.Node)
		}
	}
	switch {
	case len(sealing) > 0:
		return fmt.Errorf("key %d is what %s seals with; let every node use another one first: `keepbeat keys use N`", index, strings.Join(sealing, ", "))
	case !held && len(away) == 0:
		return fmt.Errorf("no node holds key %d", index)
	case len(away) > 0 && !force:
		return &ForceError{
			fmt.Sprintf("%s\na node that still seals with key %d would not be heard any more, until its authkeys is mended by hand", strings.Join(away, "\n"), index),
			fmt.Sprintf("keepbeat keys remove %d --force", index),
		}
	}
	return nil
}
