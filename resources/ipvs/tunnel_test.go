package ipvs

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keepbeat/keepbeat/conf"
)

// through is a virtual service whose servers are reached by every kind of tunnel.
func through() conf.Virtual {
	v := virtual("10.0.0.1:80",
		real("10.0.0.5:80", conf.IPIP, 1), real("10.0.0.6:80", conf.IPIP, 1), real("10.0.0.7:80", conf.IPIP, 1),
		real("10.0.0.8:80", conf.IPIP, 1), real("10.0.0.9:80", conf.IPIP, 1), real("10.0.0.10:80", conf.IPIP, 1),
		real("[2001:db8::5]:80", conf.IPIP, 1))
	for i := 1; i <= 3; i++ {
		v.Reals[i].Tunnel, v.Reals[i].TunnelPort = conf.TunnelGUE, 6080
		v.Reals[i].TunnelChecksum = []conf.Checksum{conf.ChecksumNone, conf.ChecksumFull, conf.ChecksumRemote}[i-1]
	}
	v.Reals[4].Tunnel = conf.TunnelGRE
	v.Reals[5].Tunnel, v.Reals[5].TunnelChecksum = conf.TunnelGRE, conf.ChecksumFull
	return v
}

// special are services with what is rarely asked for.
func special() []conf.Virtual {
	sctp := virtual("10.0.0.1:3868", real("10.0.0.5:3868", conf.Masq, 1))
	sctp.Protocol = conf.SCTP
	sip := virtual("10.0.0.1:5060", real("10.0.0.5:5060", conf.Masq, 1))
	sip.Protocol, sip.OPS, sip.Engine, sip.Persistent = conf.UDP, true, "sip", time.Minute
	flags := virtual("10.0.0.1:443", real("10.0.0.5:443", conf.Gate, 1))
	flags.Flags = []string{"flag-1", "flag-2", "flag-3"}
	return []conf.Virtual{sctp, sip, flags}
}

func TestWantedOfRareServices(t *testing.T) {
	all := func(Key, conf.Real) bool { return true }
	if d := cmp.Diff(lines(
		"-A -t 10.0.0.1:80 -s wlc",
		"-a -t 10.0.0.1:80 -r 10.0.0.5:80 -i -w 1",
		"-a -t 10.0.0.1:80 -r 10.0.0.6:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum",
		"-a -t 10.0.0.1:80 -r 10.0.0.7:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-csum",
		"-a -t 10.0.0.1:80 -r 10.0.0.8:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum",
		"-a -t 10.0.0.1:80 -r 10.0.0.9:80 -i -w 1 --tun-type gre --tun-nocsum",
		"-a -t 10.0.0.1:80 -r 10.0.0.10:80 -i -w 1 --tun-type gre --tun-csum",
		"-a -t 10.0.0.1:80 -r [2001:db8::5]:80 -i -w 1",
		"-A -t 10.0.0.1:443 -s wlc -b flag-1,flag-2,flag-3",
		"-a -t 10.0.0.1:443 -r 10.0.0.5:443 -g -w 1",
		"-A -u 10.0.0.1:5060 -s wlc -p 60 --pe sip -o",
		"-a -u 10.0.0.1:5060 -r 10.0.0.5:5060 -m -w 1",
		"-A --sctp-service 10.0.0.1:3868 -s wlc",
		"-a --sctp-service 10.0.0.1:3868 -r 10.0.0.5:3868 -m -w 1",
	), Text(Wanted(append(special(), through()), all))); d != "" {
		t.Error(d)
	}
}

func TestWhatIsReadBackIsNoDifference(t *testing.T) {
	fake := newFakeKernel()
	k := fake.table(0, nil)
	defer closeKernel(t, k)
	wanted := Wanted(append(special(), through()), func(Key, conf.Real) bool { return true })
	for round := range 2 {
		got, err := settle(t.Context(), k, wanted, keysOfEntries(wanted), true)
		if err != nil || len(got.Left) > 0 || round > 0 && len(got.Before) > 0 {
			t.Errorf("round %d: %v, %v left, to do:\n%s", round, err, got.Left, OpsText(got.Before))
		}
	}
	if d := cmp.Diff(Text(wanted), fake.text()); d != "" {
		t.Error(d)
	}
	// A server that is not reached by a tunnel any more: its type means nothing.
	v := through()
	v.Reals[1].Forward = conf.Gate
	wanted = Wanted([]conf.Virtual{v}, func(Key, conf.Real) bool { return true })
	fake.take()
	if _, err := settle(t.Context(), k, wanted, keysOfEntries(wanted), true); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"-e -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 1"}, fake.take()); d != "" {
		t.Error(d)
	}
}

func TestAKernelWithoutTunnelTypesRefusesThem(t *testing.T) {
	fake := newFakeKernel()
	fake.old = true
	k := fake.table(0, nil)
	defer closeKernel(t, k)
	v := through()
	v.Reals = append(v.Reals, real("10.0.0.11:80", conf.Gate, 1))
	wanted := Wanted([]conf.Virtual{v}, func(Key, conf.Real) bool { return true })
	got, err := settle(t.Context(), k, wanted, keysOfEntries(wanted), true)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Left) != 5 {
		t.Errorf("refused: %v", got.Left)
	}
	for _, r := range got.Left {
		if !errors.Is(r.Err, errNoTunnels) {
			t.Error(r.Err)
		}
	}
	if err := got.serious(wanted); err != nil {
		t.Errorf("other servers are there: %v", err)
	}
	if d := cmp.Diff(lines(
		"-A -t 10.0.0.1:80 -s wlc",
		"-a -t 10.0.0.1:80 -r 10.0.0.5:80 -i -w 1",
		"-a -t 10.0.0.1:80 -r 10.0.0.11:80 -g -w 1",
		"-a -t 10.0.0.1:80 -r [2001:db8::5]:80 -i -w 1",
	), fake.text()); d != "" {
		t.Error(d)
	}
}
