package cli

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestResumeLostJob: the answer to the creation of a job is lost, and --resume asks for the same job.
func TestResumeLostJob(t *testing.T) {
	t.Parallel()
	var keys []string
	offset := "0"
	mux := http.NewServeMux()
	upload := func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"id":"upl_1","offset":`+offset+`}`)
	}
	mux.HandleFunc("POST /api/v1/uploads", upload)
	mux.HandleFunc("GET /api/v1/uploads/upl_1", upload)
	mux.HandleFunc("PATCH /api/v1/uploads/upl_1", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		offset = "26"
		upload(w, r)
	})
	mux.HandleFunc("POST /api/v1/jobs", func(w http.ResponseWriter, r *http.Request) {
		if keys = append(keys, r.Header.Get("Idempotency-Key")); len(keys) == 1 {
			answerProblem(w, 500, "internal", "the answer is lost", "")
			return
		}
		io.WriteString(w, `{"id":"job_1"}`)
	})
	mux.HandleFunc("GET /api/v1/jobs/job_1/events", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "data: {\"id\":\"job_1\",\"state\":\"cancelled\"}\n\n")
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	file := filepath.Join(t.TempDir(), "rows.csv")
	if err := os.WriteFile(file, []byte("destination\nhttps://a.test"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(more ...string) string {
		var out bytes.Buffer
		o := Options{Args: append([]string{"--server", server.URL, "--key", "k", "bulk", file, "--job", "-q"}, more...), Stdout: &out, Stderr: &out, Now: time.Now}
		if code := Main(t.Context(), o); code != ExitFailed {
			t.Errorf("exit code %d: %s", code, out.String())
		}
		return out.String()
	}
	if out := run(); !strings.Contains(out, "--resume") {
		t.Errorf("says nothing of --resume: %s", out)
	}
	if out := run("--resume"); !strings.Contains(out, "the job is cancelled") {
		t.Errorf("the second time: %s", out)
	}
	if len(keys) != 2 || keys[0] != keys[1] || keys[0] == "" {
		t.Errorf("the job was asked for with the keys %q", keys)
	}
}
