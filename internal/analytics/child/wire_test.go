package child

import (
	"bytes"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
)

// remote is an engine behind a socket.
type remote struct{ *Supervisor }

// TestWire runs the suite through client, socket and handler, on the reference engine: nothing is
// lost on the way.
func TestWire(t *testing.T) {
	enginetest.Run(t, enginetest.Options{Events: 3000, Queries: 120, New: func(t *testing.T, events []clicks.Event) analytics.Engine {
		socket := filepath.Join(t.TempDir(), "s")
		stop, err := listen(socket, handler(enginetest.NewReference(events), func(s *wireStatus) { s.Rejected = 3 }))
		if err != nil {
			t.Fatal(err)
		}
		s := &Supervisor{o: Options{Clock: time.Now}, client: newClient(socket), opened: true}
		s.metrics = newMetrics(s)
		t.Cleanup(func() {
			if st := s.Status(t.Context()); st.State != analytics.StateDown && s.last.Rejected != 3 {
				t.Errorf("the status lost something: %+v", s.last)
			}
			s.client.close()
			stop()
		})
		return remote{s}
	}})
}

func TestWireErrors(t *testing.T) {
	for _, err := range []error{
		terse.Invalid("from", "is no time"),
		&terse.Error{Code: terse.CodeUnavailable, Reason: "query_timeout", Message: "too long", Err: errors.New("cause")},
		errors.New("anything"),
	} {
		got := toWireError(err).err()
		want, ok := errors.AsType[*terse.Error](err)
		if !ok {
			want = &terse.Error{Code: terse.CodeUnavailable, Message: "the analytics engine failed", Err: err}
		}
		if got.Error() != want.Error() || terse.ErrorCode(got) != want.Code || !errors.Is(got, &terse.Error{Code: want.Code, Reason: want.Reason}) {
			t.Errorf("%v became %v", want, got)
		}
	}
}

// TestClientWithoutServer: a dead child is an answer, not a wait.
func TestClientWithoutServer(t *testing.T) {
	c := newClient(filepath.Join(t.TempDir(), "nobody"))
	defer c.close()
	_, err := c.status(t.Context())
	if !errors.Is(err, error(errDown)) {
		t.Errorf("got %v", err)
	}
}

func TestJudge(t *testing.T) {
	ms := time.Millisecond
	tests := []struct {
		name    string
		endings []ending
		aside   []bool
		delays  []time.Duration
	}{
		{"damaged at once", []ending{{opened: true, code: exitDamaged}}, []bool{true}, []time.Duration{100 * ms}},
		{"two failed openings", []ending{{code: exitUnusable}, {code: exitCrashed}, {code: exitCrashed}}, []bool{false, true, false}, []time.Duration{100 * ms, 200 * ms, 400 * ms}},
		{"a signal of its own", []ending{{code: -1}, {code: -1}}, []bool{false, true}, nil},
		{"opened between", []ending{{code: exitUnusable}, {opened: true, code: exitFailed}, {code: exitUnusable}}, []bool{false, false, false}, nil},
		{"five kills", make5(ending{code: -1, killed: true}), []bool{false, false, false, false, true}, []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms, time.Second}},
		{"kills of a working child", make5(ending{opened: true, code: -1, killed: true}), make([]bool, 5), nil},
		{"locked for ever", make5(ending{code: exitLocked}), make([]bool, 5), nil},
		{"no spool folder", make5(ending{code: exitFailed}), make([]bool, 5), nil},
		{"a long life ends the back-off", []ending{{opened: true}, {opened: true}, {opened: true, lived: time.Hour}}, []bool{false, false, false}, []time.Duration{100 * ms, 200 * ms, 100 * ms}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := judge{minDelay: 100 * ms, maxDelay: time.Second}
			for i, e := range tt.endings {
				delay, aside := j.next(e)
				if aside != tt.aside[i] || tt.delays != nil && delay != tt.delays[i] {
					t.Errorf("ending %d: %s, set aside %v", i, delay, aside)
				}
			}
		})
	}
}

func make5(e ending) []ending { return []ending{e, e, e, e, e} }

func TestForwardLine(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	forwardLine([]byte(`{"time":"x","level":"WARN","msg":"disk","b":1,"a":"y"}`+"\n"), log)
	forwardLine([]byte("SIGABRT: abort"), log)
	want := "level=WARN msg=disk process=analytics a=y b=1\nlevel=ERROR msg=\"analytics process\" text=\"SIGABRT: abort\"\n"
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Error(d)
	}
}

// TestConfigErrors: a child that is not told what to do ends and says so.
func TestConfigErrors(t *testing.T) {
	for _, in := range []string{"", "{", "[]\n", `{"dir":1}` + "\n"} {
		var log bytes.Buffer
		if code := run(strings.NewReader(in), &bytes.Buffer{}, &log, openFake); code != exitFailed || !strings.Contains(log.String(), "configuration") {
			t.Errorf("%q: code %d, %s", in, code, log.String())
		}
	}
}

func registry(t *testing.T, c prometheus.Collector) *prometheus.Registry {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(c); err != nil {
		t.Fatal(err)
	}
	return r
}
