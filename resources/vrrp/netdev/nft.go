package netdev

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// nftMessage is a message of nf_tables without its headers.
type nftMessage struct {
	typ, flags int
	body       []byte
}

// nftAttr encodes an attribute; numbers in it are big-endian.
func nftAttr(typ uint16, v ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(v)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, v...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func nftString(typ uint16, s string) []byte { return nftAttr(typ, append([]byte(s), 0)...) }

func nftNumber(typ uint16, n uint32) []byte {
	return nftAttr(typ, binary.BigEndian.AppendUint32(nil, n)...)
}

func nftNest(typ uint16, parts ...[]byte) []byte {
	return nftAttr(typ|unix.NLA_F_NESTED, slices.Concat(parts...)...)
}

// elements adds addresses to their sets, or takes them out.
func elements(typ int, all []netip.Addr) (messages []nftMessage) {
	for _, name := range []string{dropSet4, dropSet6} {
		var keys []byte
		n := 0
		flush := func() {
			if n > 0 {
				messages = append(messages, nftMessage{typ, unix.NLM_F_CREATE, slices.Concat(
					nftString(unix.NFTA_SET_ELEM_LIST_TABLE, dropTable), nftString(unix.NFTA_SET_ELEM_LIST_SET, name),
					nftNest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, keys))})
			}
			keys, n = nil, 0
		}
		for _, a := range all {
			if a.Is6() != (name == dropSet6) {
				continue
			}
			key := nftNest(unix.NFTA_SET_ELEM_KEY, nftAttr(unix.NFTA_DATA_VALUE, a.AsSlice()...))
			keys = append(keys, nftNest(unix.NFTA_LIST_ELEM, key)...)
			if n++; n == dropElements {
				flush()
			}
		}
		flush()
	}
	return messages
}

// wholeTable makes the table, as nft(8) shows it:
//
//	chain input {
//		type filter hook input priority -1; policy accept;
//		iif lo return
//		meta l4proto ipv6-icmp @th,0,8 135-136 return
//		ip daddr @addresses4 drop
//		ip6 daddr @addresses6 drop
//	}
func wholeTable() []nftMessage {
	const typeIPv4, typeIPv6 = 7, 8 // how nft(8) shows the elements
	set := func(name string, typ, size, id uint32) nftMessage {
		return nftMessage{unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, slices.Concat(
			nftString(unix.NFTA_SET_TABLE, dropTable), nftString(unix.NFTA_SET_NAME, name), nftNumber(unix.NFTA_SET_FLAGS, 0),
			nftNumber(unix.NFTA_SET_KEY_TYPE, typ), nftNumber(unix.NFTA_SET_KEY_LEN, size), nftNumber(unix.NFTA_SET_ID, id))}
	}
	rule := func(expressions ...[]byte) nftMessage {
		return nftMessage{unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE | unix.NLM_F_APPEND, slices.Concat(
			nftString(unix.NFTA_RULE_TABLE, dropTable), nftString(unix.NFTA_RULE_CHAIN, dropChain),
			nftNest(unix.NFTA_RULE_EXPRESSIONS, expressions...))}
	}
	const nfDrop = 0 // NF_DROP, linux/netfilter.h
	return []nftMessage{
		{unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, nftString(unix.NFTA_TABLE_NAME, dropTable)},
		set(dropSet4, typeIPv4, 4, 1),
		set(dropSet6, typeIPv6, 16, 2),
		{unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, slices.Concat(
			nftString(unix.NFTA_CHAIN_TABLE, dropTable), nftString(unix.NFTA_CHAIN_NAME, dropChain),
			nftNest(unix.NFTA_CHAIN_HOOK, nftNumber(unix.NFTA_HOOK_HOOKNUM, unix.NF_INET_LOCAL_IN), nftNumber(unix.NFTA_HOOK_PRIORITY, 1<<32+dropPriority)),
			nftNumber(unix.NFTA_CHAIN_POLICY, 1), nftString(unix.NFTA_CHAIN_TYPE, "filter"))},
		rule(load(unix.NFT_META_IIF), compare(unix.NFT_CMP_EQ, binary.NativeEndian.AppendUint32(nil, 1)...), verdict(unix.NFT_RETURN)),
		rule(load(unix.NFT_META_L4PROTO), compare(unix.NFT_CMP_EQ, unix.IPPROTO_ICMPV6), payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1),
			compare(unix.NFT_CMP_GTE, 135), compare(unix.NFT_CMP_LTE, 136), verdict(unix.NFT_RETURN)),
		rule(load(unix.NFT_META_NFPROTO), compare(unix.NFT_CMP_EQ, unix.NFPROTO_IPV4), payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 16, 4),
			lookup(dropSet4, 1), verdict(nfDrop)),
		rule(load(unix.NFT_META_NFPROTO), compare(unix.NFT_CMP_EQ, unix.NFPROTO_IPV6), payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 24, 16),
			lookup(dropSet6, 2), verdict(nfDrop)),
	}
}

// expression is one step of a rule; all of ours use the first register.
func expression(name string, parts ...[]byte) []byte {
	return nftNest(unix.NFTA_LIST_ELEM, nftString(unix.NFTA_EXPR_NAME, name), nftNest(unix.NFTA_EXPR_DATA, parts...))
}

func load(key uint32) []byte {
	return expression("meta", nftNumber(unix.NFTA_META_KEY, key), nftNumber(unix.NFTA_META_DREG, unix.NFT_REG_1))
}

func payload(from, offset, size uint32) []byte {
	return expression("payload", nftNumber(unix.NFTA_PAYLOAD_DREG, unix.NFT_REG_1), nftNumber(unix.NFTA_PAYLOAD_BASE, from),
		nftNumber(unix.NFTA_PAYLOAD_OFFSET, offset), nftNumber(unix.NFTA_PAYLOAD_LEN, size))
}

func compare(op uint32, value ...byte) []byte {
	return expression("cmp", nftNumber(unix.NFTA_CMP_SREG, unix.NFT_REG_1), nftNumber(unix.NFTA_CMP_OP, op),
		nftNest(unix.NFTA_CMP_DATA, nftAttr(unix.NFTA_DATA_VALUE, value...)))
}

func lookup(set string, id uint32) []byte {
	return expression("lookup", nftString(unix.NFTA_LOOKUP_SET, set), nftNumber(unix.NFTA_LOOKUP_SREG, unix.NFT_REG_1),
		nftNumber(unix.NFTA_LOOKUP_SET_ID, id))
}

func verdict(code int) []byte {
	return expression("immediate", nftNumber(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT),
		nftNest(unix.NFTA_IMMEDIATE_DATA, nftNest(unix.NFTA_DATA_VERDICT, nftNumber(unix.NFTA_VERDICT_CODE, uint32(int32(code))))))
}
