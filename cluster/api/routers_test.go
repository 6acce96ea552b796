package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestVirtualRoutersAloneSayWhatToDoInstead(t *testing.T) {
	const base = "this is for a node of a cluster (ha.yaml), and this machine runs virtual routers alone (vrrp.yaml)"
	nowhere := &server{cfg: Config{Logger: slog.New(slog.DiscardHandler)}}
	for request, want := range map[string]string{
		"POST /v1/standby":      base + ": a track_file without weight takes a virtual router out, as does `systemctl stop keepbeat`",
		"POST /v1/takeover":     base + ": a higher priority in vrrp.yaml and `keepbeat vrrp reload` take the addresses",
		"POST /v1/apply":        base + ": `keepbeat vrrp reload` reads vrrp.yaml and its pools again",
		"GET /v1/real":          base + ": a file in maintenancedir takes a real server out, a weight in the pool's file counts after `keepbeat vrrp reload`",
		"GET /v1/why/web":       base + ": `keepbeat vrrp` says what is, and `journalctl -u keepbeat` what was",
		"GET /v1/history":       base + ": `journalctl -u keepbeat` has what was",
		"POST /v1/fence":        base,
		"GET /v1/nothing/known": base,
	} {
		method, path, _ := strings.Cut(request, " ")
		w := httptest.NewRecorder()
		nowhere.alone(w, httptest.NewRequest(method, path, nil))
		if w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "\""+want+"\"") {
			t.Errorf("%s: %d %s", request, w.Code, w.Body)
		}
	}
}

func TestWhatBecameOfAnOrderIsInTheLog(t *testing.T) {
	var log strings.Builder
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	everybody := access{read: -1, admin: -1}
	for _, c := range []struct {
		name, request string
		node          Node
		want          string
	}{
		{"of a cluster, where virtual routers run alone", "POST /v1/standby", nil,
			"level=WARN msg=\"order refused\" what=/v1/standby by=root why=\"this is for a node of a cluster (ha.yaml), and this machine runs virtual routers alone (vrrp.yaml): a track_file without weight takes a virtual router out, as does `systemctl stop keepbeat`\"\n"},
		{"of a newer program", "POST /v1/dance", &fake{}, "level=WARN msg=\"order refused\" what=/v1/dance by=root why=\"this daemon knows no POST /v1/dance; run the same version of keepbeat everywhere\"\n"},
		{"that ends in an error", "POST /v1/restart", &fake{err: errors.New("ha.yaml:3:10: unknown kind of link")},
			"level=INFO msg=order what=/v1/restart by=root\n" +
				"level=WARN msg=\"order answered with an error\" what=/v1/restart by=root why=\"ha.yaml:3:10: unknown kind of link\"\n"},
		{"a question is no order", "GET /v1/status", nil, ""},
		{"for which there is nothing here", "POST /v1/vrrp/reload", nil, "level=INFO msg=order what=/v1/vrrp/reload by=root\n" +
			"level=WARN msg=\"order answered with an error\" what=/v1/vrrp/reload by=root why=\"this daemon has no vrrp.yaml; it is read when keepbeat starts, so `keepbeat restart` begins with a new one\"\n"},
		{"that is carried out", "POST /v1/restart", &fake{}, "level=INFO msg=order what=/v1/restart by=root\n"},
	} {
		log.Reset()
		method, path, _ := strings.Cut(c.request, " ")
		r := httptest.NewRequest(method, path, nil)
		r = r.WithContext(context.WithValue(r.Context(), peerKey{}, peer{0, nil}))
		handler(Config{Node: c.node, Logger: logger, Restart: func() {}}, everybody).ServeHTTP(httptest.NewRecorder(), r)
		if log.String() != c.want {
			t.Errorf("%s: %q\nwant %q", c.name, log.String(), c.want)
		}
	}
}
