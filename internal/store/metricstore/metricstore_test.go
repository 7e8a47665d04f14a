package metricstore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/faultstore"
	"github.com/terselink/terse/internal/store/memstore"
	"github.com/terselink/terse/internal/store/metricstore"
	"github.com/terselink/terse/internal/store/storetest"
)

// TestStore shows that the decorator is a store as good as the one in it.
func TestStore(t *testing.T) {
	storetest.Run(t, storetest.Opts{Decorator: true, New: func(t testing.TB) terse.Store {
		s, err := metricstore.New(memstore.New(nil), prometheus.NewRegistry(), time.Now)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}})
}

// setup returns a measured store whose clock moves by 2 ms at each reading.
func setup(t *testing.T) (*metricstore.Store, *faultstore.Store, *prometheus.Registry) {
	t.Helper()
	at := time.UnixMilli(0)
	faults := faultstore.New(memstore.New(nil))
	reg := prometheus.NewPedanticRegistry()
	s, err := metricstore.New(faults, reg, func() time.Time { at = at.Add(2 * time.Millisecond); return at })
	if err != nil {
		t.Fatal(err)
	}
	return s, faults, reg
}

func TestOutcomes(t *testing.T) {
	link := terse.Link{Number: terse.NewLinkNumber(1, 7, 0), Workspace: 1, Version: 1, Destination: "https://example.com/"}
	insert := func(ctx context.Context, s terse.Store) error {
		return s.InsertLinks(ctx, &terse.Chunk{Links: []terse.Link{link}})
	}
	for _, tc := range []struct {
		outcome string
		fault   *faultstore.Fault
		before  func(context.Context, terse.Store) error
		cancel  bool
	}{
		{outcome: "ok"},
		{outcome: "refused", before: insert},
		{outcome: "refused", fault: &faultstore.Fault{Err: fmt.Errorf("wrapped: %w", terse.ErrVersion)}},
		{outcome: "unavailable", fault: &faultstore.Fault{}},
		{outcome: "unknown_outcome", fault: &faultstore.Fault{When: faultstore.After}},
		{outcome: "unknown_outcome", fault: &faultstore.Fault{Err: fmt.Errorf("%w: %w", terse.ErrUnknownOutcome, context.Canceled)}},
		{outcome: "cancelled", cancel: true},
		{outcome: "internal", fault: &faultstore.Fault{Err: errors.New("a defect")}},
	} {
		t.Run(tc.outcome, func(t *testing.T) {
			s, faults, reg := setup(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tc.before != nil {
				if err := tc.before(ctx, faults.Inner()); err != nil {
					t.Fatal(err)
				}
			}
			if tc.fault != nil {
				faults.Inject(*tc.fault)
			}
			if tc.cancel {
				cancel()
			}
			err := insert(ctx, s)
			inserted := 0
			if err == nil {
				inserted = 1
			}
			if (tc.outcome == "ok") != (err == nil) {
				t.Fatalf("got error %v", err)
			}
			want := map[string]float64{"terse_store_links_inserted_total": float64(inserted)}
			for _, op := range ops {
				for _, o := range []string{"cancelled", "internal", "ok", "refused", "unavailable", "unknown_outcome"} {
					want["terse_store_calls_total "+op+" "+o] = 0
				}
			}
			want["terse_store_calls_total insert_links "+tc.outcome] = 1
			if d := cmp.Diff(want, counters(t, reg)); d != "" {
				t.Fatalf("(-want +got):\n%s", d)
			}
		})
	}
}

// counters returns all counters, by name and the values of their labels.
func counters(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if m.GetCounter() == nil {
				continue
			}
			key := f.GetName()
			for _, l := range m.GetLabel() { // ordered by name: op, outcome
				key += " " + l.GetValue()
			}
			out[key] = m.GetCounter().GetValue()
		}
	}
	return out
}

var ops = []string{
	"changes", "delete_document", "delete_link", "find_plain", "get_alias", "get_document", "get_links", "insert_links",
	"count_links", "lease", "list_documents", "list_links", "next", "ping", "purge_links", "put_document", "reservations", "update_link",
}

// TestEveryOperationIsMeasured calls each method once: each must land under its own label.
func TestEveryOperationIsMeasured(t *testing.T) {
	s, _, reg := setup(t)
	ctx := t.Context()
	_, _ = s.Lease(ctx, terse.LeaseRequest{Domain: 1, Count: 1})
	_, _ = s.Next(ctx, 1, 0)
	_, _ = s.Reservations(ctx, 1, 7, 0, 1)
	_ = s.InsertLinks(ctx, &terse.Chunk{})
	_ = s.GetLinks(ctx, nil, nil)
	_, _ = s.GetAlias(ctx, 1, "a")
	_, _ = s.FindPlain(ctx, 1, 1, "d", 1)
	_ = s.UpdateLink(ctx, &terse.Link{Version: 1}, 0)
	_ = s.DeleteLink(ctx, terse.LinkKey{}, 0)
	_, _ = s.ListLinks(ctx, 1, terse.ListQuery{Limit: 1})
	_, _ = s.CountLinks(ctx, 1, 1)
	_, _ = s.PurgeLinks(ctx, 1, 1, 1)
	_, _ = s.GetDocument(ctx, 1, terse.KindJob, "a")
	_ = s.PutDocument(ctx, terse.Document{})
	_ = s.DeleteDocument(ctx, 1, terse.KindJob, "a", 0)
	_, _ = s.ListDocuments(ctx, 1, terse.KindJob, "", 1)
	_, _ = s.Changes(ctx, 0, 1)
	_ = s.Ping(ctx)

	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, f := range families {
		if f.GetName() != "terse_store_seconds" {
			continue
		}
		for _, m := range f.GetMetric() {
			h := m.GetHistogram()
			if h.GetSampleCount() != 1 || h.GetSampleSum() != 0.002 {
				t.Errorf("%v: %d samples of %g s, want one of 0.002", m.GetLabel(), h.GetSampleCount(), h.GetSampleSum())
			}
			seen[m.GetLabel()[0].GetValue()] = true
		}
	}
	for _, op := range ops {
		if !seen[op] {
			t.Errorf("%s is not measured", op)
		}
	}
	if len(seen) != len(ops) {
		t.Errorf("%d operations, want %d", len(seen), len(ops))
	}
}

func TestTwoStoresOnOneRegistry(t *testing.T) {
	reg := prometheus.NewRegistry()
	if _, err := metricstore.New(memstore.New(nil), reg, time.Now); err != nil {
		t.Fatal(err)
	}
	if _, err := metricstore.New(memstore.New(nil), reg, time.Now); err == nil {
		t.Fatal("the second store registers over the first")
	}
}
