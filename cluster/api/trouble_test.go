package api

import (
	"testing"

	"github.com/keepbeat/keepbeat/resources/ipvs"
)

func TestTheTroubleOfAServiceAsAWhole(t *testing.T) {
	reals := make([]ipvs.RealDetail, 3)
	answering := []ipvs.FallbackInfo{{Address: "10.1.0.1:80"}, {Address: "10.1.0.2:80", Active: true}}
	idle := []ipvs.FallbackInfo{{Address: "10.1.0.1:80"}}
	for name, tc := range map[string]struct {
		v    ipvs.ServiceDetail
		want string
	}{
		"all is well":             {ipvs.ServiceDetail{Up: 2, Sum: 2, Quorum: ipvs.QuorumMet, Reals: reals, Fallbacks: idle}, ""},
		"nothing decided yet":     {ipvs.ServiceDetail{Up: 1, Sum: 1, Quorum: ipvs.QuorumUndecided, Needed: 2, Reals: reals}, ""},
		"none up":                 {ipvs.ServiceDetail{Quorum: ipvs.QuorumLost, Reals: reals}, ": no real server is up, and there is no fallback: clients get no answer"},
		"none up, no fallback up": {ipvs.ServiceDetail{Quorum: ipvs.QuorumLost, Reals: reals, Fallbacks: idle}, ": no real server is up, and no fallback either: clients get no answer"},
		"none up, a fallback":     {ipvs.ServiceDetail{Quorum: ipvs.QuorumLost, Reals: reals, Fallbacks: answering}, ": no real server is up; the fallback 10.1.0.2:80 answers"},
		"too few":                 {ipvs.ServiceDetail{Up: 2, Sum: 2, Needed: 3, Quorum: ipvs.QuorumLost, Reals: reals, Fallbacks: answering}, " has no quorum: 2 of 3 real servers are up and weigh 2, and it needs 3; the fallback 10.1.0.2:80 answers"},
		"too few, no fallback up": {ipvs.ServiceDetail{Up: 2, Sum: 2, Needed: 3, Quorum: ipvs.QuorumLost, Reals: reals, Fallbacks: idle}, " has no quorum: 2 of 3 real servers are up and weigh 2, and it needs 3; no fallback is up, so they go on"},
		"all drained":             {ipvs.ServiceDetail{Up: 2, Needed: 1, Quorum: ipvs.QuorumLost, Reals: reals}, ": no real server that is up has a weight, and no fallback answers: clients get no answer"},
		"no servers":              {ipvs.ServiceDetail{Quorum: ipvs.QuorumLost}, " has no real server"},
	} {
		if got := quorumTrouble(tc.v); got != tc.want {
			t.Errorf("%s:\n%s\n%s", name, got, tc.want)
		}
	}
}
