package conf

import "strings"

// takes says what a service makes use of: which keys mean something to it.
type takes uint16

const (
	takesRequest takes = 1 << iota
	takesReceive
	takesUser // login
	takesPasswd
	takesDatabase
	takesSecret
	takesHost // virtualhost
	takesHTTP // method, status, digest, headers, body, version
	takesRecord
	takesPayload
	takesHelo
	takesTLS      // speaks TLS from the first byte
	takesSTARTTLS // can turn to TLS

	takesLogin = takesUser | takesPasswd
)

// service is what checktype negotiate can speak.
type service struct {
	name string
	// port is the one from which ldirectord concludes the service, and the one
	// that is checked when neither checkport nor the real server has one.
	port     uint16
	tcp, udp bool
	takes    takes
}

// services are those of ldirectord, and grpc, grpcs, smtps and udp.
var services = []service{
	{"http", 80, true, false, takesRequest | takesReceive | takesHost | takesHTTP},
	{"https", 443, true, false, takesRequest | takesReceive | takesHost | takesHTTP | takesTLS},
	{"http_proxy", 3128, true, false, takesRequest | takesReceive | takesHost | takesHTTP},
	{"grpc", 0, true, false, takesRequest | takesHost},
	{"grpcs", 0, true, false, takesRequest | takesHost | takesTLS},
	{"dns", 53, true, true, takesRequest | takesReceive | takesRecord},
	{"ftp", 21, true, false, takesRequest | takesReceive | takesLogin | takesSTARTTLS},
	{"imap", 143, true, false, takesReceive | takesLogin | takesSTARTTLS},
	{"imaps", 993, true, false, takesReceive | takesLogin | takesTLS},
	{"ldap", 389, true, false, takesRequest | takesReceive | takesLogin | takesSTARTTLS},
	{"ldaps", 636, true, false, takesRequest | takesReceive | takesLogin | takesTLS},
	{"mysql", 3306, true, false, takesRequest | takesReceive | takesLogin | takesDatabase | takesSTARTTLS},
	{"nntp", 119, true, false, takesReceive | takesLogin | takesSTARTTLS},
	{"oracle", 1521, true, false, takesDatabase},
	{"pgsql", 5432, true, false, takesRequest | takesReceive | takesLogin | takesDatabase | takesSTARTTLS},
	{"pop", 110, true, false, takesReceive | takesLogin | takesSTARTTLS},
	{"pops", 995, true, false, takesReceive | takesLogin | takesTLS},
	{"radius", 1812, false, true, takesLogin | takesSecret},
	{"simpletcp", 0, true, false, takesRequest | takesReceive},
	{"sip", 5060, true, true, takesRequest | takesUser},
	{"smtp", 25, true, false, takesReceive | takesHelo | takesSTARTTLS},
	{"smtps", 465, true, false, takesReceive | takesHelo | takesTLS},
	{"submission", 587, true, false, takesReceive | takesHelo | takesSTARTTLS},
	{"udp", 0, false, true, takesPayload},
	{"none", 0, true, true, 0},
}

// Services returns the names that `service` may have.
func Services() []string {
	names := make([]string, len(services))
	for i, s := range services {
		names[i] = s.name
	}
	return names
}

// serviceNamed returns nil for a name that is none.
func serviceNamed(name string) *service {
	for i := range services {
		if services[i].name == name {
			return &services[i]
		}
	}
	return nil
}

// serviceOf concludes the service from port and protocol, as ldirectord does; nil: they do not tell.
func serviceOf(v *Virtual) *service {
	if v.Protocol == FWM || v.allPorts() {
		return nil
	}
	for i := range services {
		if s := &services[i]; s.port == v.Address.Port() && s.speaks(v.Protocol) {
			return s
		}
	}
	return nil
}

// speaks tells whether a virtual service of that protocol can be asked so. Marked packets can be of any.
func (s *service) speaks(p Protocol) bool {
	return p == FWM || p == TCP && s.tcp || p == UDP && s.udp
}

// servicePort is the port of a service that is known here, or 0.
func servicePort(name string) uint16 {
	if s := serviceNamed(name); s != nil {
		return s.port
	}
	return 0
}

// asking lists the services that make use of something: "ftp, imap and ldap".
func asking(what takes) string {
	var names []string
	for _, s := range services {
		if s.takes&what != 0 {
			names = append(names, s.name)
		}
	}
	if n := len(names) - 1; n > 0 {
		return strings.Join(names[:n], ", ") + " and " + names[n]
	}
	return strings.Join(names, "")
}

// alike tells whether a request means the same to both: a TLS variant asks what its plain one asks.
func alike(a, b string) bool {
	plain := func(s string) string {
		switch s {
		case "https", "grpcs", "imaps", "ldaps", "pops", "smtps":
			return s[:len(s)-1]
		case "submission":
			return "smtp"
		}
		return s
	}
	return plain(a) == plain(b)
}
