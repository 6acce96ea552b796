package ipvs

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/notify"
)

// deliver tells what has happened: the log, the programs, the mails and the
// monitor files. It does not wait for any of them.
func (p *pool) deliver() {
	p.mu.Lock()
	events := p.pending
	p.pending = nil
	p.mu.Unlock()
	for _, e := range events {
		p.logEvent(e)
		for _, h := range hooksOf(e) {
			h.Env = append(p.environment(*e.virtual), h.Env...)
			p.hooks.Add(h)
		}
		if line := monitorLine(e); line != "" {
			p.lines.Add(e.virtual.MonitorFile, line)
		}
		if line := alertOf(e); line != "" && wants(e.virtual.Email, running) {
			p.mail.Add(e.virtual.Email, line)
		}
	}
}

func (p *pool) logEvent(e event) {
	service := slog.String("service", KeyOf(*e.virtual).String())
	real := slog.String("real", e.server().String())
	log := func(level slog.Level, msg string, args ...any) {
		p.log.Log(context.Background(), level, msg, append([]any{service}, args...)...)
	}
	switch {
	case e.ending:
	case e.kind == serverUp && !e.found:
		log(slog.LevelInfo, "real server is up", real, "weight", e.weight)
	case e.kind == serverDown && !e.found:
		log(slog.LevelWarn, "real server is down", real, "answer", e.why)
	case e.kind == quorumMet && !e.found:
		log(slog.LevelInfo, "virtual service has quorum again", "sum", e.sum, "quorum", max(e.virtual.Quorum, 1))
	case e.kind == quorumLost:
		log(slog.LevelWarn, "virtual service has no quorum", "sum", e.sum, "quorum", max(e.virtual.Quorum, 1))
	case e.kind == fallbackOn:
		log(slog.LevelWarn, "the fallback answers", "fallback", e.server().String())
	case e.kind == fallbackOff && !e.found:
		log(slog.LevelInfo, "the fallback answers no more")
	}
}

// environment is what programs find in their environment beside their arguments.
func (p *pool) environment(v conf.Virtual) []string {
	env := []string{
		"KEEPBEAT_NODE=" + p.env.Node, "KEEPBEAT_GROUP=" + p.env.Group, "KEEPBEAT_POOL=" + p.name,
		"KEEPBEAT_SERVICE=" + v.Name, "KEEPBEAT_PROTOCOL=" + v.Protocol.String(),
	}
	if p.env.Epoch != nil {
		env = append(env, "KEEPBEAT_EPOCH="+strconv.FormatUint(p.env.Epoch(), 10))
	}
	return env
}

// serviceName is how programs and monitor files are told the service: address:port, or the mark.
func serviceName(v conf.Virtual) string {
	if v.Protocol == conf.FWM {
		return strconv.FormatUint(uint64(v.FWMark), 10)
	}
	return plain(v.Address).String()
}

// hooksOf are the programs to run. Their arguments:
//
//	notify_up, notify_down   SERVICE REAL up|down WEIGHT
//	quorum_up, quorum_down   SERVICE up|down SUM QUORUM
//	fallbackcommand          start|stop SERVICE PROTOCOL [NAME]
func hooksOf(e event) []notify.Hook {
	v := *e.virtual
	subject := KeyOf(v).String()
	var hooks []notify.Hook
	add := func(what, path string, args ...string) {
		if path != "" {
			hooks = append(hooks, notify.Hook{Subject: what + " " + subject, Path: path, Args: args})
		}
	}
	server := func(path, state string) {
		a := e.server().String()
		add("notify "+a, path, serviceName(v), a, state, strconv.Itoa(e.weight))
	}
	vote := func(path, state string) {
		add("quorum", path, serviceName(v), state, strconv.Itoa(e.sum), strconv.Itoa(max(v.Quorum, 1)))
	}
	fallback := func(verb string) {
		args := []string{verb, serviceName(v), v.Protocol.String()}
		if v.Name != "" {
			args = append(args, v.Name)
		}
		add("fallback", v.FallbackCommand, args...)
	}
	switch e.kind {
	case serverUp:
		server(e.real.NotifyUp, "up")
	case serverDown:
		server(e.real.NotifyDown, "down")
	case quorumMet:
		fallback("stop")
		vote(v.QuorumUp, "up")
	case quorumLost:
		if !e.ending {
			fallback("start")
		}
		vote(v.QuorumDown, "down")
	case fallbackOff:
		if e.ending {
			fallback("stop")
		}
	}
	return hooks
}

// monitorLine is the line of monitorfile in ldirectord's form: time, process,
// what is checked, state and message. Unlike there it is written once for each
// change, and no more for each check.
func monitorLine(e event) string {
	if e.virtual.MonitorFile == "" || e.ending {
		return ""
	}
	state, message := "up", e.why
	switch e.kind {
	case serverUp:
	case serverDown:
		state = "down"
	default:
		return ""
	}
	if message == "" {
		message = "-"
	}
	// Of a server's answer nothing may look like another line or field.
	message = strings.NewReplacer("%", "%25", "|", "%7c", "\r", "%0d", "\n", "%0a").Replace(message)
	return fmt.Sprintf("[%s] [%d] %s [%s] %s", e.at.Format(time.ANSIC), notify.PID, serverTitle(e), state, message)
}

// serverTitle is ldirectord's name of a server and its check, with blanks between the parts.
func serverTitle(e event) string {
	r, c := e.real, e.real.Check
	a := plain(r.Address)
	parts := []string{checkName(c), e.virtual.Protocol.String(), a.Addr().String(), strconv.Itoa(int(a.Port())), c.VirtualHost}
	if c.Target.IsValid() && c.Target.Port() != a.Port() {
		parts = append(parts, strconv.Itoa(int(c.Target.Port())))
	}
	parts = append(parts, strconv.Itoa(r.Weight), r.Forward.String(), c.Request, c.Receive)
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
	return strings.Join(strings.FieldsFunc(strings.Join(parts, " "), func(r rune) bool { return r <= ' ' }), " ")
}

// Words of emailalertstatus.
const (
	starting  = "starting"
	running   = "running"
	stopping  = "stopping"
	reloading = "reloading"
)

// wants tells whether somebody is to be told in this status of the pool.
func wants(m conf.Email, status string) bool {
	if m.To == "" {
		return false
	}
	for _, s := range strings.Split(m.Status, ",") {
		if s = strings.TrimSpace(s); s == status || s == "all" || s == "" {
			return true
		}
	}
	return false
}

// alertOf is the line of a mail about an event while the pool runs; empty: none.
// What was found at the start is in the mail about that.
func alertOf(e event) string {
	if e.found || e.ending {
		return ""
	}
	service := titleOf(*e.virtual)
	switch e.kind {
	case serverUp:
		return fmt.Sprintf("real server %s is up again (service %s)", e.server(), service)
	case serverDown:
		return fmt.Sprintf("real server %s is down (service %s): %s", e.server(), service, e.why)
	case stillDown:
		return fmt.Sprintf("real server %s is still down (service %s): %s", e.server(), service, e.why)
	case quorumMet:
		return fmt.Sprintf("service %s has quorum again", service)
	case quorumLost:
		return fmt.Sprintf("service %s has no quorum: its servers weigh %d, it needs %d", service, e.sum, max(e.virtual.Quorum, 1))
	case fallbackOn:
		return fmt.Sprintf("service %s: the fallback %s answers", service, e.server())
	}
	return ""
}

func titleOf(v conf.Virtual) string {
	if v.Name != "" {
		return v.Name + ", " + v.String()
	}
	return v.String()
}

// announce mails that the pool itself starts, stops or is reloaded.
func (p *pool) announce(status string) {
	p.mu.Lock()
	email := p.content.Email
	if !wants(email, status) {
		p.mu.Unlock()
		return
	}
	text := "pool " + p.name + " is " + status
	if status == starting {
		text = "pool " + p.name + " has been started"
	}
	lines := []string{fmt.Sprintf("%s: %d virtual services", text, len(p.content.Virtuals))}
	if status != stopping {
		for _, v := range p.content.Virtuals {
			k := KeyOf(v)
			if s := p.services[k]; s != nil && status == starting {
				lines = append(lines, s.summary(v)...)
			}
		}
	}
	p.mu.Unlock()
	for _, l := range lines {
		p.mail.Add(email, l)
	}
}

// summary says what of a service is not as it ought to be.
func (s *service) summary(v conf.Virtual) []string {
	var lines []string
	if s.quorum == lost {
		lines = append(lines, "service "+titleOf(v)+" has no quorum")
	}
	for _, r := range v.Reals {
		if s.members[plain(r.Address)].state == StateDown {
			lines = append(lines, fmt.Sprintf("real server %s is down (service %s)", plain(r.Address), titleOf(v)))
		}
	}
	return lines
}
