package site

import (
	"context"
	"testing"
	"time"
)

func TestWhyAProgramWasKilledIsSaid(t *testing.T) {
	soon := 10 * time.Millisecond
	late, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	ended, end := context.WithCancel(t.Context())
	defer time.AfterFunc(soon, end).Stop()
	for _, c := range []struct {
		name, want string
		ctx        context.Context
	}{
		{"it took too long", "killed at its time-out", late},
		{"the daemon ends", "killed, since keepbeat stops or has no use for it any more", ended},
	} {
		if err := run(c.ctx, "", []string{"/bin/sleep", "600"}); err == nil || err.Error() != c.want {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
