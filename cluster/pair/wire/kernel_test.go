//go:build labkernel

package wire

import "testing"

// The host's kernel may have no VLANs and no dummies.

func TestVLANs(t *testing.T) {
	this, that, third := network(t)
	for _, m := range []machine{this, that, third} {
		m.IP("link add link eth0 name eth0.7 type vlan id 7\nlink set eth0.7 up\nlink add none type dummy\nlink set none up")
	}
	this.IP("addr add 10.98.0.1/24 dev eth0.7\naddr add fd98::1/64 dev eth0.7\naddr add 10.96.0.1/24 dev none")
	that.IP("addr add 10.98.0.200/32 dev eth0.7\naddr add fd98::200/128 dev eth0.7")
	a := this.wire()
	a.tells("10.98.0.200 answered\nfd98::200 answered", "10.98.0.200", "fd98::200", "10.98.0.201", "fd98::201")
	a.tells("10.98.0.200 answered\nfd98::200 answered", "10.98.0.200/eth0.7", "fd98::200/eth0.7", "10.98.0.201/eth0.7")
	// The tag is another network: nobody has the IPv6 address there. (IPv4 is answered on any interface.)
	a.tells("", "fd98::200/eth0")
	a.tells("10.96.0.200 unasked: vip 10.96.0.200/32: none is no Ethernet interface: its neighbours cannot be asked", "10.96.0.200")
	third.IP("addr add 10.98.0.3/24 dev eth0.7\naddr add fd98::3/64 dev eth0.7")
	b := third.wire()
	b.tells("10.98.0.200 answered", "10.98.0.200")
	defer b.defends(always, "10.98.0.210", "fd98::210")()
	a.tells("10.98.0.210 answered\nfd98::210 answered", "10.98.0.210", "fd98::210")
	a.tells("", "10.98.0.210/eth0", "fd98::210/eth0") // what is defended there is another network's
}
