package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse/client"
	"github.com/terselink/terse/e2e/proc"
)

// edgeOptions returns options of an edge of a running control plane.
func edgeOptions(t *testing.T, up *proc.Server) proc.Options {
	t.Helper()
	k, err := newClient(t, up).CreateKey(t.Context(), client.NewKey{Name: "edge", Scopes: []string{"edge:use"}})
	if err != nil {
		t.Fatal(err)
	}
	o := fixedAddrs(t, "TERSE_UPSTREAM_KEY="+k.Secret)
	o.Args = []string{"--role", "redirect", "--upstream", up.URL("")}
	return o
}

// edgeArrived reports whether all clicks in the spool of an edge, which records none now, are at its control plane.
func edgeArrived(t *testing.T, up *proc.Server, data string) bool {
	t.Helper()
	name, err := os.ReadFile(filepath.Join(data, "spool-name"))
	if err != nil {
		return false
	}
	segments, _ := filepath.Glob(filepath.Join(data, "spool", "*.seg"))
	if len(segments) == 0 {
		return false
	}
	last := slices.Max(segments)
	info, err := os.Stat(last)
	if err != nil {
		return false
	}
	var at struct {
		Position string `json:"position"`
	}
	if _, err := newAPI(t, up).json(t.Context(), "GET", "/api/v1/edge/clicks?edge="+strings.TrimSpace(string(name)), nil, &at); err != nil {
		return false
	}
	base := strings.TrimSuffix(filepath.Base(last), ".seg")
	i := strings.LastIndexByte(base, '-')
	return at.Position == fmt.Sprintf("%s/%s/%012d", base[:i], base[i+1:], info.Size())
}

// readyLine returns a line of /readyz of a redirect plane.
func readyLine(addr, name string) string {
	c := http.Client{Timeout: time.Minute}
	resp, err := c.Get("http://" + addr + "/readyz")
	if err != nil {
		return ""
	}
	defer func() { _ = resp.Body.Close() }()
	b, _ := io.ReadAll(resp.Body)
	for line := range strings.SplitSeq(string(b), "\n") {
		if strings.HasPrefix(line, name+":") {
			return line
		}
	}
	return ""
}

// TestEdge: an edge serves links that are made after its start, changes of links are in force there, and what it has it serves
// while its control plane is away, after a restart, too. What it does not have is 503 then, never 404.
func TestEdge(t *testing.T) {
	uo := fixedAddrs(t)
	up := start(t, uo)
	eo := edgeOptions(t, up)
	edge := start(t, eo)
	v := newVisitor(edge, "User-Agent", agentDesktop)
	defer func() { v.close() }()
	visit := func(path string) (int, string) {
		t.Helper()
		status, location, err := v.visit("GET", path)
		if err != nil {
			return 0, err.Error()
		}
		return status, location
	}
	want := func(path string, status int, location string) {
		t.Helper()
		until(t, time.Minute, fmt.Sprintf("%s is %d %s", path, status, location), func() bool {
			gotStatus, gotLocation := visit(path)
			return gotStatus == status && gotLocation == location
		})
	}
	c := newClient(t, up)
	link := func(n client.NewLink) *client.Link {
		t.Helper()
		l, err := c.CreateLink(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}

	// A code that was asked for before it exists works once it does.
	want("/spring", 404, "")
	alias := link(client.NewLink{Destination: "https://example.com/spring", Code: "spring"})
	want("/spring", 302, "https://example.com/spring")
	plain := link(client.NewLink{Destination: "https://example.com/plain"})
	path := pathOf(plain.ShortURL)
	want(path, 302, "https://example.com/plain")
	unseen := pathOf(link(client.NewLink{Destination: "https://example.com/unseen"}).ShortURL)

	var slowest time.Duration
	for round := range 5 {
		to := fmt.Sprintf("https://example.com/round/%d", round)
		for _, l := range []*client.Link{plain, alias} {
			if _, err := c.UpdateLink(t.Context(), l.ID, client.LinkPatch{Destination: client.Set(to)}); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			want(pathOf(l.ShortURL), 302, to)
			slowest = max(slowest, time.Since(began))
		}
	}
	began := time.Now()
	if _, err := c.UpdateLink(t.Context(), alias.ID, client.LinkPatch{Status: client.Set("disabled")}); err != nil {
		t.Fatal(err)
	}
	want("/spring", 410, "")
	t.Logf("a change is in force at the edge after %v at most, a disabled link after %v", slowest.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))

	// An orderly stop leaves the copy whole.
	restart := func() {
		t.Helper()
		v.close()
		if err := edge.Stop(); err != nil {
			t.Fatal(err)
		}
		edge = start(t, eo)
		v = newVisitor(edge, "User-Agent", agentDesktop)
	}
	restart()
	if err := up.Kill(); err != nil {
		t.Fatal(err)
	}
	away := func() {
		t.Helper()
		want(path, 302, "https://example.com/round/4")
		want("/spring", 410, "")
		for _, p := range []string{unseen, "/nobody"} {
			if status, _ := visit(p); status != 503 || v.headerValue("Retry-After") == "" {
				t.Errorf("%s while the control plane is away: %d, Retry-After %q", p, status, v.headerValue("Retry-After"))
			}
		}
		until(t, time.Minute, "the edge says so", func() bool { return strings.Contains(readyLine(edge.RedirectAddr, "upstream"), "degraded") })
	}
	away()
	restart()
	away()
	if err := edge.Kill(); err != nil {
		t.Fatal(err)
	}
	v.close()
	edge = start(t, eo)
	v = newVisitor(edge, "User-Agent", agentDesktop)
	away()

	up = start(t, uo)
	c = newClient(t, up)
	want(unseen, 302, "https://example.com/unseen")
	if _, err := c.UpdateLink(t.Context(), plain.ID, client.LinkPatch{Destination: client.Set("https://example.com/after")}); err != nil {
		t.Fatal(err)
	}
	want(path, 302, "https://example.com/after")
	until(t, time.Minute, "the edge says so", func() bool { return readyLine(edge.RedirectAddr, "upstream") == "upstream: ok" })
}

// TestEdgeClicks kills an edge and its control plane in turn while visitors click at the edge. Every click is counted, none twice; the
// last 10 ms before a kill of the edge may be missing.
func TestEdgeClicks(t *testing.T) {
	uo := fixedAddrs(t)
	up := start(t, uo)
	eo := edgeOptions(t, up)
	edge := start(t, eo)
	paths := makeLinks(t, up, 4)
	var book clickBook
	warm := newVisitor(edge, "User-Agent", agentDesktop)
	for _, p := range paths {
		n, sent := book.send(), time.Now()
		if status, _, err := warm.visit("GET", p+"?utm_content=n"+strconv.Itoa(n)); err != nil || status != 302 {
			t.Fatalf("%s: %d, error %v", p, status, err)
		}
		book.answer(n, time.Now(), time.Since(sent))
	}
	warm.close()
	if err := edge.Stop(); err != nil { // the copy has them
		t.Fatal(err)
	}
	edge = start(t, eo)

	arrived := func() bool {
		m, err := readClickMetrics(t.Context(), newAPI(t, edge))
		return err == nil && m.settled() && edgeArrived(t, up, eo.Data)
	}
	killUpstream := func() {
		t.Helper()
		children := proc.Children(up.PID())
		if err := up.Kill(); err != nil {
			t.Fatal(err)
		}
		for _, pid := range children {
			until(t, time.Minute, "the child of the killed server ends", func() bool { return !proc.Alive(pid) })
		}
	}
	for round := range killCount(t, 6) {
		ctx, cancel := context.WithCancel(t.Context())
		from := book.size()
		crowd := book.crowd(ctx, edge, paths, 4, time.Millisecond)
		more := func() {
			t.Helper()
			seen := book.size()
			until(t, time.Minute, "visitors come", func() bool { return book.size() > seen+200 })
		}
		more()
		if round%3 != 1 {
			killUpstream()
			more()
		}
		if round%3 == 0 {
			up = start(t, uo)
			more()
			cancel()
			crowd.Wait()
			until(t, 2*time.Minute, "all clicks have arrived", arrived)
			continue
		}
		at := time.Now()
		if err := edge.Kill(); err != nil {
			t.Fatal(err)
		}
		cancel()
		crowd.Wait()
		book.killed(from, at)
		edge = start(t, eo)
		if round%3 == 2 {
			up = start(t, uo)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	from := book.size()
	crowd := book.crowd(ctx, edge, paths, 1, time.Millisecond)
	until(t, time.Minute, "the last visitor comes", func() bool { return book.size() > from+10 })
	cancel()
	crowd.Wait()
	until(t, 2*time.Minute, "all clicks have arrived", arrived)
	book.readRecord(t, up)
	v := book.judge(diskWait)
	t.Log(v)
	for _, f := range book.faults {
		t.Error(f)
	}
	if v.twice > 0 || v.stray > 0 || v.counted == 0 {
		t.Errorf("%+v: want no click twice, and none lost without a kill of the edge", v)
	}
}
