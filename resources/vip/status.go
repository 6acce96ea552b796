package vip

import (
	"fmt"
)

// Ready tells why the address could not be started here: no such interface, no
// carrier, more than one possible interface, or it stands there and is not ours.
func (v *vip) Ready() error {
	if err := v.m.view(); err != nil {
		return v.errorf("%w", err)
	}
	defer v.m.mu.Unlock()
	rec, ok := v.settled()
	if !ok {
		var err error
		if rec, err = v.choose(); err != nil {
			return err
		}
	}
	l, ok := v.m.linkByName(rec.Interface)
	if !ok {
		return v.errorf("%s: no such interface; this node has %s", rec.Interface, v.m.names())
	}
	if f := l.Fault(); f != "" {
		return v.errorf("%s: %s", l.Name, f)
	}
	return nil
}

// Detail is what status shows of an address.
type Detail struct {
	Address       string `json:"address"` // with the prefix once it is known
	Interface     string `json:"interface,omitempty"`
	Label         string `json:"label,omitempty"`
	Carrier       bool   `json:"carrier"`
	Announcements uint64 `json:"announcements"` // rounds sent; in IPv4 each is a request and a reply
	Restored      uint64 `json:"restored"`      // times that somebody deleted it and it was put back
	Fault         string `json:"fault,omitempty"`
}

// Detail returns a Detail.
func (v *vip) Detail() any {
	v.mu.Lock()
	d := Detail{Address: v.spec.Address.String(), Interface: v.spec.Interface, Label: v.spec.Label,
		Announcements: v.announced, Restored: v.restored}
	if v.spec.Prefix >= 0 {
		d.Address = fmt.Sprintf("%s/%d", v.spec.Address, v.spec.Prefix)
	}
	if v.rec != nil {
		d.Address, d.Interface, d.Label = v.rec.Address.String(), v.rec.Interface, v.rec.Label
	}
	if v.failed != nil {
		d.Fault = v.failed.Error()
	}
	v.mu.Unlock()
	if err := v.m.view(); err != nil {
		d.Fault = err.Error()
		return d
	}
	defer v.m.mu.Unlock()
	if l, ok := v.m.linkByName(d.Interface); ok {
		d.Carrier = l.Fault() == ""
	}
	return d
}
