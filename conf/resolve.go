package conf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"gopkg.in/yaml.v3"
)

// Resolver looks the name of a host up; a *net.Resolver does.
type Resolver interface {
	// LookupNetIP returns the addresses of a host; network is ip, ip4 or ip6.
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Limits of looking names up.
const (
	resolveTimeout = 5 * time.Second // for all names together
	resolveAtOnce  = 32              // questions that wait at a time
	maxNames       = 4096            // names of one specification
	maxAddresses   = 64              // of one name
)

// errNotYet: the name has still to be looked up; the files will be read again then.
var errNotYet = errors.New("conf: not looked up yet")

// names are the answers for the names of hosts in the files, and the questions that are still open.
type names struct {
	known  map[question]answer
	wanted map[question]bool
}

type question struct{ network, host string }

type answer struct {
	addrs []netip.Addr // sorted; none of them twice
	err   error
}

func newNames() *names { return &names{map[question]answer{}, map[question]bool{}} }

// ask looks up what is wanted, all at once, until ctx ends.
func (n *names) ask(ctx context.Context, r Resolver) {
	var (
		mu   sync.Mutex // guards n.known meanwhile
		all  sync.WaitGroup
		turn = make(chan struct{}, resolveAtOnce)
	)
	for q := range n.wanted {
		turn <- struct{}{}
		all.Go(func() {
			defer func() { <-turn }()
			addrs, err := r.LookupNetIP(ctx, q.network, q.host)
			a := answer{err: err}
			for _, x := range addrs {
				a.addrs = append(a.addrs, x.Unmap().WithZone(""))
			}
			slices.SortFunc(a.addrs, netip.Addr.Compare)
			a.addrs = slices.Compact(a.addrs)
			mu.Lock()
			defer mu.Unlock()
			n.known[q] = a
		})
	}
	all.Wait()
	clear(n.wanted)
}

// lookup returns the addresses of a host and says what they are: whoever reads
// the file has to know that a later answer changes nothing.
func (p *poolReader) lookup(n *yaml.Node, what, host, network string) ([]netip.Addr, error) {
	q := question{network, strings.ToLower(host)}
	a, known := p.names.known[q]
	if !known {
		if len(p.names.known)+len(p.names.wanted) >= maxNames {
			return nil, fmt.Errorf("there are more than %d names of hosts; write addresses", maxNames)
		}
		p.names.wanted[q] = true
		return nil, errNotYet
	}
	family := map[string]string{"ip4": "an IPv4 ", "ip6": "an IPv6 "}[network]
	if a.err != nil || len(a.addrs) == 0 {
		return nil, fmt.Errorf("%s %s: the name does not resolve to %saddress (%s); write the address, or repair the name: it is looked up once, when a version is made",
			what, quote(host), cmp.Or(family, "an "), reason(a.err))
	}
	addrs := a.addrs
	if network == "ip" && addrs[0].Is4() { // IPv4 sorts first
		if i := slices.IndexFunc(addrs, netip.Addr.Is6); i > 0 {
			addrs = addrs[:i]
		}
	}
	if len(addrs) > maxAddresses {
		return nil, fmt.Errorf("%s %s: the name has %d addresses, more than %d; list those that are meant", what, quote(host), len(addrs), maxAddresses)
	}
	text := make([]string, len(addrs))
	for i, x := range addrs {
		text[i] = x.String()
	}
	p.warnf(n, "%s %s: resolved once, when this version is made, to %s", what, host, strings.Join(text, ", "))
	return addrs, nil
}

// reason is what the resolver said, without the name, which stands before it.
func reason(err error) string {
	var dns *net.DNSError
	switch {
	case err == nil:
		return "no such address"
	case errors.Is(err, context.DeadlineExceeded) || errors.As(err, &dns) && dns.IsTimeout:
		return "no answer in time"
	case errors.As(err, &dns) && dns.IsNotFound:
		return "no such host"
	case errors.As(err, &dns):
		return oneLine(dns.Err)
	}
	return oneLine(err.Error())
}

// namedPort looks a service up in /etc/services; 0: it is not there.
func namedPort(s string, protocol Protocol) uint16 {
	if len(s) > 32 || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7F }) {
		return 0
	}
	network := "ip" // either, for marks and for SCTP, of which few files tell
	if protocol == TCP || protocol == UDP {
		network = protocol.String()
	}
	port, err := net.LookupPort(network, s)
	if err != nil || port < 1 || port > 65535 {
		return 0
	}
	return uint16(port)
}

// isHostName says whether a word can be the name of a host, and no mistyped
// address: RFC 1123, 2.1, with the underscore that many use. Its last label is
// no number.
func isHostName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.ContainsFunc(l, func(c rune) bool {
			return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_')
		}) {
			return false
		}
	}
	return strings.Trim(labels[len(labels)-1], "0123456789") != ""
}
