package conf

import (
	"time"

	"gopkg.in/yaml.v3"
)

// DefaultWatchdogTimeout is long beside every lease and short beside a reboot.
const DefaultWatchdogTimeout = 10 * time.Second

// watchdog reads `watchdog: /dev/watchdog`, or the mapping.
func (r *reader) watchdog(n *yaml.Node) (Watchdog, bool) {
	w := Watchdog{Timeout: DefaultWatchdogTimeout}
	if n.Kind == yaml.ScalarNode {
		var ok bool
		w.Device, ok = r.path(n)
		return w, ok
	}
	var device opt[string]
	var timeout opt[time.Duration]
	if !r.mapping(n, "watchdog", watchdogFields(r, &device, &timeout), nil) {
		return w, false
	}
	if device.at == nil {
		r.errorf(n, "\"device\" is missing; write \"device: /dev/watchdog\"")
	}
	w.Device, w.Timeout = device.v, timeout.or(w.Timeout)
	return w, device.ok && (timeout.at == nil || timeout.ok)
}

func watchdogFields(r *reader, device *opt[string], timeout *opt[time.Duration]) []field {
	read := r.duration(time.Second, 10*time.Minute)
	return []field{
		{"device", "The watchdog device, /dev/watchdog. Required.", into(device, r.path)},
		{"timeout", "From the last feeding to the reset, whole seconds, 1s to 10m. Default 10s.", into(timeout, func(n *yaml.Node) (time.Duration, bool) {
			d, ok := read(n)
			if ok && d%time.Second != 0 {
				r.errorf(n, "%s: a watchdog counts whole seconds", brief(d))
				return 0, false
			}
			return d, ok
		})},
	}
}
