package checks

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

func TestNeedIsTheSumOfDistinctChecks(t *testing.T) {
	http, other, ext, on, ftp := target(1), target(2), target(3), target(4), target(5)
	ext.Type, on.Type, ftp.Service = conf.External, conf.On, "ftp"
	for _, tc := range []struct {
		name string
		all  []conf.Check
		want int
	}{
		{"none", nil, 0},
		{"one a check", []conf.Check{http, other}, 2},
		{"equal checks are run once", []conf.Check{http, other, http, http}, 2},
		{"a program needs four", []conf.Check{ext}, 4},
		{"ftp has two connections", []conf.Check{ftp}, 2},
		{"nobody is asked", []conf.Check{on}, 0},
		{"all together", []conf.Check{http, other, ext, on, ftp}, 8},
	} {
		if n := Need(tc.all); n != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, n, tc.want)
		}
	}
}

// tellDescriptors makes this test binary print Descriptors and end.
const tellDescriptors = "KEEPBEAT_TELL_DESCRIPTORS"

func TestTheLimitOfDescriptorsIsRaisedToTheHardOne(t *testing.T) {
	if os.Getenv(tellDescriptors) != "" {
		os.Stdout.WriteString("descriptors " + strconv.Itoa(Descriptors()) + "\n")
		return
	}
	for _, tc := range []struct{ soft, hard, want int }{
		{256, 8192, 8191 - reservedFDs}, // the runtime stays one below
		{1024, 1024, 1024 - reservedFDs},
		{400, 400, 200}, // half of a small one
	} {
		cmd := exec.Command("sh", "-c", "ulimit -Sn "+strconv.Itoa(tc.soft)+" && ulimit -Hn "+strconv.Itoa(tc.hard)+` && exec "$0" -test.run='^TestTheLimitOfDescriptors' -test.v`, os.Args[0])
		cmd.Env = append(os.Environ(), tellDescriptors+"=1")
		out, err := cmd.CombinedOutput()
		if want := "descriptors " + strconv.Itoa(tc.want) + "\n"; err != nil || !strings.Contains(string(out), want) {
			t.Errorf("soft %d, hard %d: %v: %s, want %s", tc.soft, tc.hard, err, out, want)
		}
	}
}
