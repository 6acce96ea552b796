package checks

import (
	"fmt"
	"regexp"

	"github.com/keepbeat/keepbeat/conf"
)

// wanted is the expression of receive; nil: any answer will do.
func (e *env) wanted(c conf.Check) (*regexp.Regexp, error) {
	if c.Receive == "" {
		return nil, nil
	}
	re, err := e.compile(c.Receive)
	if err != nil {
		return nil, fmt.Errorf("receive %q: %w", c.Receive, err)
	}
	return re, nil
}
