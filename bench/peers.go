//go:build linux

package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/terselink/terse/e2e/proc"
)

//go:embed wrk.lua
var wrkScript []byte

// wrk is the closed-loop generator: as many requests as the server takes.
type wrk struct{ path, script string }

// threads and connections of every load by wrk.
const (
	wrkThreads = 2
	wrkConns   = 64
)

// findWrk returns nil if wrk is not installed.
func (b *bench) findWrk() (*wrk, error) {
	path, err := exec.LookPath("wrk")
	if err != nil {
		return nil, nil
	}
	script := filepath.Join(b.dir, "wrk.lua")
	return &wrk{path: path, script: script}, os.WriteFile(script, wrkScript, 0o600)
}

// closed is the outcome of a load by wrk.
type closed struct {
	answers float64
	rate    float64 // answers a second
	broken  int     // connections that failed, cut and timed out requests
	status  int     // answers of 400 and above
}

// run loads addr with requests for the codes of a file on a host.
func (w *wrk) run(ctx context.Context, addr, codes, host string, d time.Duration) (closed, error) {
	cmd := exec.CommandContext(ctx, w.path, "-t", fmt.Sprint(wrkThreads), "-c", fmt.Sprint(wrkConns), "-d", fmt.Sprintf("%.0fs", d.Seconds()),
		"-s", w.script, "http://"+addr+"/", "--", codes, host, fmt.Sprint(wrkThreads))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return closed{}, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	_, result, ok := strings.Cut(string(out), "RESULT ")
	var requests, micros, connect, read, write, status, timeout int
	if _, err := fmt.Sscan(result, &requests, &micros, &connect, &read, &write, &status, &timeout); !ok || err != nil || micros == 0 {
		return closed{}, fmt.Errorf("wrk: cannot read the result: %w\n%s", err, out)
	}
	return closed{answers: float64(requests), rate: float64(requests) / (float64(micros) / 1e6), broken: connect + read + write + timeout, status: status}, nil
}

// nginx is the peer: the least that a redirect can cost, with every request in an access log.
type nginx struct {
	cmd  *exec.Cmd
	addr string
	done chan error
}

const nginxConfig = `daemon off;
%s
worker_processes 2;
pid %[2]s/nginx.pid;
error_log %[2]s/error.log;
events { worker_connections 4096; }
http {
  access_log %[2]s/access.log combined buffer=64k flush=1s;
  client_body_temp_path %[2]s/body; proxy_temp_path %[2]s/proxy; fastcgi_temp_path %[2]s/fastcgi;
  uwsgi_temp_path %[2]s/uwsgi; scgi_temp_path %[2]s/scgi;
  keepalive_requests 1000000000;
  keepalive_timeout 60s;
  server { listen %[3]s; location / { return 302 %[4]s; } }
}
`

// findNginx returns "" if nginx is not installed.
func findNginx() string {
	for _, name := range []string{"nginx", "/usr/sbin/nginx"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// startNginx starts an nginx of our own, of which nothing lies outside the run's folder.
func (b *bench) startNginx(path string) (*nginx, error) {
	dir := filepath.Join(b.dir, "nginx")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	addr, err := proc.FreeAddr()
	if err != nil {
		return nil, err
	}
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // its workers would otherwise not get into the folder
	}
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, nginxConfig, user, dir, addr, nginxDestination()), 0o600); err != nil {
		return nil, err
	}
	n := &nginx{addr: addr, done: make(chan error, 1)}
	n.cmd = exec.Command(path, "-c", conf, "-p", dir)
	n.cmd.Stderr = os.Stderr
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := n.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start nginx: %w", err)
	}
	go func() { n.done <- n.cmd.Wait() }()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	for range 6000 { // a minute
		select {
		case err := <-n.done:
			return nil, fmt.Errorf("nginx ended: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
		if resp, err := client.Get("http://" + addr + "/"); err == nil {
			_ = resp.Body.Close() // the status is all that is asked for
			if resp.StatusCode == http.StatusFound {
				return n, nil
			}
		}
	}
	return nil, errors.Join(errors.New("nginx does not answer"), n.stop())
}

// nginxDestination is as long as those of the links.
func nginxDestination() string { return string(appendDestination(nil, 0, longDestination)) }

// stop ends nginx, master and workers.
func (n *nginx) stop() error {
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop nginx: %w", err)
	}
	if err := <-n.done; err != nil {
		return fmt.Errorf("stop nginx: %w", err)
	}
	return nil
}
