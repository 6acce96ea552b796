package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestVirtualRoutersAloneSayWhatToDoInstead(t *testing.T) {
	const base = "this is for a node of a cluster (ha.yaml), and this machine runs virtual routers alone (vrrp.yaml)"
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
		new(server).alone(w, httptest.NewRequest(method, path, nil))
		if w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "\""+want+"\"") {
			t.Errorf("%s: %d %s", request, w.Code, w.Body)
		}
	}
}
