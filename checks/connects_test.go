package checks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

// stage is a checker that answers as a server would just now.
type stage struct {
	name string // of the letter in the transcript
	now  *func(name string) error
	log  *strings.Builder
}

func (k stage) Check(ctx context.Context) (string, error) {
	k.log.WriteString(k.name)
	err := (*k.now)(k.name)
	if errors.Is(err, context.DeadlineExceeded) {
		<-ctx.Done()
		return "", timeoutError{after: time.Second}
	}
	return k.name + " fine", err
}

func TestConnectsBetweenNegotiates(t *testing.T) {
	down := errors.New("refused")
	for _, tc := range []struct {
		name string
		n    int
		// for each check: "+" both work, "n" the negotiate fails, "c" the connect
		// fails, "t" the connect gets no answer, "-" both fail, "l" no descriptor for the connect
		servers string
		asked   string // N negotiate, C connect, blank between checks
		found   string // + - and l for each check
	}{
		{"three connects after each negotiate", 3, "+++++++++", "N C C C N C C C N", "+++++++++"},
		{"one", 1, "+++++", "N C N C N", "+++++"},
		{"a negotiate that fails is made again", 3, "nnn++", "N N N N C", "---++"},
		{"a connect that fails is no verdict: the negotiate decides at once", 3, "++c+++++", "N C CN C C C N C", "++++++++"},
		{"and says that the server is down", 3, "++-+++", "N C CN N C C", "++-+++"},
		{"what connects do not see is found at the next negotiate", 2, "+nn+", "N C C N", "++++"},
		{"a connect without an answer leaves time for the negotiate", 2, "+t+", "N CN C", "+++"},
		{"what this node lacks is no verdict and changes nothing", 2, "+l++", "N C C C", "+l++"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log strings.Builder
				var now func(string) error
				k := &connects{negotiate: stage{"N", &now, &log}, connect: stage{"C", &now, &log}, n: tc.n}
				found := ""
				for i, s := range tc.servers {
					if i > 0 {
						log.WriteByte(' ')
					}
					now = func(name string) error {
						switch {
						case s == '-', s == 'n' && name == "N", s == 'c' && name == "C":
							return down
						case s == 't' && name == "C":
							return context.DeadlineExceeded
						case s == 'l' && name == "C":
							return fmt.Errorf("socket: %w", unix.EMFILE)
						}
						return nil
					}
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					switch _, err := k.Check(ctx); {
					case err == nil:
						found += "+"
					case Local(err):
						found += "l"
					default:
						found += "-"
					}
					if ctx.Err() != nil {
						t.Errorf("check %d took its whole time-out", i+1)
					}
					cancel()
				}
				if log.String() != tc.asked || found != tc.found {
					t.Errorf("asked %q found %q, want %q and %q", log.String(), found, tc.asked, tc.found)
				}
			})
		})
	}
}

func TestConnectsOfAServiceByUDPArePings(t *testing.T) {
	c := target(1)
	c.Connects = 3
	negotiate := func(c conf.Check, _ *env) (Checker, error) { return constant{up: true}, nil }
	for _, tc := range []struct {
		service string
		udp     bool
		want    string
	}{
		{"http", false, "checks.connect"}, {"dns", false, "checks.connect"},
		{"dns", true, "*checks.ping"}, {"radius", false, "*checks.ping"}, {"sip", true, "*checks.ping"},
	} {
		c.Service, c.UDP = tc.service, tc.udp
		k, err := newConnects(c, newEnv(nil), negotiate)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%T", k.(*connects).connect); got != tc.want {
			t.Errorf("service %s, udp %v: between negotiates comes a %s, want %s", tc.service, tc.udp, got, tc.want)
		}
	}
}
