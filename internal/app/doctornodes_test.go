package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/nodes"
)

// TestTryNode: what is said of a URL that does not lead to the node.
func TestTryNode(t *testing.T) {
	t.Parallel()
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/under/healthz" || r.URL.Query().Get("node") != "berlin-1" || r.Header.Get("Authorization") != "" {
				status = 599
			}
			w.Header().Set("Location", "https://elsewhere.example")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    string
		bad     bool
	}{
		"the node":        {answer(200, "ok this node\n"), "", false},
		"another node":    {answer(421, "another node\n"), "leads to another node", true},
		"an older node":   {answer(200, "ok\n"), "an older version, or still starting", false},
		"starting":        {answer(503, "not ready\n"), "not ready", true},
		"a redirect":      {answer(301, ""), "leads on to https://elsewhere.example", true},
		"something else":  {answer(200, "<html>"), "status 200, not as the API", true},
		"not found there": {answer(404, ""), "status 404", true},
	} {
		s := httptest.NewServer(c.handler)
		if got, bad := tryNode(t.Context(), s.URL+"/under/", "berlin-1"); (got == "") != (c.want == "") || !strings.Contains(got, c.want) || bad != c.bad {
			t.Errorf("%s: %q, a problem %v, want %q, %v", name, got, bad, c.want, c.bad)
		}
		s.Close()
		if got, bad := tryNode(t.Context(), s.URL, "berlin-1"); !bad || !strings.Contains(got, "nobody listens there: is the server running?") {
			t.Errorf("%s, after its end: %q", name, got)
		}
	}
	secure := httptest.NewTLSServer(answer(200, "ok this node\n"))
	defer secure.Close()
	plain := httptest.NewServer(answer(200, "ok this node\n"))
	defer plain.Close()
	for at, want := range map[string]string{
		secure.URL: "certificate is not accepted",
		strings.Replace(plain.URL, "http:", "https:", 1): "there is no TLS",
		"http://nowhere.invalid:1":                       "no address",
		"ftp://10.0.0.5":                                 "is no URL",
		"10.0.0.5:8081":                                  "is no URL",
	} {
		if got, bad := tryNode(t.Context(), at, "berlin-1"); !bad || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", at, got, want)
		}
	}
}

// TestOtherNodes: more nodes than are tried at once are listed in order; the node itself, dead ones and those without the API are not.
func TestOtherNodes(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok this node\n")) }))
	defer s.Close()
	var list []nodes.Seen
	var want []Finding
	for i := range 3 * tryNodesAtOnce {
		n := nodes.Seen{Node: nodes.Node{ID: fmt.Sprint(i), Name: fmt.Sprint("n", i), URL: s.URL, ControlAddr: "10.0.0.5:8081"}, State: nodes.Alive}
		switch i {
		case 2:
			n.State = nodes.Dead
		case 3:
			n.ControlAddr = ""
		}
		list = append(list, n)
		if i > 0 && i != 2 && i != 3 {
			want = append(want, Finding{What: "node " + n.Name, State: FindingOK})
		}
	}
	d := &doctor{}
	d.otherNodes(t.Context(), "0", list)
	if !slices.Equal(d.list, want) {
		t.Errorf("%+v, want %+v", d.list, want)
	}
}

// jobStore has jobs of one workspace.
type jobStore struct {
	jobs []terse.Document
	err  error
}

func (s jobStore) ListDocuments(_ context.Context, w terse.WorkspaceID, kind terse.Kind, after string, _ int) ([]terse.Document, error) {
	if after != "" {
		return nil, s.err
	}
	if kind == terse.KindWorkspace {
		return []terse.Document{{Kind: kind, ID: terse.WorkspaceID(7).String(), Data: []byte(`{"id":7}`)}}, s.err
	}
	if w != 7 {
		return nil, s.err
	}
	return s.jobs, s.err
}

// TestWaitingJobs: jobs of nodes that are dead or gone are told of, with the node and what to do; those of living nodes are not.
func TestWaitingJobs(t *testing.T) {
	t.Parallel()
	seen := terse.Millis(1_790_000_000_000)
	list := []nodes.Seen{
		{Node: nodes.Node{ID: "n1", Name: "berlin"}, State: nodes.Alive},
		{Node: nodes.Node{ID: "n2", Name: "paris"}, State: nodes.Dead, SeenAt: seen},
	}
	job := func(id, node string) terse.Document {
		return terse.Document{Kind: terse.KindJob, ID: id, Data: fmt.Appendf(nil, `{"id":%q,"workspace":7,"node":%q,"state":"running"}`, id, node)}
	}
	for name, c := range map[string]struct {
		store jobStore
		want  []string // of the text of each line
		state string
	}{
		"none":            {jobStore{}, []string{""}, FindingOK},
		"of a living one": {jobStore{jobs: []terse.Document{job("j1", "n1")}}, []string{""}, FindingOK},
		"of others": {jobStore{jobs: []terse.Document{job("j1", "n2"), job("j2", "n2"), job("j3", "n0"), job("j4", "n1")}}, []string{
			"1 job waits for the node n0, which is not on the list any more",
			"2 jobs wait for the node paris, which has given no sign of life since " + seen.Time().UTC().Format(time.RFC3339),
		}, FindingWarning},
		"no answer": {jobStore{err: errors.New("away")}, []string{"cannot be listed"}, FindingProblem},
	} {
		d := &doctor{}
		d.waitingJobs(t.Context(), c.store, list)
		if len(d.list) != len(c.want) {
			t.Errorf("%s: %+v", name, d.list)
			continue
		}
		for i, f := range d.list {
			if f.What != "jobs" || f.State != c.state || !strings.Contains(f.Text, c.want[i]) || (f.Text == "") != (c.want[i] == "") {
				t.Errorf("%s: %+v, want %q", name, f, c.want[i])
			}
			if c.state == FindingWarning && !strings.Contains(f.Text, "terse jobs cancel at any node (the oldest is j") {
				t.Errorf("%s: it does not say what to do: %s", name, f.Text)
			}
		}
	}
}
