package conf

import "time"

// Fencing is the section `fencing:` of haresources.yaml: the devices that make
// certain from outside that a node does nothing any more (STONITH).
type Fencing struct {
	// Action is what is done to a node that must be fenced: FenceReboot (default) or FenceOff.
	Action FenceAction `json:"action"`
	// PriorityDelay is how long the node of a pair that has less at stake waits
	// before it fences the other. 0 to 5 min; default 1 s.
	PriorityDelay time.Duration `json:"priority_fencing_delay"`
	// RandomDelay bounds a random wait before each fencing, against two nodes
	// that fence each other at the same moment. 0 to 5 min; default 0.
	RandomDelay time.Duration `json:"random_delay"`
	Devices     []FenceDevice `json:"devices"` // in the order of the file
	// Topology names, by node, the levels that are tried in turn; of a level
	// every device has to succeed. A node that is not in it has one level for
	// each device that names it as a target, in the order of the file.
	Topology map[string][][]string `json:"topology,omitempty"`
}

// FenceAction is what is done to a node.
type FenceAction uint8

// Fence actions. The zero value is invalid.
const (
	_ FenceAction = iota
	FenceOff
	FenceReboot
	FenceOn // unfencing
)

// FenceType is what operates a device.
type FenceType uint8

// Types of devices. The zero value is invalid.
const (
	_             FenceType = iota
	FenceAgent              // a program of the fence-agents package: `agent: fence_ipmilan`
	FenceExternal           // a plugin of cluster-glue: `external: ipmi`
	FenceScript             // a program of the administrator's: `script: /etc/keepbeat/fence.sh`
	FenceManual             // a person, who says `keepbeat fence confirm NODE`: `manual: yes`
	FenceWatchdog           // the target's own watchdog, which is waited for: `watchdog: yes`
)

// FenceDevice is one device.
type FenceDevice struct {
	Name    string           `json:"name"`
	Type    FenceType        `json:"type"`
	Program string           `json:"program,omitempty"` // FenceAgent: its name or path; FenceExternal: the plugin's name; FenceScript: a path
	Params  map[string]Param `json:"params,omitempty"`
	// Targets are the nodes that the device can fence, with what it calls them
	// (a plug, a port, a domain; empty: by the node's name).
	Targets []FenceTarget `json:"targets"`
	RunOn   []string      `json:"run_on,omitempty"` // directors that can operate it; empty: every director but the target

	Timeout         time.Duration `json:"timeout"`          // of one try of an action, 1 s to 30 min; default 60 s. FenceWatchdog: how long the target's reset may take, from its last sign of life
	Retries         int           `json:"retries"`          // after the first try, 0 to 20; default 1
	Delay           time.Duration `json:"delay"`            // before the first try, 0 to 5 min; default 0
	MonitorInterval time.Duration `json:"monitor_interval"` // between looks whether it still answers; 0: never; default 60 s, FenceManual and FenceWatchdog never
}

// FenceTarget is a node as a device calls it.
type FenceTarget struct {
	Node string `json:"node"`
	Port string `json:"port,omitempty"`
}

// Param is a parameter of a device: written out, or the place where a secret
// is. A secret itself is never part of the specification.
type Param struct {
	Value string `json:"value,omitempty"`
	File  string `json:"file,omitempty"` // its first line, on the node that operates the device
	Env   string `json:"env,omitempty"`  // a variable of the daemon's environment
}
