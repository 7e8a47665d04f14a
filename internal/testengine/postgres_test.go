package testengine

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// diesVariable makes TestPostgresOutlivesNoTest the test that dies.
const diesVariable = "TERSE_TEST_DIES"

// TestPostgresOutlivesNoTest kills a test that has a server: the server and its folder go.
func TestPostgresOutlivesNoTest(t *testing.T) {
	if os.Getenv(diesVariable) != "" {
		s := NewPostgres(t)
		fmt.Printf("\nserver %s %s\n", s.port, s.dir)
		select {}
	}
	Address(t, Postgres)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestPostgresOutlivesNoTest$", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), diesVariable+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	var port, dir string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if n, _ := fmt.Sscanf(lines.Text(), "server %s %s", &port, &dir); n == 2 {
			break
		}
	}
	if answers := takes(port); dir == "" || !answers {
		t.Fatalf("the server of the test that dies, port %s in %q, takes connections: %t", port, dir, answers)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		_, err := os.Stat(dir)
		answers := takes(port)
		if !answers && errors.Is(err, fs.ErrNotExist) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the test is dead; its server takes connections: %t; its folder: %v", answers, err)
		}
	}
}

// takes reports whether a server takes connections.
func takes(port string) bool {
	conn, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// TestPostgresKilled ends a server that does not do what it is told.
func TestPostgresKilled(t *testing.T) {
	s := NewPostgres(t)
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	if state := s.cmd.ProcessState; state == nil || state.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("it ended by %v", state)
	}
	if err := s.start(); err != nil {
		t.Errorf("start again: %v", err)
	}
}
