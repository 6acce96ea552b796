package checks

import "testing"

func TestHealthFollowsRiseAndFall(t *testing.T) {
	for _, tc := range []struct {
		name       string
		fall, rise int
		results    string // + success, - failure
		states     string // u up, d down, after each
	}{
		{"the first success decides whatever rise is", 1, 5, "+", "u"},
		{"the first failure decides whatever fall is", 5, 1, "-", "d"},
		{"one failure is enough with fall 1", 1, 1, "+-+", "udu"},
		{"a success in between starts the count again", 3, 1, "+--+---", "uuuuuud"},
		{"rise successes in a row bring it up again", 1, 3, "-++-+++", "ddddddu"},
		{"both counts", 2, 2, "+--++--", "uudduud"},
		{"values below 1 count as 1", 0, -1, "+-+", "udu"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var h Health
			got := ""
			for _, r := range tc.results {
				h = h.Next(r == '+', tc.fall, tc.rise)
				if !h.Known {
					t.Fatal("not known after a result")
				}
				if h.Up {
					got += "u"
				} else {
					got += "d"
				}
			}
			if got != tc.states {
				t.Errorf("fall %d rise %d: results %s: states %s, want %s", tc.fall, tc.rise, tc.results, got, tc.states)
			}
		})
	}
}

func TestHealthCountsInARow(t *testing.T) {
	h := Health{}.Next(true, 9, 9).Next(false, 9, 9).Next(false, 9, 9)
	if want := (Health{Known: true, Up: true, Fails: 2}); h != want {
		t.Errorf("got %+v, want %+v", h, want)
	}
	h = Health{Known: true, Fails: maxStreak}.Next(false, 1, 1)
	if h.Fails != maxStreak {
		t.Errorf("the count grew past its bound: %d", h.Fails)
	}
}
