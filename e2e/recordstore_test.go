package e2e

import (
	"context"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse/client"
	"github.com/terselink/terse/e2e/proc"
	"github.com/terselink/terse/internal/bucket"
	"github.com/terselink/terse/internal/bucket/buckettest"
)

// recordIn returns the environment of a server that keeps its record in a bucket.
func recordIn(t *testing.T, o bucket.Options) []string {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(o.SecretAccessKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return append([]string{
		"TERSE_RECORD_STORE=s3", "TERSE_RECORD_S3_BUCKET=" + o.Bucket, "TERSE_RECORD_S3_PREFIX=" + o.Prefix, "TERSE_RECORD_S3_ENDPOINT=" + o.Endpoint, "TERSE_RECORD_S3_PATH_STYLE=true",
		"TERSE_RECORD_S3_ACCESS_KEY_ID=" + o.AccessKeyID, "TERSE_RECORD_S3_SECRET_ACCESS_KEY_FILE=" + secret,
	}, quick...)
}

// TestRecordStore: a server that lost its spool, its record and its analytics answers as before from the bucket; the files
// are those of docs/athena.md; the doctor and the metrics say when the bucket is away.
func TestRecordStore(t *testing.T) {
	place := buckettest.New(t)
	place.Prefix = "terse/e2e"
	b := buckettest.Open(t, place)
	env := recordIn(t, place)
	data := filepath.Join(t.TempDir(), "data")
	run := func(env []string, args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, bin, args...)
		cmd.Env = append(proc.Environ(), env...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	const clicks = 4000
	if out, err := run(nil, "seed", "--data", data, "--links", "100", "--clicks", "4000", "--days", "3", "--conversions", "0"); err != nil {
		t.Fatalf("seed: %v\n%s", err, out)
	}
	everything := client.Query{Period: "30d", By: "country", All: true, Bots: "include", Limit: 500}
	ask := func(s *proc.Server) (*client.Breakdown, error) {
		return newClient(t, s).Breakdown(t.Context(), everything)
	}
	s := start(t, proc.Options{Data: data, Env: env})
	metric := func(name string) string {
		a, err := newAPI(t, s).do(t.Context(), "GET", "/metrics", nil)
		if err != nil {
			return ""
		}
		m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(a.body)
		if m == nil {
			return ""
		}
		return string(m[1])
	}
	var want *client.Breakdown
	until(t, 3*time.Minute, "every click is counted", func() bool {
		var err error
		want, err = ask(s)
		return err == nil && want.Total == clicks
	})
	// Clicks of the last hours of a day move later than the others: just after midnight they are in the spool alone.
	closed := func() bool {
		for day := 1; day <= 2; day++ {
			dt := time.Now().UTC().AddDate(0, 0, -day-1).Format(time.DateOnly)
			if !slices.ContainsFunc(buckettest.Names(t, b), func(n string) bool { return strings.HasPrefix(n, "clicks/dt="+dt+"/hour=24/") }) {
				return false
			}
		}
		return metric("terse_record_store_pending_files") == "0" && metric("terse_record_store_equal_timestamp_seconds") != "0"
	}
	until(t, 5*time.Minute, "closed days are in the bucket", closed)
	if out, err := run(env, "doctor", "--data", data); err != nil || !strings.Contains(out, "bucket of the record") {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	lose := []string{"record", "analytics"}
	if time.Now().UTC().Hour() >= 3 {
		lose = append(lose, "spool")
	}
	for _, folder := range lose {
		if err := os.RemoveAll(filepath.Join(data, folder)); err != nil {
			t.Fatal(err)
		}
	}

	away := recordIn(t, bucket.Options{Bucket: place.Bucket, Prefix: place.Prefix, Endpoint: "http://127.0.0.1:1", AccessKeyID: place.AccessKeyID, SecretAccessKey: place.SecretAccessKey})
	if out, err := run(away, "doctor", "--data", data); err == nil || !strings.Contains(out, "does not answer") || strings.Contains(out, place.SecretAccessKey) {
		t.Errorf("doctor, with a bucket that does not answer: %v\n%s", err, out)
	}
	if out, err := run([]string{"TERSE_RECORD_STORE=s3"}, "serve", "--data", data); err == nil || !strings.Contains(out, "record.s3.bucket") {
		t.Errorf("a record in S3 without a bucket: %v\n%s", err, out)
	}

	s = start(t, proc.Options{Data: data, Env: env})
	until(t, 5*time.Minute, "the numbers are those of before", func() bool {
		got, err := ask(s)
		return err == nil && got.Total == want.Total && slices.Equal(got.Data, want.Data)
	})
	// Without the bucket the server goes on with what it has.
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	s = start(t, proc.Options{Data: data, Env: recordIn(t, mustAway(place))})
	until(t, 3*time.Minute, "the metrics say that the bucket is away", func() bool {
		f := metric("terse_record_store_failures")
		return f != "" && f != "0"
	})
	if got, err := ask(s); err != nil || got.Total != want.Total {
		t.Errorf("without the bucket: %+v, %v", got, err)
	}
}

// mustAway returns the same place at an address where nobody listens.
func mustAway(o bucket.Options) bucket.Options {
	u, _ := url.Parse(o.Endpoint)
	u.Host = "127.0.0.1:1"
	o.Endpoint = u.String()
	return o
}
