package app

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/nodes"
	"github.com/terselink/terse/internal/sleep"
	"github.com/terselink/terse/internal/store/memstore"
)

// TestEdgeWithoutInbox: a control plane that takes no clicks of edges says so in its log and to the doctor once there is a key for one, and where
// they are taken, if anywhere.
func TestEdgeWithoutInbox(t *testing.T) {
	t.Parallel()
	clock := func() terse.Millis { return terse.MillisOf(time.Now()) }
	store := memstore.New(clock)
	owner, _, err := auth.Bootstrap(t.Context(), auth.BootstrapOptions{Store: store, Clock: clock, Key: strings.Repeat("k", 40)})
	must(t, err)
	service, err := auth.Open(t.Context(), auth.Options{Store: store, Clock: clock})
	must(t, err)
	who, err := service.Authenticate(t.Context(), owner)
	must(t, err)
	control := config.Default(16 << 30)
	control.Role = []string{config.RoleControl, config.RoleWorker}
	full := config.Default(16 << 30)
	silent := config.Default(16 << 30)
	silent.Clicks.Enabled = false
	other := nodes.Seen{Node: nodes.Node{ID: "b", Name: "paris", Roles: []string{config.RoleRedirect, config.RoleControl}}, State: nodes.Alive}
	line := func(cfg *config.Config, list ...nodes.Seen) string {
		d := &doctor{cfg: cfg}
		d.edges(t.Context(), store, list)
		if len(d.list) == 0 {
			return ""
		}
		if f := d.list[0]; f.State != FindingOK {
			return f.State + ": " + f.Text
		}
		return FindingOK
	}
	if got := line(control); got != FindingOK {
		t.Errorf("without a key: %q", got)
	}
	_, _, err = service.CreateKey(t.Context(), &who, auth.NewKey{Workspace: auth.DefaultWorkspace, Name: "frankfurt", Scopes: []auth.Scope{auth.ScopeEdgeUse}}, nil)
	must(t, err)
	if got := line(full); got != "" {
		t.Errorf("where they are taken: %q", got)
	}
	for _, c := range []struct {
		cfg  *config.Config
		list []nodes.Seen
		want string
	}{
		{control, nil, `problem: there is a key for an edge node ("frankfurt"), and this node takes no clicks of edges: it has the role control without redirect. Clicks wait`},
		{control, []nodes.Seen{other}, "have to reach paris"},
		{silent, nil, "clicks.enabled is false"},
	} {
		if got := line(c.cfg, c.list...); !strings.Contains(got, c.want) || strings.HasPrefix(got, FindingWarning) != (c.list != nil) {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	var log lockedBuffer
	s := &server{cfg: control, clock: clock, log: slog.New(slog.NewTextHandler(&log, nil)), store: store, nodes: nodes.New(nodes.Options{Clock: clock})}
	s.warnOfEdges()
	for range 6000 {
		if strings.Contains(log.String(), "level=WARN") || sleep.For(t.Context(), 10*time.Millisecond) != nil {
			break
		}
	}
	must(t, s.stop(context.WithoutCancel(t.Context())))
	if got := log.String(); !strings.Contains(got, "frankfurt") || !strings.Contains(got, "Clicks wait") {
		t.Errorf("the log has %q", got)
	}
}
