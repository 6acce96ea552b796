package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/cluster"
)

func TestWhoMayDoWhat(t *testing.T) {
	const readers, admins = 20, 30
	both := access{groups: Groups{"ops", "kbadmin"}, self: 500, read: readers, admin: admins}
	none := access{self: 0, read: -1, admin: -1}
	one := access{groups: Groups{Admin: "kbadmin"}, read: -1, admin: admins}
	for _, c := range []struct {
		who    string
		access access
		peer   peer
		may    right
	}{
		{"root", both, peer{0, []int{0}}, order},
		{"root where no group is named", none, peer{0, nil}, order},
		{"the user of the daemon", both, peer{500, nil}, order},
		{"a member of the admin group", both, peer{1000, []int{1000, admins}}, order},
		{"a member of both", both, peer{1000, []int{readers, admins}}, order},
		{"a reader", both, peer{1000, []int{1000, readers}}, look},
		{"a stranger", both, peer{1000, []int{1000, 40}}, nothing},
		{"a stranger where no group is named", none, peer{1000, []int{0}}, nothing},
		{"group 0 is not root", both, peer{1000, []int{0}}, nothing},
		{"a group of -1 is no group", none, peer{1000, []int{-1}}, nothing},
		{"a reader where only admins are named", one, peer{1000, []int{readers}}, nothing},
		{"nobody that the kernel knows", both, peer{-1, []int{readers, admins}}, nothing},
	} {
		if may := c.access.of(c.peer); may != c.may {
			t.Errorf("%s: %d, not %d", c.who, may, c.may)
		}
	}
	for _, c := range []struct {
		access access
		need   right
		says   string
	}{
		{both, order, "only root and members of group kbadmin (admin_group) may give orders; this is user 4000000"},
		{none, order, "only root may give orders; this is user 4000000; admin_group: in ha.yaml names a group that may, too"},
		{both, look, "only root and members of group kbadmin (admin_group) and members of group ops (socket_group) may look here; this is user 4000000 (a group counts from the next login on)"},
	} {
		if says := c.access.refusal(peer{uid: 4000000}, c.need); says != c.says {
			t.Errorf("it says\n%s\nnot\n%s", says, c.says)
		}
	}
}

func TestTheSocketLetsConnectNobodyItNeedNot(t *testing.T) {
	for _, c := range []struct {
		access access
		mode   os.FileMode
		gid    int
	}{
		{access{read: -1, admin: -1}, 0o600, -1},
		{access{read: 20, admin: -1}, 0o660, 20},
		{access{read: -1, admin: 30}, 0o660, 30},
		{access{read: 20, admin: 20}, 0o660, 20},
		{access{read: 20, admin: 30}, 0o666, -1},
	} {
		if mode, gid := c.access.mode(); mode != c.mode || gid != c.gid {
			t.Errorf("%+v: %v, %d", c.access, mode, gid)
		}
	}
}

// Users without rights have their own program: this test binary again.

const nobody = 65534

func stranger(path string) int {
	c := NewClientAt(path)
	ctx := context.Background()
	_, status := c.Status(ctx)
	_, keys := c.Keys(ctx)
	_, standby := c.Standby(ctx, Move{Which: "all"})
	_, apply := c.Apply(ctx, Apply{})
	_, add := c.AddKey(ctx, Key{Key: "0123456789abcdef"})
	for _, a := range []struct {
		what string
		err  error
	}{{"status", status}, {"keys", keys}, {"standby", standby}, {"apply", apply}, {"add", add}, {"restart", c.Restart(ctx)}} {
		text := "ok"
		if a.err != nil {
			text = a.err.Error()
		}
		os.Stdout.WriteString(a.what + ": " + text + "\n")
	}
	return 0
}

func runAs(t *testing.T, socket string, cred syscall.Credential) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test changes users: run it as root")
	}
	// The binary lies where only root may look.
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(filepath.Dir(socket), "stranger")
	b, err := os.ReadFile(exe)
	if err == nil {
		err = os.WriteFile(copied, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(copied)
	cmd.Dir = "/"
	cmd.Env = []string{"KEEPBEAT_TEST_STRANGER=" + socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &cred}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func TestUsersMayWhatTheirGroupsMay(t *testing.T) {
	// Groups of every Debian, whose members are nobody's business here.
	groups := Groups{Read: "games", Admin: "man"}
	a, err := newAccess(groups)
	if err != nil {
		t.Fatal(err)
	}
	read, admin := uint32(a.read), uint32(a.admin)
	const everything = "status: ok\nkeys: ok\nstandby: ok\napply: ok\nadd: ok\nrestart: ok\n"
	order := func(what string) string {
		return what + ": only root and members of group man (admin_group) may give orders; this is nobody\n"
	}
	look := func(what string) string {
		return what + ": only root and members of group man (admin_group) and members of group games (socket_group) may look here; this is nobody (a group counts from the next login on)\n"
	}
	orders := order("standby") + order("apply") + order("add") + order("restart")
	for _, c := range []struct {
		who  string
		cred syscall.Credential
		want string
	}{
		{"a member of the admin group", syscall.Credential{Uid: nobody, Gid: admin}, everything},
		{"a member by a supplementary group", syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{7, admin, 9}}, everything},
		{"a reader", syscall.Credential{Uid: nobody, Gid: read}, "status: ok\nkeys: ok\n" + orders},
		{"a reader by a supplementary group", syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{read}}, "status: ok\nkeys: ok\n" + orders},
		{"a stranger", syscall.Credential{Uid: nobody, Gid: nobody}, look("status") + look("keys") + orders},
		{"a stranger in group 0", syscall.Credential{Uid: nobody, Gid: 0}, look("status") + look("keys") + orders},
	} {
		f := &fake{}
		_, socket := serve(t, f, groups)
		if got := runAs(t, socket, c.cred); got != c.want {
			t.Errorf("%s got:\n%s\nnot\n%s", c.who, got, c.want)
		}
		if heard := f.said(); (heard == "") == (c.want == everything) {
			t.Errorf("%s: the node heard %q", c.who, heard)
		}
	}
}

func TestWithOneGroupOthersDoNotEvenConnect(t *testing.T) {
	for _, g := range []Groups{{}, {Read: "games"}, {Admin: "man"}} {
		_, socket := serve(t, &fake{}, g)
		if got := runAs(t, socket, syscall.Credential{Uid: nobody, Gid: nobody}); strings.Count(got, "permission denied") != 6 || !strings.Contains(got, "admin_group") {
			t.Errorf("%+v: a stranger got:\n%s", g, got)
		}
	}
}

func TestAReaderOfTheOnlyGroupReads(t *testing.T) {
	g := Groups{Read: "games"}
	a, err := newAccess(g)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{}
	_, socket := serve(t, f, g)
	got := runAs(t, socket, syscall.Credential{Uid: nobody, Gid: uint32(a.read)})
	if !strings.HasPrefix(got, "status: ok\nkeys: ok\nstandby: only root may give orders; this is nobody; admin_group: in ha.yaml") || f.said() != "" {
		t.Errorf("a reader got:\n%s\nand the node heard %q", got, f.said())
	}
}

// Whatever the path and the method: without the right the node hears nothing.
func TestEveryRequestIsJudgedBeforeItIsUnderstood(t *testing.T) {
	reader := peer{1000, []int{20}}
	a := access{self: 500, read: 20, admin: 30}
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "CONNECT", "TRACE", "OPTIONS", "post", "GETT"} {
		for _, path := range []string{"/v1/standby", "/v1/apply", "/v1/keys/add", "/v1/status", "//v1/standby", "/nowhere", "/"} {
			f := &fake{}
			if w := requestTo(f, a, reader, method, path, `{"which":"all"}`); w.Code != http.StatusForbidden || f.said() != "" {
				t.Errorf("%s %s: %d, the node heard %q", method, path, w.Code, f.said())
			}
		}
	}
	for _, path := range []string{"/v1/standby", "/v1/keys/add", "/v1/restart"} {
		f := &fake{}
		if w := requestTo(f, a, reader, "GET", path, ""); w.Code != http.StatusNotFound || f.said() != "" {
			t.Errorf("GET %s: %d, the node heard %q", path, w.Code, f.said())
		}
		if w := requestTo(f, a, peer{1000, []int{40}}, "GET", path, ""); w.Code != http.StatusForbidden {
			t.Errorf("GET %s of a stranger: %d", path, w.Code)
		}
	}
}

func TestANodeIsToldWhoGaveTheOrder(t *testing.T) {
	f := &fake{}
	request(f, "POST", "/v1/standby", `{"which":"all","force":true}`)
	request(f, "POST", "/v1/apply", `{"dry":true}`)
	want := []cluster.Order{{By: "root", Force: true}, {By: "root", Dry: true}}
	if fmt.Sprint(f.orders) != fmt.Sprint(want) {
		t.Errorf("the orders were %+v, not %+v", f.orders, want)
	}
}

func TestARefusalThatForceWouldOvercomeSaysSo(t *testing.T) {
	f := &fake{err: &cluster.ForceError{Cost: "group web would stop", Command: "keepbeat standby --force"}}
	c, _ := serve(t, f, Groups{})
	var refused *RefusedError
	_, err := c.Standby(t.Context(), Move{Which: "all"})
	if !errors.As(err, &refused) || !refused.Force || refused.Reason != "group web would stop; `keepbeat standby --force` does it all the same" {
		t.Errorf("%+v", err)
	}
	f.err = nil
	if r, err := c.Standby(t.Context(), Move{Which: "all", Dry: true}); err != nil || r.StopCost != "the quorum would be lost" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestAKeyIsNowhereInAnAnswer(t *testing.T) {
	const key = "correct-horse-battery"
	for _, body := range []string{
		`{"index":2,"key":"` + key + `"}`, `{"index":2,"keys":"` + key + `"}`, `{"index":"` + key + `"}`, `"` + key + `"`, key,
		`{"index":2,"` + key + `":1}`, `{"index":2,"key":"` + key + `"} ` + key, `{"key":["` + key + `"]}`,
	} {
		for _, path := range []string{"/v1/keys/add", "/v1/keys/use", "/v1/keys/remove"} {
			if w := request(&fake{}, "POST", path, body); strings.Contains(w.Body.String(), "horse") {
				t.Errorf("%s %s: %s", path, body, w.Body)
			}
		}
	}
	if s := fmt.Sprintf("%v %+v %#v %s %q %x", Key{Key: key}, Key{Key: key}, Key{Key: key}, KeyText(key), KeyText(key), KeyText(key)); strings.Contains(s, "horse") || strings.Contains(s, "636f") {
		t.Error(s)
	}
}

// dial opens a connection and closes it with the test.
func dial(t *testing.T, socket string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestAUserHasSoManyConnectionsAndNoMore(t *testing.T) {
	c, socket := serve(t, &fake{}, Groups{})
	var idle []net.Conn
	for range maxOfRoot { // root's are many, but bounded
		x := dial(t, socket)
		idle = append(idle, x)
		// At once: who asks nothing for 5 s is closed, and all of them may take longer.
		if _, err := io.WriteString(x, "GET /v1/local HTTP/1.1\r\nHost: k\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(x).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Local(t.Context()); err == nil {
		t.Error("one more was let in")
	}
	for _, x := range idle[:10] {
		x.Close()
	}
	for end := time.Now().Add(10 * time.Second); ; {
		if _, err := c.Local(t.Context()); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatalf("those that were closed count still: %v", err)
		}
	}
}

func TestTheBoundsOnConnectionsAreEachClass(t *testing.T) {
	s := &Socket{access: access{self: 500, read: 20, admin: 30}, users: map[int]int{}, total: map[string]int{}}
	fill := func(p peer) (n int) {
		for ; n < 10_000; n++ {
			if _, ok := s.take(p); !ok {
				break
			}
		}
		return n
	}
	if n := fill(peer{1000, nil}); n != maxStrangers {
		t.Errorf("a stranger has %d", n)
	}
	if n := fill(peer{1001, nil}); n != 0 {
		t.Errorf("another stranger has %d", n)
	}
	total := 0
	for uid := 2000; uid < 2010; uid++ {
		n := fill(peer{uid, []int{20}})
		if total += n; n > maxOfUser {
			t.Errorf("a reader has %d", n)
		}
	}
	if total != maxOfGroups {
		t.Errorf("all readers have %d", total)
	}
	if n := fill(peer{0, nil}); n != maxOfRoot {
		t.Errorf("root has %d", n)
	}
	s.give(peer{1000, nil}, "stranger")
	if n := fill(peer{1001, nil}); n != 1 {
		t.Errorf("after one has gone, %d come in", n)
	}
}

// awaitHangUp waits until the other side has closed a connection, and reads nothing.
func awaitHangUp(t *testing.T, x net.Conn) {
	t.Helper()
	raw, err := x.(*net.UnixConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	err = raw.Control(func(fd uintptr) {
		for end := time.Now().Add(time.Minute); n <= 0 && time.Now().Before(end); { // again after EINTR
			n, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}, 1000)
		}
	})
	if err != nil || n <= 0 {
		t.Fatalf("the connection is open still, with nothing read (%v)", err)
	}
}

// Connections that take their time end by themselves, although nothing more is sent or read.
func TestWhoDawdlesIsLetGo(t *testing.T) {
	const dawdle = 300 * time.Millisecond
	f := &fake{patience: dawdle, status: cluster.Status{Waiting: strings.Repeat("x", 32<<20)}}
	c, socket := serve(t, f, Groups{})
	for name, request := range map[string]string{
		"a body that never comes":        "POST /v1/standby HTTP/1.1\r\nHost: k\r\nContent-Length: 100\r\n\r\n{",
		"a body of a request for status": "GET /v1/local HTTP/1.1\r\nHost: k\r\nContent-Length: 100000000\r\n\r\n",
		"chunks without end":             "POST /v1/apply HTTP/1.1\r\nHost: k\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
		"a body for restart":             "POST /v1/restart HTTP/1.1\r\nHost: k\r\nContent-Length: 100\r\n\r\n{",
		"an answer that nobody reads":    "GET /v1/status HTTP/1.1\r\nHost: k\r\nConnection: close\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			x := dial(t, socket)
			if _, err := io.WriteString(x, request); err != nil {
				t.Fatal(err)
			}
			if name == "an answer that nobody reads" {
				awaitHangUp(t, x) // that is what is tried: nothing is read meanwhile
			}
			_ = x.SetReadDeadline(time.Now().Add(time.Minute))
			n, err := io.Copy(io.Discard, x)
			var late net.Error
			if errors.As(err, &late) && late.Timeout() {
				t.Errorf("the connection is open still, after %d bytes", n)
			}
			if n > 16<<20 {
				t.Errorf("%d bytes were sent to somebody who did not read", n)
			}
		})
	}
	if _, err := c.Local(t.Context()); err != nil {
		t.Error(err)
	}
}
