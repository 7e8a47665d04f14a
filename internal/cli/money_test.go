package cli

import (
	"math"
	"testing"
)

func TestMoney(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		n        int64
		currency string
		want     string
	}{
		{1999, "EUR", "19.99"},
		{5, "USD", "0.05"},
		{-123_456_789, "EUR", "-1,234,567.89"},
		{-5, "EUR", "-0.05"},
		{1999, "JPY", "1,999"},
		{-1999, "KRW", "-1,999"},
		{1999, "KWD", "1.999"},
		{12, "BHD", "0.012"},
		{1_234_567, "CLF", "123.4567"},
		{0, "JPY", "0"},
		{1999, "", "19.99"},
		{math.MinInt64, "EUR", "-92,233,720,368,547,758.08"},
	} {
		if got := money(tc.n, tc.currency); got != tc.want {
			t.Errorf("money(%d, %q) = %s, want %s", tc.n, tc.currency, got, tc.want)
		}
	}
}
