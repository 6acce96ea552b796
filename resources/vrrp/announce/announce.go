package announce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/vrrp"
)

// listenAgain is the pause after sockets could not be had.
const listenAgain = 5 * time.Second

// announcer is one virtual router of a group.
type announcer struct {
	spec  conf.Announcer
	log   *slog.Logger
	talk  *vrrp.Announcer
	alarm chan struct{}
}

var (
	_ resources.Runner     = (*announcer)(nil)
	_ resources.Alarmer    = (*announcer)(nil)
	_ resources.Announcing = (*announcer)(nil)
	_ resources.Opener     = (*announcer)(nil)
	_ resources.Readier    = (*announcer)(nil)
	_ resources.Replacer   = (*announcer)(nil)
	_ resources.Accuser    = (*announcer)(nil)
	_ resources.Detailer   = (*announcer)(nil)
	_ resources.Maker      = (*Maker)(nil)
)

// Routers implements resources.Announcing.
func (a *announcer) Routers() []resources.VirtualRouter {
	return []resources.VirtualRouter{{ID: a.spec.Instance.VRID, IPv6: a.spec.Instance.IPv6}}
}

func (a *announcer) Record() (json.RawMessage, error) {
	return json.Marshal(record{a.spec.Instance.Interface, a.Routers()[0]})
}

// Run listens, started or not: a node that would be outbid should not get the group.
func (a *announcer) Run(ctx context.Context) {
	said := ""
	for {
		err := a.talk.Listen()
		if err == nil {
			return
		}
		if text := err.Error(); text != said {
			said = text
			a.log.Error("foreign masters are not heard; trying again", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(listenAgain):
		}
	}
}

// Start announces at once, unless it would have to yield at once.
func (a *announcer) Start(context.Context) error {
	if err := a.outbid(); err != nil {
		return err
	}
	return a.talk.Start()
}

// Stop says that this node leaves, and says nothing more.
func (a *announcer) Stop(context.Context) error { return a.talk.Stop() }

func (a *announcer) Close() error { return a.talk.Close() }

// Opened announces once more: the routers may have learned another node's link-layer address meanwhile.
func (a *announcer) Opened() { a.talk.Opened() }

// Replacing implements resources.Replacer.
func (a *announcer) Replacing(absence time.Duration) { a.talk.Replacing(absence) }

func (a *announcer) Alarm() <-chan struct{} { return a.alarm }

// conflict is told of foreign masters. One to which it has yielded makes the runner ask Monitor.
func (a *announcer) conflict(vrrp.Foreign, bool) {
	select {
	case a.alarm <- struct{}{}:
	default:
	}
}

// Monitor fails when it has yielded, or has no address to send from.
func (a *announcer) Monitor(context.Context) error {
	if err := a.outbid(); err != nil {
		return err
	}
	return a.talk.Able()
}

// Ready says the same beforehand.
func (a *announcer) Ready() error { return a.Monitor(context.Background()) }

// outbid says which foreign master it has to yield to.
func (a *announcer) outbid() error {
	f, is := a.talk.Conflict()
	if !is || a.spec.OnConflict != conf.ConflictYield {
		return nil
	}
	return fmt.Errorf("%s: the foreign router %s is master and has the better priority: the group yields (on_conflict: yield)", a.spec.Instance.Key(), f.From)
}

// Accused names the foreign master that is to be fenced. One of the same priority is
// none: so announces every node of the cluster. Nor is one of other addresses, which
// has the VRID by mistake: the router that the specification names is another.
func (a *announcer) Accused() (target, why string, heard time.Time) {
	f, is := a.talk.Conflict()
	if !is || a.spec.OnConflict != conf.ConflictFence || f.Priority <= a.spec.Instance.Priority || f.Others {
		return "", "", time.Time{}
	}
	return a.spec.Foreign, fmt.Sprintf("%s is master of %s too", f.From, a.spec.Instance.Key()), a.talk.Heard()
}

// Detail is what status shows of an announcer.
type Detail struct {
	Router     string   `json:"router"` // "VRID 51 of IPv4 on eth0"
	Version    int      `json:"version"`
	Priority   int      `json:"priority"`
	Interval   string   `json:"advert_int"`
	Addresses  []string `json:"addresses"`
	OnConflict string   `json:"on_conflict"`
	vrrp.AnnouncerStatus
	// Trouble says what is wrong though it announces.
	Trouble []string `json:"trouble,omitempty"`
}

// recent is how long an advertisement that was refused is a trouble: others send
// more often, and what has been put right is forgotten soon.
const recent = 10 * time.Second

// Detail returns a Detail.
func (a *announcer) Detail() any {
	i := &a.spec.Instance
	d := Detail{
		Router: i.Key(), Version: int(i.Version), Priority: int(i.Priority), Interval: i.Interval.String(),
		OnConflict: a.spec.OnConflict.String(), AnnouncerStatus: a.talk.Status(),
	}
	for _, x := range i.Addresses {
		d.Addresses = append(d.Addresses, x.Address.Addr().String())
	}
	if !d.Announces {
		return d
	}
	if f := d.Foreign; f != nil {
		d.Trouble = append(d.Trouble, fmt.Sprintf("the foreign router %s is master too: there are two masters (on_conflict: %s)", f, d.OnConflict))
	}
	for _, n := range d.Notes {
		if n.Refused && time.Since(n.At) < max(recent, 3*i.Interval) {
			d.Trouble = append(d.Trouble, fmt.Sprintf("it refuses the advertisements of %s for their %s: that router does not yield, and no conflict is seen; make its settings the group's", n.From, n.Why))
		}
	}
	return d
}

// dead is an announcer of a daemon that has ended.
type dead struct{}

var errDead = errors.New("vrrp: it was made of a record and can only be stopped")

func (dead) Record() (json.RawMessage, error) { return nil, errDead }
func (dead) Start(context.Context) error      { return errDead }
func (dead) Stop(context.Context) error       { return nil }
func (dead) Monitor(context.Context) error    { return errDead }
func (dead) Close() error                     { return nil }
