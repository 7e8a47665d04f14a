package webhook

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// The vector of the Standard Webhooks reference libraries.
func TestVector(t *testing.T) {
	t.Parallel()
	secret, err := ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	body := []byte(`{"test": 2432232314}`)
	at := time.Unix(1614265330, 0)
	h := Sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", at, body)
	if got, want := h.Get("webhook-signature"), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("signature %s, want %s", got, want)
	}
	if err := Verify(secret, h, body, at); err != nil {
		t.Error(err)
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	secret, err := ParseSecret(NewSecret())
	if err != nil {
		t.Fatal(err)
	}
	other, _ := ParseSecret(NewSecret())
	at, body := time.Unix(1_700_000_000, 0), []byte("{}")
	signed := func(change func(http.Header)) http.Header {
		h := Sign(secret, "msg_1", at, body)
		change(h)
		return h
	}
	for _, c := range []struct {
		name string
		h    http.Header
		body string
		now  time.Time
		ok   bool
	}{
		{"right", signed(func(http.Header) {}), "{}", at, true},
		{"rotated", signed(func(h http.Header) {
			h.Set("webhook-signature", Sign(other, "msg_1", at, body).Get("webhook-signature")+" "+h.Get("webhook-signature"))
		}), "{}", at, true},
		{"at the edge", signed(func(http.Header) {}), "{}", at.Add(Tolerance), true},
		{"replayed", signed(func(http.Header) {}), "{}", at.Add(Tolerance + time.Second), false},
		{"from the future", signed(func(http.Header) {}), "{}", at.Add(-Tolerance - time.Second), false},
		{"other body", signed(func(http.Header) {}), "{ }", at, false},
		{"other id", signed(func(h http.Header) { h.Set("webhook-id", "msg_2") }), "{}", at, false},
		{"other time", signed(func(h http.Header) { h.Set("webhook-timestamp", "1700000001") }), "{}", at, false},
		{"other secret", Sign(other, "msg_1", at, body), "{}", at, false},
		{"other version", signed(func(h http.Header) {
			h.Set("webhook-signature", strings.Replace(h.Get("webhook-signature"), "v1,", "v1a,", 1))
		}), "{}", at, false},
		{"no headers", http.Header{}, "{}", at, false},
	} {
		if err := Verify(secret, c.h, []byte(c.body), c.now); (err == nil) != c.ok {
			t.Errorf("%s: %v, want ok=%v", c.name, err, c.ok)
		}
	}
}

func FuzzParseSecret(f *testing.F) {
	f.Add("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	f.Add("whsec_")
	f.Add("whsec_====")
	f.Fuzz(func(t *testing.T, s string) {
		b, err := ParseSecret(s)
		if err == nil && (len(b) < 24 || len(b) > 64 || !strings.HasPrefix(s, SecretPrefix)) {
			t.Errorf("%q was taken", s)
		}
	})
}
