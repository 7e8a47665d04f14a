package child

import (
	"context"
	"net/http"

	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/duckdb"
)

// engine is what the child serves.
type engine interface {
	analytics.Engine
	analytics.FactSink
	analytics.Eraser
}

// keeper is an engine that applies retention.
type keeper interface{ SetRetention(duckdb.Retention) }

// handler answers the methods of an engine. extra completes the status.
func handler(e engine, extra func(*wireStatus)) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /summary", answer(func(ctx context.Context, w wireQuery) (any, error) {
		q, err := w.query()
		if err != nil {
			return nil, err
		}
		return e.Summary(ctx, q)
	}))
	mux.HandleFunc("POST /timeseries", answer(func(ctx context.Context, w wireQuery) (any, error) {
		q, err := w.query()
		if err != nil {
			return nil, err
		}
		return e.Timeseries(ctx, q)
	}))
	mux.HandleFunc("POST /breakdown", answer(func(ctx context.Context, w wireQuery) (any, error) {
		q, err := w.query()
		if err != nil {
			return nil, err
		}
		return e.Breakdown(ctx, q)
	}))
	mux.HandleFunc("POST /slots", answer(func(ctx context.Context, w wireQuery) (any, error) {
		q, err := w.query()
		if err != nil {
			return nil, err
		}
		return e.Slots(ctx, q)
	}))
	mux.HandleFunc("POST /clicks", answer(func(ctx context.Context, w wireClicks) (any, error) {
		q, err := w.Query.query()
		if err != nil {
			return nil, err
		}
		return e.Clicks(ctx, q, w.Page)
	}))
	mux.HandleFunc("POST /funnel", answer(func(ctx context.Context, w wireQuery) (any, error) {
		q, err := w.query()
		if err != nil {
			return nil, err
		}
		return e.Funnel(ctx, q)
	}))
	mux.HandleFunc("POST /conversions", answer(func(ctx context.Context, w wireQuery) (any, error) {
		q, err := w.query()
		if err != nil {
			return nil, err
		}
		return e.ConversionsBy(ctx, q)
	}))
	mux.HandleFunc("POST /facts/at", answer(func(ctx context.Context, _ struct{}) (any, error) {
		seq, known, err := e.FactsAt(ctx)
		return wireFacts{seq, known}, err
	}))
	mux.HandleFunc("POST /facts", answer(func(ctx context.Context, b analytics.FactBatch) (any, error) {
		return struct{}{}, e.PutFacts(ctx, b)
	}))
	mux.HandleFunc("POST /totals", answer(func(ctx context.Context, w wireLinks) (any, error) {
		m, err := e.LinkTotals(ctx, w.Workspace, w.Links)
		totals := make([]wireTotal, 0, len(m))
		for n, t := range m {
			totals = append(totals, wireTotal{n, t})
		}
		return totals, err
	}))
	if k, ok := e.(keeper); ok {
		mux.HandleFunc("POST /retention", answer(func(_ context.Context, r duckdb.Retention) (any, error) {
			k.SetRetention(r)
			return struct{}{}, nil
		}))
	}
	mux.HandleFunc("POST /erase", answer(func(ctx context.Context, in analytics.Erasure) (any, error) { return e.Erase(ctx, in) }))
	mux.HandleFunc("POST /status", answer(func(ctx context.Context, _ struct{}) (any, error) {
		s := wireStatus{Status: e.Status(ctx)}
		extra(&s)
		return s, nil
	}))
	return mux
}

// answer decodes a request, calls fn and encodes what it returns. The context of fn
// ends when the parent no longer waits.
func answer[T any](fn func(context.Context, T) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req T
		if err := readJSON(r.Body, &req); err != nil {
			writeAnswer(w, http.StatusBadRequest, toWireError(err))
			return
		}
		v, err := fn(r.Context(), req)
		if err != nil {
			writeAnswer(w, http.StatusUnprocessableEntity, toWireError(err))
			return
		}
		writeAnswer(w, http.StatusOK, v)
	}
}
