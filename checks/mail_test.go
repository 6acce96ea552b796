package checks

import (
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

func TestSMTP(t *testing.T) {
	const hello = `C~ ^EHLO \[(127\.0\.0\.1|IPv6:::1)\]$` + "\n"
	const toTLS = "S: 220 mx ESMTP\n" + hello + "S: 250-mx\nS: 250-SIZE 1\nS: 250 starttls\nC: STARTTLS\nS: 220 go\nTLS\n"
	converse(t, "smtp", []talk{
		{"a mail server", nil, "S: 220 mx ESMTP\n" + hello + "S: 250-mx\nS: 250 SIZE\nC: QUIT\nS: 221 bye", "220 mx ESMTP"},
		{"a greeting of several lines", nil, "S: 220-mx\nS: 220-no spam\nS: 220 ready\n" + hello + "S: 250 mx\nC: QUIT\nS: 221", "220 ready"},
		{"one that knows no EHLO", nil, "S: 220 old\n" + hello + "S: 502 what?\n" + `C~ ^HELO \[127` + "\nS: 250 hello\nC: QUIT\nS: 221 bye", "220 old"},
		{"with a name", func(c *conf.Check) { c.HeloName = "director.example.org" }, "S: 220 mx\nC: EHLO director.example.org\nS: 502 what?\nC: HELO director.example.org\nS: 250 mx\nC: QUIT\nS: 221", "220 mx"},
		{"one that knows neither", nil, "S: 220 odd\n" + hello + "S: 502 what?\nC~ ^HELO\nS: 500 what?", `!HELO: "500 what?", wanted 250`},
		{"one that closes at QUIT", nil, "S: 220 mx\n" + hello + "S: 250 mx\nC: QUIT", "220 mx"},
		{"one that resets at QUIT", nil, "S: 220 mx\n" + hello + "S: 250 mx\nC: QUIT\nRESET", "220 mx"},
		{"one that hangs at QUIT", nil, "S: 220 mx\n" + hello + "S: 250 mx\nC: QUIT\nHANG", "!QUIT: no answer within TIME"},
		{"one that is full", nil, "S: 421 too many connections", `!greeting: "421 too many connections", wanted 220`},
		{"one that takes nobody", nil, "S: 554 no service here", `!greeting: "554 no service here", wanted 220`},
		{"one that is busy after EHLO", nil, "S: 220 mx\n" + hello + "S: 451 later", `!EHLO: "451 later", wanted 250`},
		{"the greeting wanted", func(c *conf.Check) { c.Receive = "ESMTP" }, "S: 220 mx ESMTP\n" + hello + "S: 250 mx\nC: QUIT\nS: 221", "220 mx ESMTP"},
		{"another greeting", func(c *conf.Check) { c.Receive = "Postfix" }, "S: 220 mx ESMTP\nHANG", `!greeting: "220 mx ESMTP", no match for "Postfix"`},
		{"STARTTLS", starttls, toTLS + hello + "S: 250 mx\nC: QUIT\nS: 221 bye", "220 mx ESMTP"},
		{"STARTTLS and a server gone afterwards", starttls, toTLS + hello, "!EHLO: connection closed without an answer"},
		{"STARTTLS not offered", starttls, "S: 220 mx ESMTP\n" + hello + "S: 250-mx\nS: 250 STARTTLSX\nHANG", "!EHLO: the server does not offer STARTTLS"},
		{"STARTTLS refused", starttls, "S: 220 mx\n" + hello + "S: 250 STARTTLS\nC: STARTTLS\nS: 454 not now", `!STARTTLS: "454 not now", wanted 220`},
		{"STARTTLS and then no TLS", starttls, "S: 220 mx\n" + hello + "S: 250 STARTTLS\nC: STARTTLS\nS: 220 go\nC~ .*\nS: 500 what?\nHANG", "!TLS handshake: the server does not speak TLS"},
		{"a certificate of nobody we trust", func(c *conf.Check) { c.STARTTLS, c.TLSVerify = true, true }, toTLS, "!certificate: x509: certificate signed by unknown authority"},
	})
	converse(t, "submission", []talk{
		{"the same at its port", nil, "S: 220 mx\n" + hello + "S: 250 mx\nC: QUIT\nS: 221 bye", "220 mx"},
	})
	converse(t, "smtps", []talk{
		{"TLS from the start", nil, "TLS\nS: 220 mx\n" + hello + "S: 250 mx\nC: QUIT\nS: 221 bye", "220 mx"},
		{"no TLS", nil, "S: 220 mx\nHANG", "!TLS handshake: the server does not speak TLS"},
	})
}

func TestPOP(t *testing.T) {
	const login = "C: USER alice\nS: +OK\nC: PASS wonder land\n"
	converse(t, "pop", []talk{
		{"a greeting is enough", nil, "S: +OK ready <1@x>\nC: QUIT\nS: +OK bye", "+OK ready <1@x>"},
		{"a login", asAlice, "S: +OK\n" + login + "S: +OK 3 messages\nC: QUIT\nS: +OK bye", "logged in"},
		{"a wrong password", asAlice, "S: +OK\n" + login + "S: -ERR [AUTH] no", `!PASS: "-ERR [AUTH] no", wanted +OK`},
		{"a mailbox that the other director has open", asAlice, "S: +OK\n" + login + "S: -ERR [IN-USE] locked\nC: QUIT\nS: +OK bye", "the mailbox is in use"},
		{"a login too soon after the last", asAlice, "S: +OK\n" + login + "S: -ERR [login-delay] wait\nC: QUIT\nS: +OK bye", "the server wants more time between logins"},
		{"a server that cannot", asAlice, "S: +OK\n" + login + "S: -ERR [SYS/TEMP] disk", `!PASS: "-ERR [SYS/TEMP] disk", wanted +OK`},
		{"a wrong user", asAlice, "S: +OK\nC: USER alice\nS: -ERR who?", `!USER: "-ERR who?", wanted +OK`},
		{"a refusal", nil, "S: -ERR full", `!greeting: "-ERR full", wanted +OK`},
		{"another protocol", nil, "S: +OKAY", `!greeting: "+OKAY", wanted +OK`},
		{"another greeting", func(c *conf.Check) { c.Receive = "Dovecot" }, "S: +OK ready\nHANG", `!greeting: "+OK ready", no match for "Dovecot"`},
		{"a complaint at the end", nil, "S: +OK\nC: QUIT\nS: -ERR not deleted", `!QUIT: "-ERR not deleted", wanted goodbye`},
		{"STARTTLS", func(c *conf.Check) { starttls(c); asAlice(c) }, "S: +OK\nC: STLS\nS: +OK go\nTLS\n" + login + "S: +OK\nC: QUIT\nS: +OK bye", "logged in"},
		{"STARTTLS refused", starttls, "S: +OK\nC: STLS\nS: -ERR what?", `!STLS: "-ERR what?", wanted +OK`},
		{"silent after USER", asAlice, "S: +OK\nC: USER alice\nHANG", "!USER: no answer within TIME"},
	})
	converse(t, "pops", []talk{
		{"TLS from the start", asAlice, "TLS\nS: +OK\n" + login + "S: +OK\nC: QUIT\nS: +OK bye", "logged in"},
	})
}

func TestIMAP(t *testing.T) {
	const login = `C: k2 LOGIN "alice" "wonder land"` + "\n"
	const logout = "C: k3 LOGOUT\nS: * BYE\nS: k3 OK done"
	converse(t, "imap", []talk{
		{"a greeting is enough", nil, "S: * OK [CAPABILITY IMAP4rev1] ready\n" + logout, "* OK [CAPABILITY IMAP4rev1] ready"},
		{"one that knows us already", nil, "S: * PREAUTH welcome\n" + logout, "* PREAUTH welcome"},
		{"a login where none is needed", asAlice, "S: * PREAUTH welcome\n" + logout, "* PREAUTH welcome"},
		{"a login", asAlice, "S: * OK\n" + login + "S: * CAPABILITY IMAP4rev1\nS: k2 ok done\n" + logout, "logged in"},
		{"a server that wants no password in the clear gets none", asAlice, "S: * OK [Capability IMAP4rev1 LoginDisabled STARTTLS] ready", "!greeting: the server wants no password without TLS (LOGINDISABLED): set starttls"},
		{"what it wanted before TLS is forgotten", func(c *conf.Check) { starttls(c); asAlice(c) }, "S: * OK [CAPABILITY LOGINDISABLED] x\nC: k1 STARTTLS\nS: k1 OK go\nTLS\n" + login + "S: k2 OK\n" + logout, "logged in"},
		{"a word like it", asAlice, "S: * OK [CAPABILITY LOGINDISABLEDX] LOGINDISABLED\n" + login + "S: k2 OK\n" + logout, "logged in"},
		{"a wrong password", asAlice, "S: * OK\n" + login + "S: k2 NO [AUTHENTICATIONFAILED] no", `!LOGIN: "k2 NO [AUTHENTICATIONFAILED] no", wanted OK of k2`},
		{"a login that is not understood", asAlice, "S: * OK\n" + login + "S: k2 BAD what?", `!LOGIN: "k2 BAD what?", wanted OK of k2`},
		{"the answer to something else", asAlice, "S: * OK\n" + login + "S: k9 OK done", `!LOGIN: "k9 OK done", wanted OK of k2`},
		{"thrown out at login", asAlice, "S: * OK\n" + login + "S: * BYE too often", `!LOGIN: "* BYE too often", wanted OK of k2`},
		{"chatter without end", asAlice, "S: * OK\n" + login + `FLOOD "* OK still here\r\n"`, "!LOGIN: the server sent more than 65536 bytes"},
		{"a quote and a backslash in the password", func(c *conf.Check) { c.Login, c.Passwd = "alice", `a"b\c` }, "S: * OK\n" + `C: k2 LOGIN "alice" "a\"b\\c"` + "\nS: k2 OK\n" + logout, "logged in"},
		{"an empty password", func(c *conf.Check) { c.Login = "alice" }, "S: * OK\n" + `C: k2 LOGIN "alice" ""` + "\nS: k2 OK\n" + logout, "logged in"},
		{"a password that is not ASCII", func(c *conf.Check) { c.Login, c.Passwd = "alice", "wönder" }, "S: * OK\n" + `C: k2 LOGIN "alice" {7}` + "\nS: + go on\nC: wönder\nS: k2 OK\n" + logout, "logged in"},
		{"literals refused", func(c *conf.Check) { c.Login, c.Passwd = "alice", "wönder" }, "S: * OK\n" + `C: k2 LOGIN "alice" {7}` + "\nS: k2 BAD no", `!LOGIN: "k2 BAD no", wanted "+" of k2`},
		{"a refusal", nil, "S: * BYE full", `!greeting: "* BYE full", wanted * OK`},
		{"another protocol", nil, "S: 220 mx", `!greeting: "220 mx", wanted * OK`},
		{"STARTTLS", func(c *conf.Check) { starttls(c); asAlice(c) }, "S: * OK\nC: k1 STARTTLS\nS: k1 OK go\nTLS\n" + login + "S: k2 OK\n" + logout, "logged in"},
		{"STARTTLS refused", starttls, "S: * OK\nC: k1 STARTTLS\nS: k1 NO", `!STARTTLS: "k1 NO", wanted OK of k1`},
		{"STARTTLS of one that knows us already", starttls, "S: * PREAUTH x\nHANG", `!greeting: "* PREAUTH x", wanted * OK, for STARTTLS`},
		{"closed at LOGOUT", nil, "S: * OK\nC: k3 LOGOUT\nS: * BYE", "* OK"},
		{"a complaint at LOGOUT", nil, "S: * OK\nC: k3 LOGOUT\nS: k3 BAD", `!LOGOUT: "k3 BAD", wanted goodbye`},
	})
	converse(t, "imaps", []talk{
		{"TLS from the start", asAlice, "TLS\nS: * OK\n" + login + "S: k2 OK\n" + logout, "logged in"},
	})
}
