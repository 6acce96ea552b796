package api

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"testing"
	"time"
)

func TestAnOrderOfSomebodyWhoMayNotIsInTheLogOnce(t *testing.T) {
	var log bytes.Buffer
	h := handler(Config{Node: &fake{}, Logger: slog.New(slog.NewTextHandler(&log, nil))}, access{self: 500, read: 20, admin: 30})
	for _, c := range []struct {
		method, path string
		peer         peer
	}{
		{"GET", "/v1/status", peer{4000000, nil}}, // looking is nothing to tell of
		{"POST", "/nowhere", peer{4000000, nil}},
		{"POST", "/v1/fence", peer{4000000, []int{20}}},
		{"POST", "/v1/standby", peer{4000000, []int{20}}},
		{"POST", "/v1/standby", peer{-1, nil}},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil).WithContext(withPeer(t.Context(), c.peer)))
		if w.Code != http.StatusForbidden {
			t.Errorf("%s %s: %d", c.method, c.path, w.Code)
		}
	}
	got := regexp.MustCompile(`(?m)^time=\S+ `).ReplaceAllString(log.String(), "")
	want := "level=WARN msg=\"order refused\" what=/v1/fence by=\"user 4000000\" why=\"only root may give orders; this is user 4000000; admin_group: in ha.yaml names a group that may, too\"\n" +
		"level=WARN msg=\"order refused\" what=/v1/standby by=\"nobody that the kernel knows\" why=\"only root may give orders; this is nobody that the kernel knows; admin_group: in ha.yaml names a group that may, too\"\n"
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func TestThoseWhoMayNotCannotFillTheLog(t *testing.T) {
	var d denied
	now := time.Unix(1000, 0)
	lines := 0
	for uid := range 1000 {
		for range 3 {
			if d.say(uid, now) {
				lines++
			}
		}
	}
	if lines != deniedUsers {
		t.Errorf("%d lines", lines)
	}
	if now = now.Add(deniedAgain); !d.say(999, now) || d.say(999, now) {
		t.Error("after a while each is told of again, once")
	}
}
