package tell

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

func TestWhatIsRunHasKeepalivedsArgumentsAndOrder(t *testing.T) {
	n := &conf.VRRPNotify{
		Master: []string{"/m", "x"}, Backup: []string{"/b"}, Fault: []string{"/f"}, Stop: []string{"/s"}, Notify: []string{"/n", "y"},
	}
	for _, c := range []struct {
		n    *conf.VRRPNotify
		c    Change
		want string
		mail string
	}{
		{n, Change{false, "VI_1", "MASTER", 101}, "[[/m x] [/n y INSTANCE VI_1 MASTER 101]]", "VRRP Instance VI_1 - Entering MASTER state"},
		{n, Change{false, "VI_1", "BACKUP", 99}, "[[/b] [/n y INSTANCE VI_1 BACKUP 99]]", "VRRP Instance VI_1 - Entering BACKUP state"},
		{n, Change{true, "G", "FAULT", 0}, "[[/f] [/n y GROUP G FAULT 0]]", "VRRP Group G - Entering FAULT state"},
		{n, Change{false, "VI_1", "STOP", 99}, "[[/s] [/n y INSTANCE VI_1 STOP 99]]", "VRRP Instance VI_1 - stopped"},
		{&conf.VRRPNotify{Master: []string{"/m"}}, Change{false, "VI_1", "BACKUP", 1}, "[]", "VRRP Instance VI_1 - Entering BACKUP state"},
	} {
		if got := fmt.Sprint(commands(c.n, c.c)); got != c.want || c.c.String() != c.mail {
			t.Errorf("%v: %s, want %s", c.c, got, c.want)
		}
	}
	if len(n.Notify) != 2 {
		t.Error("the configuration was changed")
	}
}

func TestOneProgramAtATimeRunsForEachInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var log []string
		say := func(s string) {
			mu.Lock()
			log = append(log, s)
			mu.Unlock()
		}
		var mails []string
		teller := New(Config{Mail: func(l string) { mails = append(mails, l) }, Logger: slog.New(slog.DiscardHandler),
			Run: func(ctx context.Context, user string, command []string) error {
				say("begin " + user + strings.Join(command, " "))
				select {
				case <-ctx.Done():
					say("killed " + command[0])
					return ctx.Err()
				case <-time.After(3 * time.Second):
				}
				say("end " + command[0])
				return errors.New("exit status 1")
			}})
		n := &conf.VRRPNotify{Master: []string{"/m"}, Backup: []string{"/b"}, User: "u ", Mail: true}
		teller.Tell(n, Change{Name: "A", State: "MASTER"})
		time.Sleep(time.Second)
		teller.Tell(n, Change{Name: "A", State: "BACKUP"})
		teller.Tell(&conf.VRRPNotify{Master: []string{"/other"}}, Change{Name: "B", State: "MASTER"})
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := strings.Join(log, ", "); got != "begin u /m, begin /other, end /m, begin u /b, end /other, end /b" &&
			got != "begin u /m, begin /other, end /m, end /other, begin u /b, end /b" {
			t.Errorf("run: %s", got)
		}
		if got := strings.Join(mails, ", "); got != "VRRP Instance A - Entering MASTER state, VRRP Instance A - Entering BACKUP state" {
			t.Errorf("mails: %s", got)
		}
		log = nil
		for range 10 {
			teller.Tell(n, Change{Name: "A", State: "MASTER"})
		}
		begin := time.Now()
		teller.Close()
		if took := time.Since(begin); took > lastTime {
			t.Errorf("the end took %v", took)
		}
		if got := strings.Join(log, ", "); got != "begin u /m, end /m, begin u /m, killed /m, begin u /m, end /m" {
			t.Errorf("at the end: %s", got)
		}
		teller.Tell(n, Change{Name: "A", State: "MASTER"})
	})
}

func TestAProgramThatHangsDoesNotKeepNotifyStopFromRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		teller := New(Config{Logger: slog.New(slog.DiscardHandler), Run: func(ctx context.Context, _ string, command []string) error {
			log = append(log, command[0])
			if command[0] == "/hangs" {
				<-ctx.Done()
				return ctx.Err()
			}
			time.Sleep(3 * time.Second)
			return nil
		}})
		n := &conf.VRRPNotify{Master: []string{"/hangs"}, Stop: []string{"/stop"}}
		teller.Tell(n, Change{Name: "A", State: "MASTER"})
		time.Sleep(time.Second)
		teller.Tell(n, Change{Name: "A", State: "STOP"})
		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		if teller.Idle(soon) {
			t.Error("it is idle while a program hangs")
		}
		cancel()
		begin := time.Now()
		teller.Close()
		if !teller.Idle(t.Context()) {
			t.Error("it is not idle at the end")
		}
		if took := time.Since(begin); took > lastTime || strings.Join(log, " ") != "/hangs /stop" {
			t.Errorf("run %v in %v", log, took)
		}
	})
}

// Whoever repairs a program that hung does not wait an hour for what it missed.
func TestNotifyStopHasAllTheTimeThatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var took time.Duration
		teller := New(Config{Logger: slog.New(slog.DiscardHandler), Run: func(ctx context.Context, _ string, _ []string) error {
			begin := time.Now()
			<-ctx.Done()
			took = time.Since(begin)
			return ctx.Err()
		}})
		teller.Tell(&conf.VRRPNotify{Stop: []string{"/stop"}}, Change{Name: "A", State: "STOP"})
		teller.Close()
		if took != lastTime {
			t.Errorf("it was ended after %s", took)
		}
	})
}

func TestBehindAProgramThatHungOnlyTheLastChangeIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ran []string
		var journal strings.Builder
		teller := New(Config{Logger: slog.New(slog.NewTextHandler(&journal, nil)), Run: func(ctx context.Context, _ string, command []string) error {
			ran = append(ran, strings.Join(command, " "))
			if len(ran) == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}})
		defer teller.Close()
		n := &conf.VRRPNotify{Master: []string{"/m"}, Backup: []string{"/b"}, Notify: []string{"/n"}}
		for _, state := range []string{"MASTER", "BACKUP", "MASTER", "BACKUP"} {
			teller.Tell(n, Change{Name: "A", State: state})
			time.Sleep(time.Second)
		}
		time.Sleep(runTime)
		synctest.Wait()
		if got := strings.Join(ran, ", "); got != "/m, /b, /n INSTANCE A BACKUP 0" {
			t.Errorf("run: %s", got)
		}
		if got := journal.String(); strings.Count(got, "left out") != 2 || !strings.Contains(got, "left_out=5") {
			t.Errorf("said: %s", got)
		}
	})
}

func TestARouterThatFlapsDoesNotPileUpPrograms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ran atomic.Int64
		teller := New(Config{Mail: func(string) {}, Logger: slog.New(slog.DiscardHandler), Run: func(ctx context.Context, _ string, _ []string) error {
			ran.Add(1)
			time.Sleep(time.Second)
			return nil
		}})
		for range 1000 {
			teller.Tell(&conf.VRRPNotify{Master: []string{"/m"}}, Change{Name: "A", State: "MASTER"})
		}
		time.Sleep(time.Hour)
		if n := ran.Load(); n > most+1 {
			t.Errorf("%d ran", n)
		}
		teller.Close()
	})
}
