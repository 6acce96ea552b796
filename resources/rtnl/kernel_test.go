package rtnl

import "testing"

func TestKernelRelease(t *testing.T) {
	for release, want := range map[string]bool{
		"6.1.0-18-amd64": true, "5.18-rc1": true, "5.18.0": true, "5.17.9": false, "4.19": false, "6.18.44-fc": true, "": false, "x.y": false,
	} {
		if got := atLeast(release, 5, 18); got != want {
			t.Errorf("%q: %v", release, got)
		}
	}
}
