package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse/client"
	"github.com/terselink/terse/e2e/proc"
)

// bin is the program under test.
var bin string

// buildDir is where programs are built; it is removed in the end.
var buildDir string

// buildKillable builds the program that kills itself at named places (package failpoint), for all tests once.
var buildKillable = sync.OnceValues(func() (string, error) {
	return proc.Build(context.Background(), buildDir, "failpoints")
})

func TestMain(m *testing.M) {
	if url := os.Getenv(leaseChildEnv); url != "" {
		os.Exit(leaseMain(url))
	}
	if url := os.Getenv(fenceChildEnv); url != "" {
		os.Exit(fenceMain(url))
	}
	var err error
	if buildDir, err = os.MkdirTemp("", "terse-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := 1
	if bin, err = proc.Build(context.Background(), buildDir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	if err := os.RemoveAll(buildDir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// waits lets a test that waits most of the time run beside the others that do; scripts/test says how many. Such a
// test has its folders, ports and databases to itself, stops no engine that others use, and holds no time against a bound that a
// busy machine may exceed.
func waits(t *testing.T) { t.Parallel() }

// start starts a server on the data folder, "" for a new one, and stops it with the test.
func start(t *testing.T, o proc.Options) *proc.Server {
	t.Helper()
	if o.Bin == "" {
		o.Bin = bin
	}
	if o.Data == "" {
		o.Data = filepath.Join(t.TempDir(), "data")
	}
	s, err := proc.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-s.Done():
		default:
			if err := s.Stop(); err != nil {
				t.Errorf("stop: %v", err)
			}
		}
		if t.Failed() {
			t.Logf("the end of the server's log:\n%s", s.Log())
		}
	})
	return s
}

// quick makes a server stop without the pause that a load balancer needs.
var quick = []string{"TERSE_REDIRECT_DRAIN_WAIT=0s"}

func newClient(t *testing.T, s *proc.Server) *client.Client {
	t.Helper()
	c, err := client.New(client.Options{Server: s.URL(""), Key: proc.Key})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// answer is what the control plane said.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// problem is the body of an error.
type problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail"`
	Code      string `json:"code"`
	RequestID string `json:"request_id"`
	Errors    []struct {
		Location string `json:"location"`
		Message  string `json:"message"`
	} `json:"errors"`
}

// api sends requests as they are, also wrong ones.
type api struct {
	s    *proc.Server
	http *http.Client
}

func newAPI(t *testing.T, s *proc.Server) *api {
	tr := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &api{s: s, http: &http.Client{Transport: tr, Timeout: 2 * time.Minute}}
}

// do sends a request with the owner key; header pairs override or, with an empty value, remove what it sets.
func (a *api) do(ctx context.Context, method, path string, body io.Reader, header ...string) (*answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.s.URL(path), body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+proc.Key)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i+1] == "" {
			req.Header.Del(header[i])
		} else {
			req.Header.Set(header[i], header[i+1])
		}
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return &answer{status: resp.StatusCode, header: resp.Header, body: b}, nil
}

// json sends a value and decodes the answer into out if the status is below 300.
func (a *api) json(ctx context.Context, method, path string, in, out any, header ...string) (*answer, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in, json.Deterministic(true)) // a repetition has the same bytes
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	got, err := a.do(ctx, method, path, body, header...)
	if err == nil && got.status < 300 && out != nil {
		err = json.Unmarshal(got.body, out)
	}
	return got, err
}

// until calls f every 50 ms until it returns true, and fails the test after d.
func until(t *testing.T, d time.Duration, what string, f func() bool) {
	t.Helper()
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within %v: %s", d, what)
		}
	}
}
