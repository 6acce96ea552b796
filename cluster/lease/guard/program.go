package guard

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// direction is the side of an interface that a program sits on.
type direction uint8

const (
	ingress direction = iota + 1
	egress
)

func (d direction) String() string {
	switch d {
	case ingress:
		return "ingress"
	case egress:
		return "egress"
	}
	return fmt.Sprintf("direction(%d)", uint8(d))
}

// framing says how the frames of an interface begin.
type framing uint8

const (
	// framedEthernet: an Ethernet header, then maybe VLAN tags that were not taken off.
	framedEthernet framing = iota + 1
	// framedOther: an IP header (tun, WireGuard, ipip, ppp), or a link header
	// that the kernel knows and we do not (InfiniBand, gre with a template).
	framedOther
)

// variant names one of the four programs.
type variant struct {
	dir   direction
	frame framing
}

// variants are all programs that a guard loads.
var variants = [...]variant{
	{ingress, framedEthernet}, {egress, framedEthernet},
	{ingress, framedOther}, {egress, framedOther},
}

// name is the program's name as `bpftool prog` shows it; the kernel allows 15 characters.
func (v variant) name() string {
	n := "kbguard_in"
	if v.dir == egress {
		n = "kbguard_out"
	}
	if v.frame == framedOther {
		n += "_l3"
	}
	return n
}

// What a program returns to tc (linux/pkt_cls.h).
const (
	tcActUnspec = -1 // go on with the filters of other people
	tcActShot   = 2
)

const (
	ethPIP     = 0x0800
	ethPARP    = 0x0806
	ethPIPv6   = 0x86dd
	ethP8021Q  = 0x8100
	ethP8021AD = 0x88a8
	ethPQinQ   = 0x9100 // what switches used before 802.1ad had a number

	protoHopByHop = 0
	protoRouting  = 43
	protoFragment = 44
	protoAH       = 51
	protoICMPv6   = 58
	protoDstOpts  = 60
	protoVRRP     = 112
	protoMobility = 135
	protoHIP      = 139
	protoShim6    = 140

	icmp6NS = 135
	icmp6NA = 136
)

const (
	// maxTags and maxExtensions bound the loops, which are unrolled. The kernel
	// itself gives up after 8 tags (VLAN_MAX_DEPTH). A frame with more of either
	// cannot be judged and is dropped while the lease is not live.
	maxTags       = 8
	maxExtensions = 8
)

// Offsets in struct __sk_buff (linux/bpf.h), which is ABI.
const (
	skbProtocol = 16
	skbIfindex  = 40
)

// The stack, from the frame pointer down.
const (
	fpScratch = -8  // 8 bytes: key of the state map, short loads
	fpVRID    = -16 // 8 bytes: vridKey
	fpAddr    = -32 // 16 bytes: key of the address map
	fpHdr     = -72 // 40 bytes: the header that is looked at
	fpLive    = -80 // 8 bytes: 0 when the lease is not live; otherwise only what is cut is dropped
	fpNobody  = -88 // 8 bytes: 1 on the way out when the IPv6 source is ::
)

// Registers that survive helper calls.
const (
	rCtx    = asm.R6
	rOff    = asm.R7 // where the header that is looked at begins
	rProto  = asm.R8 // EtherType, then IP protocol
	rFamily = asm.R9 // 4 or 6
)

// assembler collects instructions; a label names the next one.
type assembler struct {
	insns asm.Instructions
	next  string
	maps  *maps
	found int // lookups so far: they number the labels
}

func (a *assembler) emit(ins ...asm.Instruction) {
	for _, i := range ins {
		if a.next != "" {
			i = i.WithSymbol(a.next)
			a.next = ""
		}
		a.insns = append(a.insns, i)
	}
}

func (a *assembler) label(name string) {
	if a.next != "" {
		// Two names for one place: the first becomes an instruction that does nothing.
		a.emit(asm.Mov.Reg(asm.R0, asm.R0))
	}
	a.next = name
}

// loader copies n bytes at rOff+delta of the frame to the stack, and jumps to fail if the frame is shorter.
type loader func(a *assembler, delta, fp, n int32, fail string)

// loadFrame counts from the frame's first byte. The helper also reads what is not in the linear part.
func loadFrame(a *assembler, delta, fp, n int32, fail string) {
	a.emit(
		asm.Mov.Reg(asm.R1, rCtx),
		asm.Mov.Reg(asm.R2, rOff), asm.Add.Imm(asm.R2, delta),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, fp),
		asm.Mov.Imm(asm.R4, n),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, fail),
	)
}

// loadNet counts from the network header, wherever the link layer put it. It reads the linear part only.
func loadNet(a *assembler, delta, fp, n int32, fail string) {
	const bpfHdrStartNet = 1
	a.emit(
		asm.Mov.Reg(asm.R1, rCtx),
		asm.Mov.Reg(asm.R2, rOff), asm.Add.Imm(asm.R2, delta),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, fp),
		asm.Mov.Imm(asm.R4, n),
		asm.Mov.Imm(asm.R5, bpfHdrStartNet),
		asm.FnSkbLoadBytesRelative.Call(),
		asm.JNE.Imm(asm.R0, 0, fail),
	)
}

// dropIfIn jumps to drop when the key at fp is in the map, and cut or the lease not live.
func (a *assembler) dropIfIn(m *ebpf.Map, fp int32) {
	a.found++
	pass := fmt.Sprintf("open%d", a.found)
	a.emit(
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, fp),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, pass),
		asm.LoadMem(asm.R1, asm.RFP, fpLive, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "drop"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.JEq.Imm(asm.R1, heldCut, "drop"),
	)
	a.label(pass)
}

// dropIfIPv4 jumps to drop when the IPv4 address on the stack at fp is held.
// IPv4 addresses are in the map as ::ffff:a.b.c.d.
func (a *assembler) dropIfIPv4(fp int16) {
	a.emit(
		asm.LoadMem(asm.R1, asm.RFP, fp, asm.Word),
		asm.Mov.Imm(asm.R2, 0),
		asm.StoreMem(asm.RFP, fpAddr, asm.R2, asm.DWord),
		asm.Mov.Imm(asm.R2, 0xffff),
		asm.HostTo(asm.BE, asm.R2, asm.Word),
		asm.StoreMem(asm.RFP, fpAddr+8, asm.R2, asm.Word),
		asm.StoreMem(asm.RFP, fpAddr+12, asm.R1, asm.Word),
	)
	a.dropIfIn(a.maps.addrs, fpAddr)
}

// byteAt loads the byte on the stack at fp into dst.
func (a *assembler) byteAt(dst asm.Register, fp int16) {
	a.emit(asm.LoadMem(dst, asm.RFP, fp, asm.Byte))
}

// halfAt loads the big-endian half word on the stack at fp into dst.
func (a *assembler) halfAt(dst asm.Register, fp int16) {
	a.emit(asm.LoadMem(dst, asm.RFP, fp, asm.Half), asm.HostTo(asm.BE, dst, asm.Half))
}

// assemble writes the program of a variant.
//
// While the lease is live and nothing is cut it is two map reads and a clock
// read. Everything below "judge" runs only when that is not so.
func assemble(v variant, m *maps) asm.Instructions {
	a := &assembler{maps: m}

	// if bpf_ktime_get_boot_ns() < state[slotDeadline] goto pass
	// A state map without the slot cannot be, and would count as "not live".
	a.emit(
		asm.Mov.Reg(rCtx, asm.R1),
		asm.StoreImm(asm.RFP, fpScratch, slotDeadline, asm.Word),
		asm.LoadMapPtr(asm.R1, m.state.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, fpScratch),
		asm.FnMapLookupElem.Call(),
		asm.Mov.Imm(asm.R1, 0), asm.StoreMem(asm.RFP, fpLive, asm.R1, asm.DWord),
		asm.JEq.Imm(asm.R0, 0, "judge"),
		asm.LoadMem(asm.R7, asm.R0, 0, asm.DWord),
		asm.FnKtimeGetBootNs.Call(),
		asm.JGE.Reg(asm.R0, asm.R7, "judge"),
		// if state[slotCut] == 0 goto pass
		asm.Mov.Imm(asm.R1, 1), asm.StoreMem(asm.RFP, fpLive, asm.R1, asm.DWord),
		asm.StoreImm(asm.RFP, fpScratch, slotCut, asm.Word),
		asm.LoadMapPtr(asm.R1, m.state.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, fpScratch),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "pass"),
	)

	a.label("judge")
	switch v.frame {
	case framedEthernet:
		a.ethernet(v.dir)
	case framedOther:
		a.other(v.dir)
	}

	a.label("pass")
	a.emit(asm.Mov.Imm(asm.R0, tcActUnspec), asm.Return())
	a.label("drop")
	a.emit(asm.Mov.Imm(asm.R0, tcActShot), asm.Return())
	return a.insns
}

// ethernet reads the EtherType that is in the frame: skb->protocol is what the
// sender of a raw packet socket says it is. A tag that the kernel holds beside
// the frame (skb->vlan_tci) is not in these bytes and needs no care.
func (a *assembler) ethernet(dir direction) {
	a.emit(asm.Mov.Imm(rOff, 12))
	for i := range maxTags + 1 {
		a.label(fmt.Sprintf("type%d", i))
		loadFrame(a, 0, fpScratch, 2, "pass")
		a.halfAt(rProto, fpScratch)
		a.emit(asm.Add.Imm(rOff, 2))
		// Behind a tag's type stand two bytes of tag and the next type.
		tag := fmt.Sprintf("tag%d", i)
		a.emit(
			asm.JEq.Imm(rProto, ethP8021Q, tag),
			asm.JEq.Imm(rProto, ethP8021AD, tag),
			asm.JNE.Imm(rProto, ethPQinQ, "e_network"),
		)
		a.label(tag)
		a.emit(asm.Add.Imm(rOff, 2))
	}
	a.emit(asm.Ja.Label("drop")) // more than maxTags
	a.label("e_network")
	a.network("e", dir, loadFrame, "pass")
}

// other judges twice. First the frame as if it began with an IP header, which
// is what such interfaces put on their wire; the version is taken from the
// header. Then, for link layers with headers of their own, what the kernel
// calls the network header.
func (a *assembler) other(dir direction) {
	a.emit(asm.Mov.Imm(rOff, 0))
	loadFrame(a, 0, fpScratch, 1, "net")
	a.byteAt(asm.R1, fpScratch)
	a.emit(
		asm.RSh.Imm(asm.R1, 4),
		asm.Mov.Imm(rProto, ethPIP),
		asm.JEq.Imm(asm.R1, 4, "f_network"),
		asm.Mov.Imm(rProto, ethPIPv6),
		asm.JNE.Imm(asm.R1, 6, "net"),
	)
	a.label("f_network")
	a.network("f", dir, loadFrame, "net")

	a.label("net")
	a.emit(
		asm.Mov.Imm(rOff, 0),
		asm.LoadMem(rProto, rCtx, skbProtocol, asm.Word),
		asm.HostTo(asm.BE, rProto, asm.Half),
	)
	a.network("n", dir, loadNet, "pass")
}

// network judges the packet at rOff whose EtherType is rProto. It jumps to
// "drop", or to pass when nothing in it is held. p keeps labels apart.
func (a *assembler) network(p string, dir direction, load loader, pass string) {
	a.emit(
		asm.Mov.Imm(asm.R1, 0), asm.StoreMem(asm.RFP, fpNobody, asm.R1, asm.DWord),
		asm.JEq.Imm(rProto, ethPIP, p+"_ipv4"),
		asm.JEq.Imm(rProto, ethPIPv6, p+"_ipv6"),
		asm.JEq.Imm(rProto, ethPARP, p+"_arp"),
		asm.Ja.Label(pass),
	)
	a.arp(p, dir, load, pass)
	a.ipv4(p, dir, load, pass)
	a.ipv6(p, dir, load, pass)
	a.chain(p, dir, load, pass)
}

// arp: the addresses stand behind hardware addresses whose length is in the header (InfiniBand has 20 bytes).
//
// A probe goes out: its sender is 0, so it claims nothing and changes no table
// (RFC 5227, 1.1). A pair has to ask who has an address before it opens it.
func (a *assembler) arp(p string, dir direction, load loader, pass string) {
	a.label(p + "_arp")
	load(a, 0, fpHdr, 8, pass)
	a.halfAt(asm.R1, fpHdr+2)
	a.emit(asm.JNE.Imm(asm.R1, ethPIP, pass))
	a.byteAt(asm.R1, fpHdr+5)
	a.emit(asm.JNE.Imm(asm.R1, 4, pass))
	a.byteAt(rProto, fpHdr+4) // hardware address length
	a.emit(asm.Add.Imm(rOff, 8), asm.Add.Reg(rOff, rProto))
	if dir == egress {
		load(a, 0, fpHdr, 4, pass)
		a.emit(asm.LoadMem(asm.R1, asm.RFP, fpHdr, asm.Word), asm.JEq.Imm(asm.R1, 0, pass))
		a.dropIfIPv4(fpHdr) // sender
	}
	a.emit(asm.Add.Reg(rOff, rProto))
	load(a, 4, fpHdr, 4, pass)
	a.dropIfIPv4(fpHdr) // target
	a.emit(asm.Ja.Label(pass))
}

func (a *assembler) ipv4(p string, dir direction, load loader, pass string) {
	a.label(p + "_ipv4")
	load(a, 0, fpHdr, 20, pass)
	if dir == ingress {
		a.dropIfIPv4(fpHdr + 16)
		a.emit(asm.Ja.Label(pass))
		return
	}
	a.dropIfIPv4(fpHdr + 12)
	// VRRP, with or without the authentication header of RFC 2338, in a first or only fragment.
	a.halfAt(asm.R1, fpHdr+6)
	a.emit(asm.And.Imm(asm.R1, 0x1fff), asm.JNE.Imm(asm.R1, 0, pass))
	a.byteAt(asm.R1, fpHdr)
	a.emit(
		asm.And.Imm(asm.R1, 0x0f), asm.LSh.Imm(asm.R1, 2), // header length with options
		asm.Add.Reg(rOff, asm.R1),
	)
	a.byteAt(rProto, fpHdr+9)
	a.emit(
		asm.Mov.Imm(rFamily, 4),
		asm.JEq.Imm(rProto, protoVRRP, p+"_chain"),
		asm.JEq.Imm(rProto, protoAH, p+"_chain"),
		asm.Ja.Label(pass),
	)
}

func (a *assembler) ipv6(p string, dir direction, load loader, pass string) {
	a.label(p + "_ipv6")
	load(a, 0, fpHdr, 40, pass)
	if dir == ingress {
		a.dropIfIn(a.maps.addrs, fpHdr+24)
	} else {
		somebody := p + "_somebody"
		a.emit(
			asm.LoadMem(asm.R1, asm.RFP, fpHdr+8, asm.DWord), asm.JNE.Imm(asm.R1, 0, somebody),
			asm.LoadMem(asm.R1, asm.RFP, fpHdr+16, asm.DWord), asm.JNE.Imm(asm.R1, 0, somebody),
			asm.Mov.Imm(asm.R1, 1), asm.StoreMem(asm.RFP, fpNobody, asm.R1, asm.DWord),
		)
		a.label(somebody)
		a.dropIfIn(a.maps.addrs, fpHdr+8)
	}
	a.byteAt(rProto, fpHdr+6)
	a.emit(asm.Mov.Imm(rFamily, 6), asm.Add.Imm(rOff, 40))
	// falls into chain
}

// chain walks extension headers at rOff, of which rProto is the first, to
// ICMPv6 (a neighbour message) or VRRP.
func (a *assembler) chain(p string, dir direction, load loader, pass string) {
	a.label(p + "_chain")
	for i := range maxExtensions + 1 {
		opt, ah, frag, next := fmt.Sprintf("%s_opt%d", p, i), fmt.Sprintf("%s_ah%d", p, i),
			fmt.Sprintf("%s_frag%d", p, i), fmt.Sprintf("%s_next%d", p, i)
		a.emit(asm.JEq.Imm(rProto, protoICMPv6, p+"_icmp6"))
		if dir == egress {
			a.emit(asm.JEq.Imm(rProto, protoVRRP, p+"_vrrp"))
		}
		for _, h := range []int32{protoHopByHop, protoRouting, protoDstOpts, protoMobility, protoHIP, protoShim6} {
			a.emit(asm.JEq.Imm(rProto, h, opt))
		}
		a.emit(
			asm.JEq.Imm(rProto, protoFragment, frag),
			asm.JEq.Imm(rProto, protoAH, ah),
			asm.Ja.Label(pass),
		)
		a.label(opt) // (length + 1) * 8 bytes
		load(a, 0, fpScratch, 2, pass)
		a.byteAt(rProto, fpScratch)
		a.byteAt(asm.R1, fpScratch+1)
		a.emit(asm.Add.Imm(asm.R1, 1), asm.LSh.Imm(asm.R1, 3), asm.Add.Reg(rOff, asm.R1), asm.Ja.Label(next))

		a.label(ah) // (length + 2) * 4 bytes
		load(a, 0, fpScratch, 2, pass)
		a.byteAt(rProto, fpScratch)
		a.byteAt(asm.R1, fpScratch+1)
		a.emit(asm.Add.Imm(asm.R1, 2), asm.LSh.Imm(asm.R1, 2), asm.Add.Reg(rOff, asm.R1), asm.Ja.Label(next))

		a.label(frag) // 8 bytes; only the first fragment has the next header
		load(a, 0, fpScratch, 4, pass)
		a.byteAt(rProto, fpScratch)
		a.halfAt(asm.R1, fpScratch+2)
		a.emit(asm.And.Imm(asm.R1, 0xfff8), asm.JNE.Imm(asm.R1, 0, pass), asm.Add.Imm(rOff, 8))

		a.label(next)
	}
	a.emit(asm.Ja.Label("drop")) // more than maxExtensions

	a.label(p + "_icmp6") // RFC 4861, 4.3 and 4.4: type at 0, target at 8
	load(a, 0, fpHdr, 24, pass)
	a.byteAt(asm.R1, fpHdr)
	a.emit(
		asm.JEq.Imm(asm.R1, icmp6NA, p+"_neighbour"),
		asm.JNE.Imm(asm.R1, icmp6NS, pass),
		// From nobody it is duplicate address detection, which claims nothing, as an ARP probe (RFC 4862, 5.4.3).
		asm.LoadMem(asm.R1, asm.RFP, fpNobody, asm.DWord),
		asm.JNE.Imm(asm.R1, 0, pass),
	)
	a.label(p + "_neighbour")
	a.dropIfIn(a.maps.addrs, fpHdr+8)
	a.emit(asm.Ja.Label(pass))

	if dir != egress {
		return
	}
	a.label(p + "_vrrp") // RFC 9568, 5.1: version and type, then the VRID
	load(a, 0, fpScratch, 2, pass)
	a.byteAt(asm.R1, fpScratch+1)
	a.emit(
		asm.LoadMem(asm.R2, rCtx, skbIfindex, asm.Word),
		asm.StoreMem(asm.RFP, fpVRID, asm.R2, asm.Word),
		asm.StoreMem(asm.RFP, fpVRID+4, rFamily, asm.Byte),
		asm.StoreMem(asm.RFP, fpVRID+5, asm.R1, asm.Byte),
		asm.StoreImm(asm.RFP, fpVRID+6, 0, asm.Half),
	)
	a.dropIfIn(a.maps.vrids, fpVRID)
	a.emit(asm.StoreImm(asm.RFP, fpVRID, 0, asm.Word)) // held on every interface
	a.dropIfIn(a.maps.vrids, fpVRID)
	a.emit(asm.Ja.Label(pass))
}

// programs are the four programs, loaded.
type programs map[variant]*ebpf.Program

func loadPrograms(m *maps) (programs, error) {
	ps := make(programs, len(variants))
	for _, v := range variants {
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name:         v.name(),
			Type:         ebpf.SchedCLS,
			Instructions: assemble(v, m),
			License:      "Apache-2.0", // no helper asks for GPL
		})
		if err != nil {
			ps.close()
			return nil, fmt.Errorf("loading program %s: %w", v.name(), err)
		}
		ps[v] = p
		// An ingress program does not look at VRIDs, but must keep their map:
		// it may be all that is left for the next daemon to find.
		if v.dir == ingress {
			if err := p.BindMap(m.vrids); err != nil {
				ps.close()
				return nil, fmt.Errorf("binding %s to program %s: %w", nameVRIDs, v.name(), err)
			}
		}
	}
	return ps, nil
}

func (ps programs) close() {
	for _, p := range ps {
		_ = p.Close() // a close of a descriptor of ours has nothing to report
	}
}
