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

// TestErrorsKeepDelimiter: the bad rows of a job over a file that is rewritten for the server are those of the file.
func TestErrorsKeepDelimiter(t *testing.T) {
	t.Parallel()
	const file = "url;note;other\nhttps://a.test;\"x;y\";1\n\nBAD;\"say \"\"a,b\"\"\nz\";2\nhttps://b.test;;3\nBAD,2;q;4"
	const want = "terse_error;url;note;other\n" +
		"\"row 1, line 4: invalid_destination: destination: no \"\"scheme\"\"\";BAD;\"say \"\"a,b\"\"\nz\";2\n" +
		"\"row 3, line 7: invalid_destination: destination: no scheme\";BAD,2;q;4\n"
	const sentBad = "terse_error,destination,title\n" +
		"\"row 1, line 3: invalid_destination: destination: no \"\"scheme\"\"\",BAD,\"say \"\"a,b\"\"\nz\"\n" +
		"\"row 3: invalid_destination: destination: no scheme\",\"BAD,2\",q\n"
	var sent bytes.Buffer
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v1/uploads", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"id":"upl_1","offset":0}`) })
	mux.HandleFunc("PATCH /api/v1/uploads/upl_1", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(&sent, r.Body)
		io.WriteString(w, `{"id":"upl_1"}`)
	})
	mux.HandleFunc("POST /api/v1/jobs", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"id":"job_1"}`) })
	mux.HandleFunc("GET /api/v1/jobs/job_1/events", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "data: {\"id\":\"job_1\",\"state\":\"done\",\"done\":4,\"created\":2,\"failed\":2}\n\n")
	})
	mux.HandleFunc("GET /api/v1/jobs/job_1/result", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "index,short_url\n") })
	mux.HandleFunc("GET /api/v1/jobs/job_1/errors", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, sentBad) })
	server := httptest.NewServer(mux)
	defer server.Close()
	dir := t.TempDir()
	in, bad := filepath.Join(dir, "rows.csv"), filepath.Join(dir, "bad.csv")
	if err := os.WriteFile(in, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	o := Options{Args: []string{"--server", server.URL, "--key", "k", "bulk", in, "--job", "-q", "--delimiter", ";", "--map", "destination=url", "--map", "title=note", "--ignore-extra", "--errors", bad, "-o", filepath.Join(dir, "out.csv")},
		Stdout: &out, Stderr: &out, Now: time.Now}
	if code := Main(t.Context(), o); code != ExitRows {
		t.Fatalf("exit code %d: %s", code, out.String())
	}
	if got := sent.String(); got != "destination,title\nhttps://a.test,x;y\nBAD,\"say \"\"a,b\"\"\nz\"\nhttps://b.test,\n\"BAD,2\",q\n" {
		t.Errorf("sent %q", got)
	}
	if got, err := os.ReadFile(bad); err != nil || string(got) != want {
		t.Errorf("bad rows:\n%s\nwant:\n%s\n%v", got, want, err)
	}
}
