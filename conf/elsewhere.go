package conf

import (
	"fmt"
	"strings"
	"sync"

	"gopkg.in/yaml.v3"
)

// keepalivedWords are keys of keepalived's virtual_server, with what they are called here.
var keepalivedWords = map[string]string{
	"bind_if": "checkinterface", "bindto": "checksource", "connect_port": "checkport", "connect_timeout": "checktimeout",
	"delay_before_retry": "checkinterval", "delay_loop": "checkinterval", "http_protocol": "http_version", "inhibit_on_failure": "quiescent",
	"enable_sni": "tls_name", "lb_algo": "scheduler", "lthreshold": "lower", "lvs_sched": "scheduler",
	"max_reply_length": "reply_max", "min_reply_length": "reply_min", "misc_dynamic": "dynamic", "misc_path": "checkcommand", "misc_timeout": "checktimeout",
	"notification_email": "emailalert", "notification_email_from": "emailalertfrom",
	"password": "passwd", "persistence_granularity": "netmask", "persistence_timeout": "persistent", "regex": "receive", "require_reply": "reply",
	"smtp_alert": "emailalert", "smtp_server": "smtp", "sni_name": "tls_name", "sorry_server": "fallback", "status_code": "status",
	"track_file": "path", "uthreshold": "upper", "warmup": "jitter",
}

// keepalivedChecks are its checkers, and what is written here.
var keepalivedChecks = map[string]string{
	"HTTP_GET":   `"service: http" here, with request, status, digest or receive beside it`,
	"SSL_GET":    `"service: https" here, with request, status, digest or receive beside it`,
	"TCP_CHECK":  `"checktype: connect" here`,
	"SMTP_CHECK": `"service: smtp" here`,
	"DNS_CHECK":  `"service: dns" here, with request and record_type beside it`,
	"UDP_CHECK":  `"service: udp" here, with payload and reply beside it`,
	"MISC_CHECK": `"checktype: external" here, with checkcommand beside it`,
	"PING_CHECK": `"checktype: ping" here`,
	"FILE_CHECK": `"checktype: file" here, with path beside it`,
}

// elsewhere is made once, when the first pool is read; nobody changes the map.
// It is no variable with a value, since the keys it lists are read by functions that use it.
var elsewhere struct {
	once sync.Once
	says map[string]string
}

// poolElsewhere says of words that are not known in one mapping of a pool
// where they are: those of ldirectord.cf and of keepalived that have another
// name here or no use, and the keys of its other mappings.
func poolElsewhere() map[string]string {
	elsewhere.once.Do(func() { elsewhere.says = elsewhereOfPools() })
	return elsewhere.says
}

func elsewhereOfPools() map[string]string {
	m := map[string]string{}
	for w, here := range keepalivedWords {
		m[w] = fmt.Sprintf("%q is %q here", w, here)
	}
	for w, here := range keepalivedChecks {
		m[w] = fmt.Sprintf("%q is %s", w, here)
	}
	for _, w := range strings.Fields("lb_kind lvs_method") {
		m[w] = fmt.Sprintf("%q is the forward method of each real server here: \"192.168.56.103:80 gate\" (DR is gate, NAT masq, TUN ipip)", w)
	}
	for _, w := range strings.Fields("retry nb_get_retry") {
		m[w] = fmt.Sprintf("%q is \"failurecount\" here, and one more, since it counts the first failure, too", w)
	}
	m["virtual_server_group"] = "\"virtual_server_group\" is a list of addresses of one entry of \"virtual\" here: \"- address: [192.168.56.200:80, 192.168.56.201:80]\""
	m["virtual_server"] = "\"virtual_server\" is an entry of \"virtual\" here: \"- address: 192.168.56.200:80\""
	m["real_server"] = "\"real_server\" is an entry of \"real\" here: \"192.168.56.103:80 gate\""
	m["url"] = "\"url\" is \"request\" here, or \"urls\" for several"
	m["nat_mask"] = "\"nat_mask\" has no use here (keepalived dropped it long ago, and it was no netmask of persistence); take it out"
	m["ha_suspend"] = "\"ha_suspend\" has no use here: every director checks all the time; take it out"
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
	for w, where := range placesOfKeys() {
		if m[w] == "" {
			m[w] = fmt.Sprintf("%q stands %s; move it there", w, strings.Join(where, " or "))
		}
	}
	return m
}

// placesOfKeys tells where each key of a pool stands that is not known everywhere.
func placesOfKeys() map[string][]string {
	var (
		p       = newPoolReader("")
		node    *yaml.Node
		virtual rawVirtual
		server  rawReal
		places  = map[string][]string{}
	)
	for _, level := range []struct {
		name   string
		fields []field
	}{
		{"at the top of the file", p.fields(&node)},
		{"in a virtual service, beside its \"address\"", p.virtualFields(&virtual)},
		{"in a real server, {address: 192.168.56.103:80, forward: gate}", server.fields(p)},
	} {
		for _, f := range level.fields {
			places[f.name] = append(places[f.name], level.name)
		}
	}
	return places
}
