package auth

import (
	"regexp"
	"testing"
)

func TestTokens(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^terse_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}$`)
	seen := map[string]bool{}
	counts := map[byte]int{}
	for range 2000 {
		token, id := newToken()
		if !form.MatchString(token) {
			t.Fatalf("token %q has another form", token)
		}
		if got, ok := parseToken(token); !ok || got != id {
			t.Fatalf("parseToken(%q) = %q, %v; want %q", token, got, ok, id)
		}
		if seen[token] || seen[id] {
			t.Fatalf("token %q came twice", token)
		}
		seen[token], seen[id] = true, true
		for i := 15; i < 47; i++ {
			counts[token[i]]++
		}
	}
	// 64,000 digits, 1,032 expected of each, standard deviation 32.
	for i := range len(base62) {
		if n := counts[base62[i]]; n < 1032-6*32 || n > 1032+6*32 {
			t.Errorf("digit %c came %d times in 64000", base62[i], n)
		}
	}
}

// The checksum is CRC-32 (IEEE) in six digits of base 62, so that scanners can check it too.
func TestTokenVector(t *testing.T) {
	t.Parallel()
	const body = "terse_3kZp0aQx_0123456789ABCDEFGHIJKLMNOPQRSTUV"
	if got, want := string(appendSum([]byte(body)))[len(body):], "4AX75Y"; got != want {
		t.Errorf("sum of %s = %s, want %s", body, got, want)
	}
}
