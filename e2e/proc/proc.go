// Package proc runs the real terse program as a child process, for black-box tests
// and benchmarks: build it, start a server on a data folder and wait until it is ready,
// read its memory, stop it in order or kill it.
//
// It signals only the processes that it started. A child does not outlive the process
// that started it.
package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Key is the owner key of every server that this package starts.
const Key = "terse-e2e-owner-key-0123456789abcdefghij"

// readyWithin bounds the wait for a server to become ready.
const readyWithin = 3 * time.Minute

// Build compiles the program, with build tags if there are any, into dir and returns its
// path. TERSE_BIN, if set, names a program to use instead of the one without tags.
func Build(ctx context.Context, dir string, tags ...string) (string, error) {
	if bin := os.Getenv("TERSE_BIN"); bin != "" && len(tags) == 0 {
		return filepath.Abs(bin)
	}
	bin := filepath.Join(dir, strings.Join(append([]string{"terse"}, tags...), "-"))
	out, err := exec.CommandContext(ctx, "go", "build", "-tags", strings.Join(tags, ","), "-o", bin, "github.com/terselink/terse/cmd/terse").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build terse: %w\n%s", err, out)
	}
	return bin, nil
}

// handedOut are the ports that FreePort has returned: a server that is down for a moment still has its port.
var handedOut sync.Map

// FreeAddr returns a loopback address that nobody listens on, see FreePort.
func FreeAddr() (string, error) {
	port, err := FreePort("127.0.0.1")
	return "127.0.0.1:" + port, err
}

// FreePort returns a port that nobody listens on at any of some loopback hosts, each once in a process. It lies below the range
// that the kernel takes for outgoing connections, so that a server can come back on it
// while clients keep connecting.
func FreePort(hosts ...string) (string, error) {
	for range 1000 {
		n := 20_000 + rand.IntN(12_000)
		if _, taken := handedOut.LoadOrStore(n, nil); taken {
			continue
		}
		port := strconv.Itoa(n)
		if !slices.ContainsFunc(hosts, func(host string) bool { return listens(net.JoinHostPort(host, port)) }) {
			return port, nil
		}
	}
	return "", errors.New("no free port between 20000 and 32000")
}

// listens reports whether an address is taken.
func listens(addr string) bool {
	ln, err := net.Listen("tcp", addr)
	return err != nil || ln.Close() != nil
}

// EndWithin bounds the wait for a server that ends by itself, on a busy machine.
const EndWithin = 3 * time.Minute

// beginsWithin bounds the wait for the first sign of a server.
const beginsWithin = 30 * time.Second

// Options say what to start.
type Options struct {
	Bin  string
	Data string   // data folder
	Args []string // further flags of "terse serve"
	Env  []string // further variables
	Wrap []string // a program with its arguments that runs the server, such as strace

	// Addresses of the two planes. Empty: free ports.
	RedirectAddr, ControlAddr string

	// NoWait returns as soon as the process runs.
	NoWait bool
}

// Server is a running server.
type Server struct {
	Data         string
	RedirectAddr string
	ControlAddr  string
	Host         string        // of the default domain: "localhost:20123"
	Ready        time.Duration // from the start of the process until both planes were ready

	cmd  *exec.Cmd
	logs *tail
	done chan struct{} // closed when the process has ended
}

// Start starts a server and returns when it is ready. If it ends before that, the error
// holds the end of its log; errors.AsType[*exec.ExitError] finds the exit code.
func Start(ctx context.Context, o Options) (*Server, error) {
	for _, addr := range []*string{&o.RedirectAddr, &o.ControlAddr} {
		if *addr == "" {
			var err error
			if *addr, err = FreeAddr(); err != nil {
				return nil, err
			}
		}
	}
	_, port, err := net.SplitHostPort(o.RedirectAddr)
	if err != nil {
		return nil, fmt.Errorf("start terse: %w", err)
	}
	s := &Server{
		Data: o.Data, RedirectAddr: o.RedirectAddr, ControlAddr: o.ControlAddr, Host: "localhost:" + port,
		logs: &tail{}, done: make(chan struct{}),
	}
	args := append(append([]string{}, o.Wrap...), o.Bin, "serve", "--data", o.Data)
	args = append(args, o.Args...)
	s.cmd = exec.Command(args[0], args[1:]...)
	s.cmd.Env = append(Environ(), "TERSE_BOOTSTRAP_KEY="+Key, "TERSE_REDIRECT_ADDR="+o.RedirectAddr, "TERSE_CONTROL_ADDR="+o.ControlAddr)
	s.cmd.Env = append(s.cmd.Env, "TERSE_SHUTDOWN_TIMEOUT=2m") // a busy machine is no disorderly end
	s.cmd.Env = append(s.cmd.Env, o.Env...)
	s.cmd.Stdout, s.cmd.Stderr = s.logs, s.logs
	s.cmd.SysProcAttr = sysProcAttr()
	// A grandchild that outlives a killed server holds the pipe of the log open.
	s.cmd.WaitDelay = 2 * time.Second
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start terse: %w", err)
	}
	go func() {
		_ = s.cmd.Wait() // the outcome is in ProcessState
		close(s.done)
	}()
	if o.NoWait {
		return s, nil
	}
	if err := s.waitReady(ctx); err != nil {
		_ = s.Kill() // it is not ready: nothing is lost
		return nil, fmt.Errorf("start terse: %w\n%s", err, s.Log())
	}
	s.Ready = time.Since(began)
	return s, nil
}

// Environ returns the environment of this process without the variables of Terse.
func Environ() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "TERSE_") {
			env = append(env, kv)
		}
	}
	return env
}

func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	urls := []string{"http://" + s.RedirectAddr + "/readyz", "http://" + s.ControlAddr + "/readyz"}
	for len(urls) > 0 {
		select {
		case <-s.done:
			return fmt.Errorf("the server ended: %w", &exec.ExitError{ProcessState: s.cmd.ProcessState})
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", ctx.Err())
		case <-tick.C:
		}
		resp, err := client.Get(urls[0])
		if err != nil {
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			urls = urls[1:]
		}
	}
	return nil
}

// PID is the id of the process.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Signal sends a signal to the server.
func (s *Server) Signal(sig os.Signal) error {
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal terse: %w", err)
	}
	return nil
}

// Kill ends the server by SIGKILL, waits for it and returns an error if it had ended
// before.
func (s *Server) Kill() error {
	select {
	case <-s.done:
		return fmt.Errorf("the server had ended before the kill: %s", s.cmd.ProcessState)
	default:
	}
	if err := s.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-s.done
	return nil
}

// begun waits until the server was ready, has logged a line or answers on a plane: until then it may not listen for signals, and
// SIGTERM would end it as SIGKILL does.
func (s *Server) begun() {
	for began := time.Now(); s.Ready == 0 && s.Log() == "" && !answers(s.RedirectAddr) && !answers(s.ControlAddr) && time.Since(began) < beginsWithin; {
		select {
		case <-s.done:
			return
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// answers reports whether somebody takes connections at an address.
func answers(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	return err == nil && c.Close() == nil
}

// Stop ends the server in order (SIGTERM) and waits. Returns an error if it does not
// exit with 0.
func (s *Server) Stop() error {
	s.begun()
	if err := s.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	code, err := s.Wait(EndWithin)
	if err == nil && code != 0 {
		err = fmt.Errorf("terse exited with %d\n%s", code, s.Log())
	}
	return err
}

// Wait returns the exit code when the server has ended, -1 if a signal ended it. After d it kills
// the server and returns an error.
func (s *Server) Wait(d time.Duration) (int, error) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-s.done:
		return s.cmd.ProcessState.ExitCode(), nil
	case <-t.C:
		return 0, errors.Join(fmt.Errorf("terse did not end within %v\n%s", d, s.Log()), s.Kill())
	}
}

// Done is closed when the server has ended.
func (s *Server) Done() <-chan struct{} { return s.done }

// Log returns the end of what the server printed.
func (s *Server) Log() string { return s.logs.String() }

// URL returns a URL of the control plane.
func (s *Server) URL(path string) string { return "http://" + s.ControlAddr + path }

// tail keeps the end of what is written.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailBytes = 32 << 10

var _ io.Writer = (*tail)(nil)

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*tailBytes {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-tailBytes:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.ToValidUTF8(t.buf, []byte("?")))
}
