package cli

import (
	"testing"
	"time"
)

func TestAge(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 0: "0s", 1900 * time.Millisecond: "1s", 61 * time.Second: "1m1s", time.Hour: "1h0m", 26*time.Hour + time.Minute: "1d2h", 24 * 40 * time.Hour: "40d0h",
	} {
		if got := age(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
