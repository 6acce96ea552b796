package conf

import (
	"fmt"
	"strings"
	"sync"
)

// keepalivedWords are keys of keepalived's virtual_server, with what they are called here.
var keepalivedWords = map[string]string{
	"bind_if": "checkinterface", "bindto": "checksource", "connect_port": "checkport", "connect_timeout": "checktimeout",
	"delay_before_retry": "checkinterval", "delay_loop": "checkinterval", "http_protocol": "http_version", "inhibit_on_failure": "quiescent",
	"lb_algo": "scheduler", "lb_kind": "forward", "lthreshold": "lower", "lvs_method": "forward", "lvs_sched": "scheduler",
	"max_reply_length": "reply_max", "min_reply_length": "reply_min", "misc_dynamic": "dynamic", "misc_path": "checkcommand", "misc_timeout": "checktimeout",
	"password": "passwd", "persistence_granularity": "netmask", "persistence_timeout": "persistent", "regex": "receive", "require_reply": "reply",
	"retry": "failurecount", "smtp_alert": "emailalert", "sni_name": "tls_name", "sorry_server": "fallback", "status_code": "status",
	"track_file": "path", "uthreshold": "upper", "warmup": "jitter",
}

// poolElsewhere are the words of ldirectord.cf and of keepalived that have
// another name here, or no use. Nobody changes the map: it is read for each server.
var poolElsewhere = sync.OnceValue(func() map[string]string {
	m := map[string]string{}
	for w, here := range keepalivedWords {
		m[w] = fmt.Sprintf("%q is %q here", w, here)
	}
	m["connect_ip"] = "\"connect_ip\" has no use here: the real server itself is checked; take it out"
	for _, w := range strings.Fields("fork supervised") {
		m[w] = fmt.Sprintf("%q has no use here: checks never wait for each other; take it out", w)
	}
	m["logfile"] = "\"logfile\" has no use here: logs go to the journal, journalctl -u keepbeat; take it out"
	m["load"] = "\"load\" has no use here (ldirectord read it and did nothing with it); take it out"
	m["timeout"] = "\"timeout\" is \"checktimeout\" or \"negotiatetimeout\""
	m["connecttimeout"] = "\"connecttimeout\" is \"checktimeout\""
	m["virtual6"] = "\"virtual6\" is \"virtual\" here; the family follows from the address: \"[2001:db8::1]:80\""
	m["real6"] = "\"real6\" is \"real\" here; the family follows from the address: \"[2001:db8::2]:80 gate\""
	return m
})
