package app

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/nodes"
	"github.com/terselink/terse/internal/sleep"
	"github.com/terselink/terse/internal/store/memstore"
)

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestWarnOfCounts: a node with DuckDB that starts beside another one says so in its log.
func TestWarnOfCounts(t *testing.T) {
	t.Parallel()
	clock := func() terse.Millis { return terse.MillisOf(time.Now()) }
	store := memstore.New(clock)
	roles := []string{config.RoleRedirect, config.RoleControl}
	var log lockedBuffer
	a := nodes.Node{ID: "a", Name: "berlin", Roles: roles, Analytics: config.EngineDuckDB}
	s := &server{log: slog.New(slog.NewTextHandler(&log, nil)), nodes: nodes.New(nodes.Options{Store: store, Self: a, Clock: clock})}
	b := nodes.New(nodes.Options{Store: store, Self: nodes.Node{ID: "b", Name: "paris", Roles: roles, Analytics: config.EngineDuckDB}, Clock: clock})
	for _, r := range []*nodes.Registry{s.nodes, b} {
		must(t, r.Beat(t.Context()))
	}
	s.warnOfCounts(a)
	for range 6000 {
		if strings.Contains(log.String(), "duckdb at berlin, paris") || sleep.For(t.Context(), 10*time.Millisecond) != nil {
			break
		}
	}
	must(t, s.stop(context.WithoutCancel(t.Context())))
	if got := log.String(); strings.Count(got, "level=WARN") != 1 || !strings.Contains(got, "duckdb at berlin, paris") {
		t.Errorf("the log has %q", got)
	}
}

// TestDoctorCounts: the doctor tells of living nodes that count apart, of none that is dead or this one itself, and only with an engine.
func TestDoctorCounts(t *testing.T) {
	t.Parallel()
	list := []nodes.Seen{
		{Node: nodes.Node{ID: "a", Name: "berlin", Roles: []string{config.RoleRedirect}, Analytics: config.EngineDuckDB}, State: nodes.Alive},
		{Node: nodes.Node{ID: "b", Name: "paris", Roles: []string{config.RoleRedirect}, Analytics: config.EngineDuckDB}, State: nodes.Alive},
	}
	dead := append([]nodes.Seen(nil), list...)
	dead[1].State = nodes.Dead
	for name, c := range map[string]struct {
		list  []nodes.Seen
		set   func(*config.Config)
		state string // "": no line
	}{
		"two":               {list, func(*config.Config) {}, FindingWarning},
		"the other is dead": {dead, func(*config.Config) {}, FindingOK},
		"alone":             {list[:1], func(*config.Config) {}, FindingOK},
		"no engine here":    {list, func(c *config.Config) { c.Analytics.Enabled = false }, ""},
		"no clicks here":    {list, func(c *config.Config) { c.Clicks.Enabled = false }, ""},
		"a worker":          {list, func(c *config.Config) { c.Role = []string{config.RoleWorker} }, ""},
	} {
		cfg := config.Default(16 << 30)
		c.set(cfg)
		d := &doctor{cfg: cfg}
		d.counts("a", c.list)
		switch {
		case c.state == "" && len(d.list) == 0:
		case len(d.list) != 1 || d.list[0].State != c.state || (c.state == FindingWarning) != strings.Contains(d.list[0].Text, "berlin, paris"):
			t.Errorf("%s: %+v, want %q", name, d.list, c.state)
		}
	}
}
