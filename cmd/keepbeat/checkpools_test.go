package main

import (
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/checks"
	"github.com/keepbeat/keepbeat/conf"
)

func poolFiles(pool string) conf.Files {
	return conf.Files{
		Haresources: []byte("groups: {web: {resources: [{vip: 10.0.0.1}, {ldirectord: p.yaml}]}}"),
		Pools:       map[string][]byte{"p.yaml": []byte(pool)},
	}
}

func nodeOf(role conf.Role) *conf.Local {
	return &conf.Local{Name: "one", Nodes: []conf.Node{{Name: "one", Role: role}, {Name: "two", Role: conf.Director}}}
}

// What a check needs on this node is looked for when the files are read, and
// the error has the line.
func TestWhatAChecksNeedsHereIsToldWithItsLine(t *testing.T) {
	for name, c := range map[string]struct{ keys, want string }{
		"a program that is not there":  {"checktype: external\n    checkcommand: /nowhere/check", "p.yaml:3:12: the check of 10.0.0.11:443: checkcommand /nowhere/check"},
		"certificates that are not":    {"tls_verify: yes\n    tls_ca: /nowhere/ca.pem", "p.yaml:3:12: the check of 10.0.0.11:443: tls_ca"},
		"a certificate that is none":   {"tls_cert: /dev/null", "p.yaml:3:12: the check of 10.0.0.11:443: tls_cert"},
		"a password that is not there": {"service: imaps\n    login: me\n    passwd_file: /nowhere/passwd", "p.yaml:3:12: the check of 10.0.0.11:443: passwd_file /nowhere/passwd: no such file or directory; write it on each director"},
		"said once for all":            {"tls_verify: yes\n    tls_ca: /nowhere/ca.pem\n    urls: [{request: /a}, {request: /b}]", "p.yaml:3:12: the check of 10.0.0.11:443: tls_ca"},
		"one of several checks":        {"checks: [{checktype: external, checkcommand: /nowhere/check}]", "p.yaml:3:12: the check of 10.0.0.11:443: checkcommand /nowhere/check"},
	} {
		t.Run(name, func(t *testing.T) {
			files := poolFiles("virtual:\n  - address: 10.0.0.1:443\n    real: [10.0.0.11 gate, 10.0.0.12 gate]\n    " + c.keys + "\n")
			_, _, err := conf.ParseSpec(trying(files, nodeOf(conf.Director)), nil)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v\nwant %s", err, c.want)
			}
			if _, _, err := conf.ParseSpec(trying(files, nodeOf(conf.Witness)), nil); err != nil {
				t.Errorf("a witness, which checks nothing: %v", err)
			}
		})
	}
}

func TestAConfigurationSaysHowManyDescriptorsItNeeds(t *testing.T) {
	spec, _, err := conf.ParseSpec(poolFiles("virtual:\n  - address: 10.0.0.1:80\n    real: [10.0.0.11->10.0.0.110 gate]\n    fallback: 127.0.0.1\n    checks: [{checktype: connect, checkport: 22}, {checktype: on}]\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if said := tooFewDescriptors(spec, nodeOf(conf.Director), 200); said != "" {
		t.Error(said)
	}
	const want = "when no server answers, the checks need 200 descriptors at once, and there are 150 for them: failures would be found late; raise LimitNOFILE of keepbeat.service by 50, or the limit of this shell (ulimit -n)"
	if said := tooFewDescriptors(spec, nodeOf(conf.Director), 150); said != want {
		t.Errorf("%q, want %q", said, want)
	}
	if said := tooFewDescriptors(spec, nodeOf(conf.Witness), 150); said != "" {
		t.Error(said)
	}
}

// Whatever a pool may name can be asked.
func TestEveryServiceHasItsCheck(t *testing.T) {
	keys := map[string]string{
		"dns":        "request: www.example.org",
		"http_proxy": "request: http://www.example.org/",
		"radius":     "login: me, passwd: x, secret: y",
		"mysql":      "login: me, request: SELECT 1",
		"pgsql":      "login: me, database: shop",
	}
	for _, service := range conf.Services() {
		for _, protocol := range []string{"tcp", "udp"} {
			more := keys[service]
			if more != "" {
				more = ", " + more
			}
			text := "virtual: [{address: \"[2001:db8::1]:99\", real: [\"[2001:db8::2] gate\"], protocol: " + protocol + ", service: " + service + more + "}]\n"
			spec, _, err := conf.ParseSpec(poolFiles(text), nil)
			if err != nil {
				if !strings.Contains(err.Error(), "speaks") {
					t.Error(err)
				}
				continue
			}
			if _, err := checks.NewChecker(spec.Pools["p.yaml"].Virtuals[0].Reals[0].Check); err != nil {
				t.Errorf("%s by %s: %v", service, protocol, err)
			}
		}
	}
}
