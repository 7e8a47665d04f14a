package openloop

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestBuckets proves that buckets cover every duration once, in order, and are as
// narrow as promised.
func TestBuckets(t *testing.T) {
	next := uint64(0)
	for b := range buckets {
		if got := bucketOf(next); got != b {
			t.Fatalf("%d ns is in bucket %d, want %d", next, got, b)
		}
		end := upperBound(b)
		if got := bucketOf(end); got != b {
			t.Fatalf("the end of bucket %d, %d ns, is in bucket %d", b, end, got)
		}
		if end-next > next/(1<<subBits) {
			t.Fatalf("bucket %d reaches from %d to %d ns", b, next, end)
		}
		next = end + 1
	}
	if next != 1<<maxBits {
		t.Errorf("the buckets end at %d ns, want %d", next, uint64(1)<<maxBits)
	}
}

func TestQuantile(t *testing.T) {
	var empty Histogram
	if empty.Quantile(0.5) != 0 || empty.Mean() != 0 || empty.Max() != 0 {
		t.Error("an empty histogram is not all zero")
	}
	r := rand.New(rand.NewPCG(1, 2))
	var halves [2]Histogram
	values := make([]time.Duration, 10_000)
	for i := range values {
		values[i] = time.Duration(r.ExpFloat64() * float64(time.Millisecond))
		halves[i%2].Record(values[i])
	}
	h := &halves[0]
	h.Add(&halves[1])
	slices.Sort(values)
	if h.Count() != uint64(len(values)) || h.Max() != values[len(values)-1] {
		t.Errorf("count %d, max %v", h.Count(), h.Max())
	}
	for _, q := range []float64{0, 0.001, 0.5, 0.9, 0.99, 0.999, 1} {
		exact := values[max(int(q*float64(len(values)))-1, 0)]
		if got := h.Quantile(q); got < exact || float64(got) > float64(exact)*1.008+1 {
			t.Errorf("quantile %v is %v, want %v", q, got, exact)
		}
	}
	h.Record(-time.Second)
	h.Record(time.Hour)
	if h.Quantile(0) != 0 || h.Quantile(1) != 1<<maxBits-1 || h.Max() != time.Hour {
		t.Errorf("outside the range: least %v, most %v, max %v", h.Quantile(0), h.Quantile(1), h.Max())
	}
}
