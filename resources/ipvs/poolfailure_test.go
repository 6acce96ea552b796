package ipvs

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

func TestWithoutIPVSThePoolSaysSo(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.kernel.present = false
		p := r.pool(web())
		for what, err := range map[string]error{"Ready": p.Ready(), "Start": p.Start(t.Context())} {
			if !errors.Is(err, ErrNoIPVS) || !strings.Contains(err.Error(), "pool web.yaml") || !strings.Contains(err.Error(), "modprobe ip_vs") {
				t.Errorf("%s: %v", what, err)
			}
		}
		r.stop(p)
	})
}

func TestAFailingTableAlarms(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		v := web()
		p := r.pool(v)
		r.checks.set(v.Reals[0].Check, true)
		r.start(p)
		r.kernel.mu.Lock()
		r.kernel.refuse = func(Op) unix.Errno { return unix.ENOMEM }
		clear(r.kernel.services)
		r.kernel.mu.Unlock()
		time.Sleep(2 * time.Second)
		select {
		case <-p.Alarm():
		default:
			t.Error("no alarm")
		}
		if err := p.Monitor(t.Context()); !errors.Is(err, unix.ENOMEM) {
			t.Errorf("Monitor: %v", err)
		}
		if d := p.Detail().(Detail); d.Trouble == "" {
			t.Error("status says nothing")
		}
		if n := r.log.count("level=ERROR"); n != 1 {
			t.Errorf("the same error was logged %d times", n)
		}
		r.kernel.mu.Lock()
		r.kernel.refuse = nil
		r.kernel.mu.Unlock()
		time.Sleep(2 * time.Second)
		r.holds("when it works again", both[0], both[1], "-a -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 0")
		if err := p.Monitor(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestTroubleOfOneServiceIsNotForgottenWhenAnotherWorks(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a, b := web(), virtual("10.0.0.2:80")
		p := r.pool(a, b)
		r.start(p)
		r.kernel.mu.Lock()
		r.kernel.refuse = func(op Op) unix.Errno {
			if op.Service.Key == KeyOf(b) {
				return unix.ENOMEM
			}
			return 0
		}
		delete(r.kernel.services, KeyOf(b))
		r.kernel.mu.Unlock()
		time.Sleep(2 * time.Second)
		r.checks.set(a.Reals[0].Check, true)
		synctest.Wait()
		r.holds("the other follows", both[0], both[1], "-a -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 0", "-a -t 10.0.0.1:80 -r 127.0.0.1:80 -g -w 0")
		if d := p.Detail().(Detail); !strings.Contains(d.Trouble, "10.0.0.2:80") {
			t.Errorf("trouble: %q", d.Trouble)
		}
	})
}

func TestOneServerThatTheKernelRefusesDoesNotFailThePool(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		v := virtual("10.0.0.1:80", real("10.0.0.5:80", conf.Gate, 1), real("224.0.0.1:80", conf.Gate, 1))
		r.kernel.refuse = func(op Op) unix.Errno {
			if op.Dest.Address == ap("224.0.0.1:80") {
				return unix.EINVAL
			}
			return 0
		}
		p := r.pool(v)
		r.checks.set(v.Reals[0].Check, true)
		r.checks.set(v.Reals[1].Check, true)
		r.start(p)
		time.Sleep(time.Minute)
		r.holds("the other serves", both[0], both[1])
		d := p.Detail().(Detail)
		if got := d.Services[0].Reals[1]; !strings.Contains(got.Trouble, "does not take this address") || got.InKernel != nil {
			t.Errorf("%+v", got)
		}
		if d.Services[0].Reals[0].Trouble != "" || d.Repairs != 0 {
			t.Errorf("%+v", d)
		}
		if n := r.log.count("cannot be programmed"); n != 1 {
			t.Errorf("logged %d times", n)
		}
	})
}
