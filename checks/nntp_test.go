package checks

import (
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

func TestNNTP(t *testing.T) {
	const login = "C: AUTHINFO USER alice\nS: 381 go on\nC: AUTHINFO PASS wonder land\n"
	converse(t, "nntp", []talk{
		{"posting allowed", nil, "S: 200 news\nC: QUIT\nS: 205 bye", "200 news"},
		{"posting not allowed", nil, "S: 201 news\nC: QUIT\nS: 205 bye", "201 news"},
		{"a refusal", nil, "S: 502 not you", `!greeting: "502 not you", wanted 2xx`},
		{"not now", nil, "S: 400 maintenance", `!greeting: "400 maintenance", wanted 2xx`},
		{"another greeting", func(c *conf.Check) { c.Receive = "INN" }, "S: 200 news\nHANG", `!greeting: "200 news", no match for "INN"`},
		{"a login", asAlice, "S: 200 news\n" + login + "S: 281 welcome\nC: QUIT\nS: 205", "logged in"},
		{"a login without a password", asAlice, "S: 200 news\nC: AUTHINFO USER alice\nS: 281 welcome\nC: QUIT\nS: 205", "logged in"},
		{"a wrong password", asAlice, "S: 200 news\n" + login + "S: 481 no", `!AUTHINFO PASS: "481 no", wanted 281`},
		{"no login in plain text", asAlice, "S: 200 news\nC: AUTHINFO USER alice\nS: 483 encrypt", `!AUTHINFO USER: "483 encrypt", wanted 281 or 381`},
		{"STARTTLS", func(c *conf.Check) { starttls(c); asAlice(c) }, "S: 200 news\nC: STARTTLS\nS: 382 go\nTLS\n" + login + "S: 281\nC: QUIT\nS: 205", "logged in"},
		{"STARTTLS refused", starttls, "S: 200 news\nC: STARTTLS\nS: 580 no", `!STARTTLS: "580 no", wanted 382`},
	})
}
