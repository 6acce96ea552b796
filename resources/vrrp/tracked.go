package vrrp

import (
	"fmt"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/vrrp/track"
)

// TrackStatus is what is known of something that an instance tracks.
type TrackStatus struct {
	Kind    string `json:"kind"` // interface, script, process or file
	Name    string `json:"name"`
	Weight  int    `json:"weight"` // 0: it makes a FAULT
	Reverse bool   `json:"reverse,omitempty"`
	Known   bool   `json:"known"` // otherwise it has no result yet
	Well    bool   `json:"well"`  // it is up, succeeds, runs; a file has the number 0
	Value   int    `json:"value,omitempty"`
}

// String says how it is: "script chk_haproxy fails".
func (t TrackStatus) String() string {
	name := t.Kind + " " + t.Name
	switch {
	case !t.Known:
		return name + " has no result yet"
	case t.Kind == "file":
		return fmt.Sprintf("%s has %d", name, t.Value)
	case t.Kind == "interface" && t.Well:
		return name + " is up"
	case t.Kind == "interface":
		return name + " is down"
	case t.Kind == "process" && t.Well:
		return name + " runs"
	case t.Kind == "process":
		return name + " does not run as it has to"
	case t.Well:
		return name + " succeeds"
	}
	return name + " fails"
}

// tracks returns what an instance tracks itself, and what its sync group, or nil, does.
func (w *world) tracks(i *conf.VRRPInstance, group *conf.VRRPSyncGroup) (all []TrackStatus) {
	links := func(items []conf.VRRPTrack) {
		for _, t := range items {
			up, known := w.links[t.Name]
			all = append(all, TrackStatus{"interface", t.Name, t.Weight, t.Reverse, known || w.linked, up, 0})
		}
	}
	results := func(kind track.Kind, what string, items []conf.VRRPTrack) {
		for _, t := range items {
			r, known := w.results[tracked{kind, t.Name}]
			well := r.Well
			if kind == track.File {
				well = known && r.Value == 0
			}
			all = append(all, TrackStatus{what, t.Name, t.Weight, t.Reverse, known, well, r.Value})
		}
	}
	links(i.TrackInterfaces)
	results(track.Script, "script", i.TrackScripts)
	results(track.Process, "process", i.TrackProcesses)
	results(track.File, "file", i.TrackFiles)
	if group != nil {
		links(group.TrackInterfaces)
		results(track.Script, "script", group.TrackScripts)
		results(track.Process, "process", group.TrackProcesses)
		results(track.File, "file", group.TrackFiles)
	}
	return all
}
