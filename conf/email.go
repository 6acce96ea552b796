package conf

import (
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// emailSettings are emailalert and what belongs to it.
type emailSettings struct {
	to, from, server, status opt[string]
	every                    opt[time.Duration]
}

func (e *emailSettings) fields(r *reader) []field {
	return []field{
		{"emailalert", "Whom a mail tells that a real server has gone down or come up: one address, several with commas, or a list. Default: nobody.", into(&e.to, r.mailAddresses)},
		{"emailalertfrom", "Address of the sender. Default root@NODE.", into(&e.from, r.mailAddress)},
		{"emailalertfreq", "After what time it is said again while the server is still down, up to 168h; 0s: once only. Default 0s.", into(&e.every, r.duration(0, 7*24*time.Hour))},
		{"emailalertstatus", "What else a mail is sent of: all, none, or some of starting, running, stopping, reloading, with commas or as a list. Default all.", into(&e.status, r.mailStatus)},
		{"smtp", "Mail server, HOST[:PORT], port 25 without one. Default: the local sendmail.", into(&e.server, r.mailServer)},
	}
}

// over takes from the global settings what is not given here.
func (e emailSettings) over(global emailSettings) Email {
	m := Email{
		To: first("", e.to, global.to), From: first("", e.from, global.from), Server: first("", e.server, global.server),
		Every: first(0, e.every, global.every), Status: first("", e.status, global.status),
	}
	if m.To == "" {
		return Email{} // nobody is told, whatever else is said
	}
	return m
}

// useless reports settings that have no effect because nobody is told.
func (e emailSettings) useless(r *reader) {
	for _, x := range []struct {
		key string
		at  *yaml.Node
	}{{"emailalertfrom", e.from.at}, {"emailalertfreq", e.every.at}, {"emailalertstatus", e.status.at}, {"smtp", e.server.at}} {
		if x.at != nil {
			r.errorf(x.at, "%s without emailalert has no effect; add \"emailalert: admin@example.org\", or take it out", x.key)
		}
	}
}

// mailWords reads a list, or words with commas between, and joins what each gives with commas.
func (r *reader) mailWords(n *yaml.Node, want string, each func(*yaml.Node, string) bool) (string, bool) {
	var words []string
	ok := true
	add := func(n *yaml.Node, s string) {
		if s = strings.TrimSpace(s); each(n, s) && !slices.Contains(words, s) {
			words = append(words, s)
		} else if !slices.Contains(words, s) {
			ok = false
		}
	}
	if n = r.resolve(n); n.Kind == yaml.SequenceNode {
		r.list(n, want, func(_ int, n *yaml.Node) {
			if s, is := r.scalar(n, want); is {
				add(n, s)
			} else {
				ok = false
			}
		})
		if len(n.Content) == 0 {
			r.errorf(n, "%s is wanted, not an empty list", want)
			ok = false
		}
	} else if s, is := r.scalar(n, want); is {
		for _, w := range strings.Split(s, ",") {
			add(n, w)
		}
	} else {
		ok = false
	}
	return strings.Join(words, ","), ok
}

func (r *reader) mailAddresses(n *yaml.Node) (string, bool) {
	return r.mailWords(n, "a mail address", r.checkMail)
}

func (r *reader) mailAddress(n *yaml.Node) (string, bool) {
	s, ok := r.scalar(n, "a mail address")
	return s, ok && r.checkMail(n, s)
}

// checkMail accepts what can stand in a mail's envelope as it is: a mailbox, or
// a local user without a domain. The words end up in the arguments of sendmail
// and in lines of SMTP.
func (r *reader) checkMail(n *yaml.Node, s string) bool {
	full := s
	if s != "" && !strings.Contains(s, "@") {
		full += "@localhost"
	}
	a, err := mail.ParseAddress(full)
	if err != nil || a.Name != "" || a.Address != full || strings.HasPrefix(s, "-") || len(s) > 254 ||
		strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7F || strings.ContainsRune("<>\"\\", c) }) {
		r.errorf(n, "%s is not a mail address; write admin@example.org", quote(s))
		return false
	}
	return true
}

func (r *reader) mailStatus(n *yaml.Node) (string, bool) {
	known := []string{"all", "none", "starting", "running", "stopping", "reloading"}
	s, ok := r.mailWords(n, "one of "+strings.Join(known, ", "), func(n *yaml.Node, s string) bool {
		if !slices.Contains(known, s) {
			r.errorf(n, "unknown emailalertstatus %s%s", quote(s), didYouMean(s, known))
			return false
		}
		return true
	})
	for _, alone := range known[:2] {
		if words := strings.Split(s, ","); len(words) > 1 && slices.Contains(words, alone) {
			r.errorf(n, "emailalertstatus %s says it all; take the other words out", alone)
			return "", false
		}
	}
	return s, ok
}

func (r *reader) mailServer(n *yaml.Node) (string, bool) {
	s, ok := r.scalar(n, "a mail server")
	if !ok {
		return "", false
	}
	if err := checkHostPort(s); err != nil {
		r.errorf(n, "smtp: %s; write HOST or HOST:PORT", err)
		return "", false
	}
	return s, true
}

// checkHostPort accepts HOST[:PORT], where HOST may be a name that is looked up when it is needed.
func checkHostPort(s string) error {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return nil
	}
	host := s
	if h, port, err := net.SplitHostPort(s); err == nil {
		if _, err := parsePort(port, TCP); err != nil {
			return err
		}
		host = h
	}
	if _, err := netip.ParseAddr(host); err == nil || isHostName(host) {
		return nil
	}
	return fmt.Errorf("%s is neither an address nor the name of a host", quote(s))
}
