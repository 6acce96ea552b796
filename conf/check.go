package conf

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"gopkg.in/yaml.v3"
)

// checkPlan is the check of a virtual service before it has a real server.
type checkPlan struct {
	Check
	port uint16 // checkport; 0: not given
	ok   bool
}

// check gathers what is the same for every real server of a virtual service.
// Values that do not matter to the type are left out, so that checks that do
// the same are equal.
func (p *poolReader) check(n *yaml.Node, raw *rawVirtual, v *Virtual) checkPlan {
	c := checkPlan{ok: true, port: uint16(raw.checkport.or(0))}
	c.Type = raw.checktype.or(Negotiate)
	c.Interval = first(DefaultCheckInterval, raw.checkinterval, p.global.checkinterval)
	c.Fall = first(1, raw.failurecount, p.global.failurecount)
	c.Rise = first(1, raw.rise, p.global.rise)
	// ldirectord(8): each of the two time-outs stands in for the other, the
	// virtual service's before the global ones.
	c.Timeout = first(DefaultCheckTimeout, raw.checktimeout, raw.negotiatetimeout, p.global.checktimeout, p.global.negotiatetimeout)
	if c.Type == Connect && v.Protocol == UDP {
		c.Type = Ping // as in ldirectord: there is nothing to connect to
	}
	switch c.Type {
	case Negotiate:
		c.Timeout = first(DefaultNegotiateTimeout, raw.negotiatetimeout, raw.checktimeout, p.global.negotiatetimeout, p.global.checktimeout)
		c.ok = (raw.checktype.at == nil || raw.checktype.ok) && p.negotiate(n, raw, v, &c)
	case External:
		c.Command = raw.checkcommand.or("")
		if c.ok = raw.checkcommand.ok; raw.checkcommand.at == nil && !raw.odd {
			p.errorf(n, "checktype external of virtual %s needs \"checkcommand\", the path of a program", v)
		}
	}
	if raw.checkcommand.at != nil && c.Type != External && raw.checktype.at == nil {
		p.errorf(raw.checkcommand.at, "checkcommand is for \"checktype: external\"; add that, or take it out")
	}
	return c
}

// negotiate finds the service and what is asked of it.
func (p *poolReader) negotiate(n *yaml.Node, raw *rawVirtual, v *Virtual, c *checkPlan) bool {
	if raw.service.at != nil && !raw.service.ok {
		return false
	}
	at := raw.service.at
	if c.Service = raw.service.or(""); c.Service == "" {
		at = n
		for _, s := range services {
			if v.Protocol != FWM && s.port == v.Address.Port() {
				c.Service = s.name
			}
		}
	}
	switch c.Service {
	case "http", "https":
	case "":
		if raw.odd {
			return false
		}
		p.errorf(at, "virtual %s: its port does not tell the service to check; write \"service: http\" or https, or \"checktype: connect\"", v)
		return false
	case "none":
		p.errorf(at, "service none checks nothing; write \"checktype: on\" (or connect) for that")
		return false
	default:
		p.errorf(at, "virtual %s: service %s is not built yet; write \"checktype: connect\" meanwhile", v, c.Service)
		return false
	}
	c.Request = slash(raw.request.or("/"))
	c.Receive = raw.receive.or("")
	c.VirtualHost = raw.virtualhost.or("")
	c.HTTPMethod = raw.httpmethod.or("GET")
	ok := true
	if c.HTTPMethod == "HEAD" && c.Receive != "" {
		p.errorf(raw.httpmethod.at, "an answer to HEAD has no body that receive could match; write GET, or take receive out")
		ok = false
	}
	if c.Service == "http" {
		for _, at := range []*yaml.Node{raw.tlsVerify.at, raw.tlsName.at, raw.tlsCA.at} {
			if at != nil {
				p.errorf(at, "tls options are for \"service: https\"; take them out")
				ok = false
			}
		}
		return ok
	}
	c.TLSVerify, c.TLSCA = raw.tlsVerify.or(false), raw.tlsCA.or("")
	c.TLSName = raw.tlsName.or("")
	return ok
}

// complete makes the check of one real server.
func (p *poolReader) complete(plan checkPlan, v *Virtual, r Real, own realOwn) (Check, error) {
	c := plan.Check
	port := uint16(own.checkport.or(int(plan.port)))
	if port == 0 {
		port = r.Address.Port()
	}
	if port == 0 && c.Type == Negotiate {
		port = servicePort(c.Service)
	}
	own.request.ok = own.request.ok && c.Type == Negotiate
	if c.Type == Negotiate {
		c.Request = slash(own.request.or(c.Request))
		c.Receive = own.receive.or(c.Receive)
		c.VirtualHost = own.virtualhost.or(c.VirtualHost)
		if c.HTTPMethod == "HEAD" && c.Receive != "" && plan.ok {
			return c, fmt.Errorf("an answer to HEAD has no body that receive could match; write httpmethod GET, or take receive out")
		}
		if c.Service == "https" && c.TLSName == "" {
			c.TLSName = c.VirtualHost
			if host, _, err := net.SplitHostPort(c.VirtualHost); err == nil {
				c.TLSName = host
			}
		}
	}
	if port == 0 && c.Type == Connect {
		return c, fmt.Errorf("real server %s has no port to check; write \"checkport\" for the virtual service", r.Address.Addr())
	}
	switch c.Type {
	case Ping, On, Off:
		port = 0
	case External:
		host, vport := "", "0"
		if v.Protocol == FWM {
			host = utoa(v.FWMark)
		} else {
			host, vport = v.Address.Addr().String(), utoa(v.Address.Port())
		}
		c.Args = host + " " + vport + " " + r.Address.Addr().String() + " " + strconv.Itoa(int(port))
	}
	c.Target = netip.AddrPortFrom(r.Address.Addr(), port)
	return c, nil
}
