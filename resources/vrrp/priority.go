package vrrp

import (
	"fmt"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/vrrp/track"
)

// tracked names what a router depends on.
type tracked struct {
	kind track.Kind
	name string
}

// world is what is known of that which routers depend on.
type world struct {
	linked  bool            // all links are known
	links   map[string]bool // up
	results map[tracked]track.Result
}

// Standing is what the world makes of an instance.
type Standing struct {
	Priority uint8  // effective, 1 to 255
	Lacks    string // why it cannot be anything but in state FAULT; "" if it can
	Waits    bool   // for the first result of something it cannot be without
}

// stand reckons what an instance is worth. group is its sync group, or nil:
// weights count in a group only if the group says so; what has no weight always does.
func (w *world) stand(i *conf.VRRPInstance, group *conf.VRRPSyncGroup) Standing {
	s := sum254{base: int(i.Priority)}
	weights := group == nil || group.Weights
	if !i.DontTrack {
		s.links(w, []conf.VRRPTrack{{Name: i.Interface}}, false)
	}
	s.links(w, i.TrackInterfaces, weights)
	s.results(w, track.Script, i.TrackScripts, weights)
	s.results(w, track.Process, i.TrackProcesses, weights)
	s.results(w, track.File, i.TrackFiles, weights)
	if group != nil {
		s.links(w, group.TrackInterfaces, weights)
		s.results(w, track.Script, group.TrackScripts, weights)
		s.results(w, track.Process, group.TrackProcesses, weights)
		s.results(w, track.File, group.TrackFiles, weights)
	}
	return Standing{s.priority(), s.lacks, s.waits}
}

// sum254 adds weights to a priority.
type sum254 struct {
	base  int
	add   int64
	lacks string
	waits bool
}

// priority is 1 to 254, whatever the weights; the owner of the addresses stays the owner.
func (s *sum254) priority() uint8 {
	if s.base == priorityOwner {
		return priorityOwner
	}
	return uint8(max(1, min(254, int64(s.base)+s.add)))
}

func (s *sum254) links(w *world, items []conf.VRRPTrack, weights bool) {
	for _, t := range items {
		up, known := w.links[t.Name]
		if !known && !w.linked {
			s.waits = s.waits || t.Weight == 0
			continue
		}
		ill := "interface %s is down"
		if !known {
			ill = "interface %s is not there"
		}
		s.item(t, up, weights, ill, "interface %s is up")
	}
}

func (s *sum254) results(w *world, kind track.Kind, items []conf.VRRPTrack, weights bool) {
	for _, t := range items {
		r, known := w.results[tracked{kind, t.Name}]
		switch {
		case !known:
			// Nothing is known before a first look; what has no weight is waited for.
			s.waits = s.waits || t.Weight == 0
		case kind == track.File:
			s.file(t, r.Value, weights)
		default:
			ill, well := "script %s fails", "script %s does not fail"
			if kind == track.Process {
				ill, well = "process %s does not run as it has to", "process %s runs"
			}
			s.item(t, r.Well, weights, ill, well)
		}
	}
}

// item counts an item; ifIll and ifWell say what is lacking then, with its name.
func (s *sum254) item(t conf.VRRPTrack, well, weights bool, ifIll, ifWell string) {
	switch {
	case t.Weight != 0:
		if weights && (t.Weight > 0) == well {
			s.add += signed(t)
		}
	case s.lacks != "" || well != t.Reverse:
	case well:
		s.lacks = fmt.Sprintf(ifWell, t.Name)
	default:
		s.lacks = fmt.Sprintf(ifIll, t.Name)
	}
}

// signed is a weight with the sign that it counts with: keepalived's reverse has
// the priority lowered where it was raised, under the same condition.
func signed(t conf.VRRPTrack) int64 {
	if t.Reverse {
		return -int64(t.Weight)
	}
	return int64(t.Weight)
}

// file adds the number in a file times its weight. As in keepalived, without a
// weight any number but 0 is a fault, and with one a product below -253 is.
func (s *sum254) file(t conf.VRRPTrack, value int, weights bool) {
	// A product of two numbers within these bounds is far from overflowing.
	v := max(-1<<31, min(1<<31, int64(value)))
	product := v * signed(t)
	switch {
	case t.Weight == 0:
		if (v != 0) != t.Reverse && s.lacks == "" {
			s.lacks = fmt.Sprintf("file %s has %d", t.Name, value)
		}
	case !weights:
	case product < -253:
		if s.lacks == "" {
			s.lacks = fmt.Sprintf("file %s has %d, with its weight below -253", t.Name, value)
		}
	default:
		s.add += min(product, 254)
	}
}
