package testengine

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// PostgresServer is a PostgreSQL of a test's own: a primary, or a streaming standby of one. Most tests share the server of
// Address instead, whose log other tests fill.
type PostgresServer struct {
	URL string // postgres://terse@127.0.0.1:port/postgres

	t     testing.TB
	dir   string
	port  string
	watch *postgresWatch
	cmd   *exec.Cmd
	done  chan struct{} // closed when the process has ended
	log   bytes.Buffer  // to be read after that
}

// postgresSettings keep a small server small. Nothing that a test writes has to outlive the machine.
var postgresSettings = []string{
	"listen_addresses=127.0.0.1", "unix_socket_directories=", "shared_buffers=16MB", "max_connections=60", "wal_level=replica",
	"max_wal_senders=4", "jit=off", "fsync=off", "wal_keep_size=64MB", "wal_retrieve_retry_interval=200ms",
}

// NewPostgres starts a primary and ends it with the test. Where Debian's PostgreSQL is not there the test is skipped; with CI=true that is
// a failure.
func NewPostgres(t testing.TB) *PostgresServer {
	t.Helper()
	Address(t, Postgres)
	s := newPostgres(t)
	s.run("initdb", "-D", s.dir, "-U", "terse", "--auth=trust", "--no-sync", "--no-instructions", "-E", "UTF8", "--locale=C.UTF-8")
	s.startSomewhere()
	return s
}

// NewStandby starts a standby that follows the primary at an address, which may be that of a proxy, and ends it with the test.
func (s *PostgresServer) NewStandby(t testing.TB, through string) *PostgresServer {
	t.Helper()
	standby := newPostgres(t)
	// The copy is made directly, and what is in its settings leads through the proxy.
	standby.run("pg_basebackup", "-D", standby.dir, "-d", s.URL, "-X", "stream", "-c", "fast", "--no-sync")
	if err := errors.Join(
		standby.write("standby.signal", ""),
		standby.write("postgresql.auto.conf", fmt.Sprintf("primary_conninfo = '%s'\n", through)),
	); err != nil {
		t.Fatal(err)
	}
	standby.startSomewhere()
	return standby
}

func newPostgres(t testing.TB) *PostgresServer {
	t.Helper()
	dir, err := os.MkdirTemp("", "terse-postgres-")
	if err != nil {
		t.Fatal(err)
	}
	watch, err := watchPostgres(dir)
	if err != nil {
		_ = os.RemoveAll(dir)
		t.Fatal(err)
	}
	s := &PostgresServer{t: t, dir: dir, watch: watch}
	t.Cleanup(func() {
		s.Kill()
		watch.end()
	})
	if c := s.credential(); c != nil {
		if err := os.Chown(dir, int(c.Uid), int(c.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// credential returns the user without rights whom the server is run as: it refuses to be root. nil: the user of the test.
func (s *PostgresServer) credential() *syscall.Credential {
	if os.Getuid() != 0 {
		return nil
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		s.t.Fatal(err)
	}
	uid, errUID := strconv.ParseUint(nobody.Uid, 10, 32)
	gid, errGID := strconv.ParseUint(nobody.Gid, 10, 32)
	if err := errors.Join(errUID, errGID); err != nil {
		s.t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// command returns a command of one of PostgreSQL's programs.
func (s *PostgresServer) command(program string, args ...string) *exec.Cmd {
	s.t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + program)
	if err != nil || len(found) == 0 {
		if os.Getenv("CI") == "true" {
			s.t.Fatalf("%s is not there", program)
		}
		s.t.Skipf("SKIPPED WITHOUT ITS ENGINE: %s is not there (Debian package postgresql-15)", program)
	}
	cmd := exec.Command(slices.Max(found), args...)
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.credential()}
	return cmd
}

func (s *PostgresServer) run(program string, args ...string) {
	s.t.Helper()
	if out, err := s.command(program, args...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

// write writes a file of the server, readable for it.
func (s *PostgresServer) write(name, text string) error {
	return os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644)
}

func (s *PostgresServer) startSomewhere() {
	s.t.Helper()
	for range 20 { // another process may take the port first
		s.port = strconv.Itoa(16_000 + rand.IntN(4_000)) // those below are of scripts/engines, those above of e2e/proc
		if s.start() == nil {
			u := url.URL{Scheme: "postgres", User: url.User("terse"), Host: "127.0.0.1:" + s.port, Path: "/postgres"}
			s.URL = u.String()
			return
		}
	}
	s.t.Fatalf("postgres does not start:\n%s", s.log.String())
}

func (s *PostgresServer) start() error {
	args := []string{"-D", s.dir, "-p", s.port}
	for _, setting := range postgresSettings {
		args = append(args, "-c", setting)
	}
	s.cmd = s.command("postgres", args...)
	s.log.Reset()
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.watch.runs(s.cmd.Process.Pid)
	ended, cmd := make(chan struct{}), s.cmd
	s.done = ended
	go func() { _ = cmd.Wait(); close(ended) }()
	deadline := time.After(2 * time.Minute)
	for {
		// The server itself says that it takes connections, and nobody else who may have had the port.
		if state, err := os.ReadFile(filepath.Join(s.dir, "postmaster.pid")); err == nil && bytes.Contains(state, []byte("\nready")) {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("postgres ended: %v", cmd.ProcessState)
		case <-deadline:
			s.Kill()
			return errors.New("postgres does not begin to answer")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Kill ends the server at once, if it runs.
func (s *PostgresServer) Kill() {
	if s.cmd == nil || s.cmd.Process == nil || s.done == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGQUIT) // an immediate shutdown, of its children too; it may have ended
	select {
	case <-s.done:
	case <-time.After(quitWithin):
		_ = s.cmd.Process.Kill() // its children see that it is gone, and end
		<-s.done
	}
	s.watch.runs(0)
}

// quitWithin is how long a server may take for an immediate shutdown. It kills its children after 5 s.
const quitWithin = 10 * time.Second

// Promote makes a standby a primary, and waits until it is one.
func (s *PostgresServer) Promote() {
	s.t.Helper()
	s.run("pg_ctl", "promote", "-D", s.dir, "-w")
}
