package probe

import (
	"testing"
	"time"
)

const ms = Instant(time.Millisecond)

func answers(who string, at ...Instant) []Sample {
	var samples []Sample
	for _, t := range at {
		samples = append(samples, Sample{Sent: t*ms - 1, At: t * ms, Received: t*ms + 1, Who: who})
	}
	return samples
}

func TestLongestGapNamesWhoAnsweredBeforeAndAfter(t *testing.T) {
	samples := append(answers("one", 1, 2, 3), answers("two", 503, 504)...)
	gap := LongestGap(samples, 0, 505*ms)
	if gap.Length() != 500*time.Millisecond || gap.Before != "one" || gap.After != "two" {
		t.Errorf("got %v", gap)
	}
}

func TestAGapThatBeginsBeforeTheTimeLookedAtNamesWhoAnsweredLast(t *testing.T) {
	gap := LongestGap(append(answers("one", 1, 2), answers("two", 50)...), 10*ms, 60*ms)
	if gap.From != 10*ms || gap.Before != "one" || gap.After != "two" {
		t.Errorf("got %+v", gap)
	}
}

func TestLongestGapCountsTheEdges(t *testing.T) {
	for name, c := range map[string]struct {
		samples       []Sample
		before, after string
		length        time.Duration
	}{
		"nobody answered at all":       {nil, "", "", 100 * time.Millisecond},
		"silent since the last answer": {answers("one", 10), "one", "", 90*time.Millisecond - 1},
		"silent until the first":       {answers("one", 80), "", "one", 80*time.Millisecond + 1},
		"errors are not answers":       {[]Sample{{Sent: 1, Received: 50 * ms, Error: "refused"}}, "", "", 100 * time.Millisecond},
	} {
		gap := LongestGap(c.samples, 0, 100*ms)
		if gap.Length() != c.length || gap.Before != c.before || gap.After != c.after {
			t.Errorf("%s: got %v, want %v from %q to %q", name, gap, c.length, c.before, c.after)
		}
	}
}

func TestOverlap(t *testing.T) {
	for name, c := range map[string]struct {
		a, b []Sample
		want time.Duration
	}{
		"one after the other":              {answers("a", 1, 2, 3), answers("b", 4, 5), 0},
		"there and back":                   {answers("a", 1, 2, 90, 91), answers("b", 4, 5, 60), 0},
		"two milliseconds of both":         {answers("a", 1, 2, 3, 4, 5), answers("b", 3, 4, 5, 6), 2 * time.Millisecond},
		"a single answer in the other's":   {answers("a", 1, 2, 3, 4, 5), append(answers("b", 90), Sample{Sent: 1, At: 2*ms + 5, Received: 3 * ms, Who: "b"}), 1},
		"a lost datagram does not hide it": {answers("a", 1, 15), answers("b", 7, 8, 9), 2 * time.Millisecond},
		"one never answers":                {answers("a", 1, 2), nil, 0},
	} {
		if got := Overlap(c.a, c.b, 20*time.Millisecond); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if got := Overlap(c.b, c.a, 20*time.Millisecond); got != c.want {
			t.Errorf("%s, the other way round: %v, want %v", name, got, c.want)
		}
	}
}

func TestAFailureIsOfTheTimeInWhichItsRequestWasSent(t *testing.T) {
	samples := append(answers("one", 10, 11), Sample{Sent: 8 * ms, Received: 12 * ms, Error: "reset"})
	if s := Summarize(samples, 9*ms, 20*ms); s.Answers != 2 || s.Errors != 0 {
		t.Errorf("sent before: %+v", s)
	}
	if s := Summarize(samples, 7*ms, 20*ms); s.Errors != 1 || s.LastError != "reset" {
		t.Errorf("sent within: %+v", s)
	}
}

func TestRequestsUnderWay(t *testing.T) {
	of := func(numbers ...uint64) (samples []Sample) {
		for _, n := range numbers { // one each millisecond
			samples = append(samples, Sample{Number: n, Sent: Instant(n) * ms, Received: Instant(n)*ms + 1})
		}
		return samples
	}
	for name, c := range map[string]struct {
		samples []Sample
		want    bool
	}{
		"nothing at all":                       {nil, false},
		"all before, and none after it yet":    {of(1, 2, 3), false},
		"all before and one after":             {of(2, 1, 3, 4), true},
		"one before is missing":                {of(1, 3, 4), false},
		"one after is missing, which is later": {of(1, 2, 3, 4, 6), true},
		"the first after it is missing":        {of(1, 2, 3, 5), false}, // it might have been sent before
	} {
		if got := Complete(c.samples, 4*ms); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestAnswersAreReadAsWritten(t *testing.T) {
	want := Answer{Request{7, 12345}, 23456, "director1"}
	got, err := ParseAnswer(want.AppendTo(nil))
	if err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Request{1, 2}.AppendTo(nil))
	f.Add(Answer{Request{1, 2}, 3, "x"}.AppendTo(nil))
	f.Add([]byte(`{"sent":1,"received":2,"who":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseRequest(b); err == nil && string(r.AppendTo(nil)) != string(b) {
			t.Errorf("request %x does not survive", b)
		}
		if a, err := ParseAnswer(b); err == nil && string(a.AppendTo(nil)) != string(b) {
			t.Errorf("answer %x does not survive", b)
		}
		if s, err := ParseSample(b); err == nil && s.Received < s.Sent {
			t.Errorf("sample %q is received before it is sent", b)
		}
	})
}
