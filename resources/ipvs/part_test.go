package ipvs

import "testing"

func TestWhichFallbacksEndTheirAnswers(t *testing.T) {
	for _, tc := range []struct {
		name, scheduler string
		quiescent, want bool
	}{
		{"quiescent", "wrr", true, true},
		{"not quiescent", "wrr", false, false},
		{"one that hashes would refuse the clients of a server of weight 0", "sh", true, false},
		{"so does the old one", "dh", true, false},
		{"and Maglev", "mh", true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := web()
			v.Scheduler, v.Quiescent = tc.scheduler, tc.quiescent
			if got := parts(&v); got != tc.want {
				t.Errorf("%v", got)
			}
		})
	}
}
