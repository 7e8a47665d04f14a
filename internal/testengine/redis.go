package testengine

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// RedisServer is a Redis of a test's own, which may be stopped, filled and reconfigured. Most tests share the server of
// Address instead.
type RedisServer struct {
	URL string // redis://127.0.0.1:port/0

	t    testing.TB
	port string
	dir  string
	args []string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
}

// NewRedis starts a server with further arguments of redis-server, and ends it with the test. Where there is no
// redis-server the test is skipped; with CI=true that is a failure.
func NewRedis(t testing.TB, args ...string) *RedisServer {
	t.Helper()
	Address(t, Redis)
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("redis-server is not there")
		}
		t.Skip("SKIPPED WITHOUT ITS ENGINE: redis-server is not there (Debian package redis-server)")
	}
	s := &RedisServer{t: t, dir: t.TempDir(), args: args}
	t.Cleanup(s.Kill)
	for range 20 { // another process may take the port first
		s.port = strconv.Itoa(16_000 + rand.IntN(4_000)) // those below are of scripts/engines, those above of e2e/proc
		if s.start() == nil {
			s.URL = "redis://127.0.0.1:" + s.port + "/0"
			return s
		}
	}
	t.Fatal("redis-server does not start")
	return nil
}

func (s *RedisServer) start() error {
	args := append([]string{"--bind", "127.0.0.1", "--port", s.port, "--dir", s.dir, "--save", "", "--appendonly", "no", "--daemonize", "no"}, s.args...)
	s.cmd = exec.Command("redis-server", args...)
	if err := s.cmd.Start(); err != nil {
		return err
	}
	ended, cmd := make(chan struct{}), s.cmd
	s.done = ended
	go func() { _ = cmd.Wait(); close(ended) }()
	deadline := time.After(2 * time.Minute)
	for {
		if s.answers() {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("redis-server ended: %v", cmd.ProcessState)
		case <-deadline:
			_ = cmd.Process.Kill()
			<-ended
			return fmt.Errorf("redis-server does not listen")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// answers reports whether this server listens at its port, and not somebody else who had it first.
func (s *RedisServer) answers() bool {
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(context.Background(), "tcp", "127.0.0.1:"+s.port)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(conn, "INFO server\r\n"); err != nil {
		return false
	}
	var got []byte
	for b := make([]byte, 4096); ; {
		n, err := conn.Read(b)
		got = append(got, b[:n]...)
		if bytes.Contains(got, fmt.Appendf(nil, "\r\nprocess_id:%d\r\n", s.cmd.Process.Pid)) || bytes.HasPrefix(got, []byte("-NOAUTH")) {
			return true // with a password of the test's it says no more
		}
		if err != nil || bytes.Contains(got, []byte("uptime_in_seconds")) || len(got) > 1<<20 {
			return false
		}
	}
}

// Kill ends the server at once, if it runs.
func (s *RedisServer) Kill() {
	if s.cmd == nil || s.cmd.Process == nil || s.done == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.done
}

// Start starts the server again, empty, where it was.
func (s *RedisServer) Start() {
	s.t.Helper()
	for range 10 {
		if s.start() == nil {
			return
		}
	}
	s.t.Fatal("redis-server does not start again")
}

// Pause stops the process, so that connections stay and nothing answers.
func (s *RedisServer) Pause() { s.signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (s *RedisServer) Resume() { s.signal(syscall.SIGCONT) }

func (s *RedisServer) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// Do sends a command of words without spaces and returns the first line of the answer.
func (s *RedisServer) Do(words ...string) string {
	s.t.Helper()
	conn, err := (&net.Dialer{Timeout: time.Minute}).DialContext(context.Background(), "tcp", "127.0.0.1:"+s.port)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := fmt.Fprintf(conn, "%s\r\n", strings.Join(words, " ")); err != nil {
		s.t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := conn.Read(b)
	if err != nil {
		s.t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(b[:n]), "\r\n")
	return line
}
