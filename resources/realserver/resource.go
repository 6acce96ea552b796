package realserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
)

// Maker makes the resources of kind realserver.
type Maker struct{ Host *Host }

var _ resources.Maker = Maker{}

// New implements resources.Maker.
func (m Maker) New(env resources.Env, _ conf.Spec, r conf.Resource) (resources.Resource, error) {
	rec := record{By: "resource " + env.Group + "/" + r.Name, Addresses: r.RealServer}
	return newResource(m.Host, env, rec), nil
}

// Recover implements resources.Maker.
func (m Maker) Recover(env resources.Env, raw json.RawMessage) (resources.Resource, error) {
	rec, err := parseRecord(raw)
	if err != nil {
		return nil, err
	}
	return newResource(m.Host, env, rec), nil
}

// record is what the journal keeps. What has to be put back is in the Store.
type record struct {
	By        string            `json:"by"`
	Addresses []conf.RealServer `json:"addresses"`
}

func parseRecord(raw []byte) (record, error) {
	var r record
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	err := d.Decode(&r)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("something follows it")
		}
	}
	if err == nil && r.By == "" {
		err = errors.New("nobody holds it")
	}
	for _, a := range r.Addresses {
		if err == nil {
			err = Check(a)
		}
	}
	if err != nil {
		return record{}, fmt.Errorf("journal: record of a realserver: %w", err)
	}
	return r, nil
}

// resource is a Host's part in a group.
type resource struct {
	host   *Host
	log    *slog.Logger
	record record
}

func newResource(h *Host, env resources.Env, r record) *resource {
	log := env.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &resource{host: h, log: log, record: r}
}

func (r *resource) Record() (json.RawMessage, error) { return json.Marshal(r.record) }

func (r *resource) Start(context.Context) error {
	return r.said(r.host.Set(r.record.By, r.record.Addresses))
}

func (r *resource) Stop(context.Context) error { return r.said(r.host.Stop(r.record.By, nil)) }

// said logs what was left as somebody else has made it.
func (r *resource) said(notes []string, err error) error {
	for _, n := range notes {
		r.log.Warn("realserver: " + n)
	}
	return r.wrap(err)
}

// Monitor puts back what somebody has taken away.
func (r *resource) Monitor(ctx context.Context) error {
	_, lines, err := r.host.Status()
	if err != nil {
		return r.wrap(err)
	}
	needed := All(r.record.Addresses)
	var missing []string
	for _, l := range lines {
		if !l.There && slices.Contains(needed, l.Step) {
			missing = append(missing, l.Step.String())
		}
	}
	if len(missing) == 0 {
		return nil
	}
	r.log.Warn("realserver: somebody has undone what was set up; it is made again", "steps", strings.Join(missing, "; "))
	return r.Start(ctx)
}

func (r *resource) Close() error { return nil }

func (r *resource) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("realserver: %w", err)
}
