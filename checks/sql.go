package checks

import (
	"crypto/tls"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/keepbeat/keepbeat/conf"
)

// maxRows is how many rows of an answer receive looks at.
const maxRows = 1000

// sqlCheck is what the checks of databases have in common: a login and, with
// request, a query that has to give a row; with receive the expression has to
// match a value in one of the first maxRows. Without login the server shows
// that it would let somebody log in.
type sqlCheck struct {
	c       conf.Check
	query   string         // empty: none
	receive *regexp.Regexp // nil: any row
	tls     *tls.Config    // nil: none
}

func newSQL(c conf.Check, e *env) (k sqlCheck, err error) {
	k = sqlCheck{c: c, query: strings.TrimPrefix(c.Request, "/")} // ldirectord put a slash before every request
	if err := needTCPPort(c); err != nil {
		return k, err
	}
	switch {
	case c.Login == "" && (c.Passwd != "" || c.PasswdFile != ""):
		return k, errors.New("passwd without login: say whose password it is")
	case c.Login == "" && (k.query != "" || c.Database != ""):
		return k, fmt.Errorf("request and database of service %s need login: nobody is asked before", c.Service)
	case c.Receive != "" && k.query == "":
		return k, fmt.Errorf("receive of service %s looks at the rows of a query: write it as request", c.Service)
	case strings.ContainsRune(c.Login+c.Database+k.query+c.Passwd, 0):
		return k, errors.New("login, passwd, database and request cannot hold NUL")
	}
	if c.STARTTLS {
		if k.tls, err = tlsConfig(c, e); err != nil {
			return k, err
		}
	}
	k.receive, err = e.wanted(c)
	return k, err
}

// sqlRows is what has come of an answer.
type sqlRows struct {
	receive *regexp.Regexp
	rows    int
	matched bool
}

func (r *sqlRows) value(v []byte) {
	r.matched = r.matched || (r.receive != nil && r.receive.Match(v))
}

// enough is true when nothing that may still come changes the verdict.
func (r *sqlRows) enough() bool {
	return r.matched || (r.receive == nil && r.rows > 0) || r.rows >= maxRows
}

func (r *sqlRows) verdict(c conf.Check) (string, error) {
	switch {
	case r.rows == 0:
		return "", errors.New("the query gave no row")
	case r.receive == nil:
		return "the query gave a row", nil
	case r.matched:
		return fmt.Sprintf("match for %q", c.Receive), nil
	}
	return "", fmt.Errorf("no match for %q in %d rows", c.Receive, r.rows)
}
