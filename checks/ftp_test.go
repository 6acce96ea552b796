package checks

import (
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

func TestFTP(t *testing.T) {
	login := "S: 220 ftp\nC: USER anonymous\nS: 331 password\nC: PASS ldirectord@" + hostname() + "\nS: 230 welcome\n"
	const file = "C: TYPE I\nS: 200 ok\nC: EPSV\nS: 229 ok (|||{port}|)\nC: RETR .test.txt\nS: 150 here\n"
	const bye = "C: QUIT\nS: 221 bye"
	get := func(c *conf.Check) { c.Request = ".test.txt" }
	getOK := func(c *conf.Check) { c.Request, c.Receive = ".test.txt", "still (going|alive)" }
	converse(t, "ftp", []talk{
		{"a file", getOK, login + file + "DATA: still alive\nS: 226 done\n" + bye, `file ".test.txt", 11 bytes`},
		{"a login is enough", nil, login + bye, "logged in"},
		{"one that asks for no password", nil, "S: 220 ftp\nC: USER anonymous\nS: 230 welcome\n" + bye, "logged in"},
		{"one that is ready in a moment", nil, "S: 120 a moment\n" + login + bye, "logged in"},
		{"a greeting and a welcome of several lines", nil, "S: 220-ftp\nS:  230 not the end\nS: 220 ready\nC: USER anonymous\nS: 331 x\nC~ ^PASS\nS: 230-Hello\nS: 231 is no end\nS: 230 ok\n" + bye, "logged in"},
		{"a user", asAlice, "S: 220\nC: USER alice\nS: 331\nC: PASS wonder land\nS: 230\n" + bye, "logged in"},
		{"a wrong password", asAlice, "S: 220\nC: USER alice\nS: 331\nC: PASS wonder land\nS: 530 no", `!PASS: "530 no", wanted 230 or 202`},
		{"any content", get, login + file + "DATA: x\nS: 226 done\n" + bye, `file ".test.txt", 1 bytes`},
		{"other content", getOK, login + file + "DATA: dead\nS: 226 done\nHANG", `!file ".test.txt": no match for "still (going|alive)" in 4 bytes`},
		{"no such file", get, login + "C: TYPE I\nS: 200\nC: EPSV\nS: 229 (|||{port}|)\nC: RETR .test.txt\nS: 550 no such file", `!RETR: "550 no such file", wanted 125 or 150`},
		{"a file that breaks off", get, login + file + "DATA: half\nS: 426 aborted", `!end of RETR: "426 aborted", wanted 226 or 250`},
		{"one that knows no EPSV", getOK, login + "C: TYPE I\nS: 200 ok\nC: EPSV\nS: 500 what?\nC: PASV\nS: 227 ok (127,0,0,1,{pasv})\nC: RETR .test.txt\nS: 150\nDATA: still going\nS: 226\n" + bye, `file ".test.txt", 11 bytes`},
		{"one that names somebody else", getOK, login + "C: TYPE I\nS: 200 ok\nC: EPSV\nS: 500 what?\nC: PASV\nS: 227 192,0,2,1,{pasv}\nC: RETR .test.txt\nS: 150\nDATA: still going\nS: 226\n" + bye, `file ".test.txt", 11 bytes`},
		{"neither EPSV nor PASV", get, login + "C: TYPE I\nS: 200 ok\nC: EPSV\nS: 500\nC: PASV\nS: 502 no", `!PASV: "502 no", wanted 227`},
		{"a port that is none", get, login + "C: TYPE I\nS: 200 ok\nC: EPSV\nS: 229 ok (|||0|)", `!EPSV: "229 ok (|||0|)", wanted a port`},
		{"STARTTLS", func(c *conf.Check) { starttls(c); getOK(c) }, "S: 220 ftp\nC: AUTH TLS\nS: 234 go\nTLS\nC: PBSZ 0\nS: 200\nC: PROT P\nS: 200\n" +
			strings.TrimPrefix(login, "S: 220 ftp\n") + file + "DATATLS: still going\nS: 226\n" + bye, `file ".test.txt", 11 bytes`},
		{"STARTTLS refused", starttls, "S: 220 ftp\nC: AUTH TLS\nS: 500 what?", `!AUTH TLS: "500 what?", wanted 234`},
		{"STARTTLS without data in TLS", starttls, "S: 220 ftp\nC: AUTH TLS\nS: 234 go\nTLS\nC: PBSZ 0\nS: 200\nC: PROT P\nS: 536 no", `!PROT P: "536 no", wanted 200`},
	})
}

func TestAnEndlessFileIsReadInPart(t *testing.T) {
	login := "S: 220 ftp\nC: USER anonymous\nS: 230\nC: TYPE I\nS: 200\nC: EPSV\nS: 229 (|||{port}|)\nC: RETR big\nS: 150\n"
	c := negotiate("ftp", scripted(t, "tcp", login+"DATA: "+strings.Repeat("x", 3*maxBody)+"\nS: 426 you hung up\nC: QUIT\nS: 221"))
	c.Request = "big"
	expect(t, c, `file "big", 1048576 bytes`)
}

func TestPassivePorts(t *testing.T) {
	for line, want := range map[string]uint16{
		"229 Entering Extended Passive Mode (|||6446|)": 6446,
		"229 (!!!65535!)": 65535,
		"229 (|||65536|)": 0, "229 (|||0|)": 0, "229 (|||-1|)": 0, "229 (|||+1|)": 0, "229 (|1|::1|80|)": 0,
		"229 (||||)": 0, "229 ()": 0, "229": 0, "229 )(|||80|": 0, "229 (|||80!)": 0, "229 (aaa80a)": 80,
	} {
		if got := ftpExtended([]byte(line)); got != want {
			t.Errorf("%s: port %d, want %d", line, got, want)
		}
	}
	for line, want := range map[string]uint16{
		"227 Entering Passive Mode (10,0,0,1,25,46)": 25<<8 | 46,
		"227 10,0,0,1,255,255":                       65535,
		"227 (10,0,0,1,256,0)":                       0, "227 (10,0,0,1,0,0)": 0, "227 (10,0,0,1,1)": 0, "227": 0, "22": 0,
	} {
		if got := ftpPassive([]byte(line)); got != want {
			t.Errorf("%s: port %d, want %d", line, got, want)
		}
	}
}
