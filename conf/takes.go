package conf

import "strings"

// Takes says in words what a resource has for itself on the node that runs it,
// whatever group it stands in and however it is written there: "address
// 192.168.56.200" on any interface, "pool ldirectord.yaml", of every other kind its name.
func (r Resource) Takes() string {
	switch {
	case r.Kind == KindVIP && r.VIP != nil:
		return "address " + r.VIP.Address.Unmap().WithZone("").String()
	case r.Kind == KindLdirectord:
		return "pool " + r.Pool
	case r.Kind == KindVRRP && r.VRRP != nil:
		return r.VRRP.name()
	case strings.HasPrefix(r.Name, string(r.Kind)+" "): // the default of a name
		return r.Name
	}
	return string(r.Kind) + " " + r.Name
}
