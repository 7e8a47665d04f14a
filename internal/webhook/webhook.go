// Package webhook signs what Terse sends to other people's servers, as the Standard
// Webhooks specification has it (standardwebhooks.com, version 1.0.0): the headers
// webhook-id, webhook-timestamp and webhook-signature, the last one "v1," and the
// HMAC-SHA256 of "id.timestamp.body" in base 64.
//
// It does not send (package outbound) and does not retry (package jobs).
package webhook

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/terselink/terse"
)

// SecretPrefix begins the text form of every secret.
const SecretPrefix = "whsec_"

// Bounds of a secret in bytes, from the specification.
const (
	minSecret = 24
	maxSecret = 64
)

// Tolerance is how far the time of a message may be from the receiver's clock.
const Tolerance = 5 * time.Minute

// NewSecret returns a new random secret of 32 bytes in its text form.
func NewSecret() string {
	var b [32]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return SecretPrefix + base64.StdEncoding.EncodeToString(b[:])
}

// ParseSecret returns the bytes of a secret. Returns an error of code invalid for field
// secret if it is none.
func ParseSecret(s string) ([]byte, error) {
	text, ok := strings.CutPrefix(s, SecretPrefix)
	if !ok {
		return nil, terse.Invalid("secret", "does not begin with %s", SecretPrefix)
	}
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, terse.Invalid("secret", "is not base 64 after %s", SecretPrefix)
	}
	if len(b) < minSecret || len(b) > maxSecret {
		return nil, terse.Invalid("secret", "has %d bytes, wants %d to %d", len(b), minSecret, maxSecret)
	}
	return b, nil
}

// Sign returns the headers of a message. id is the same for every attempt to deliver it.
func Sign(secret []byte, id string, at time.Time, body []byte) http.Header {
	stamp := strconv.FormatInt(at.Unix(), 10)
	h := http.Header{}
	h.Set("webhook-id", id)
	h.Set("webhook-timestamp", stamp)
	h.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac(secret, id, stamp, body)))
	return h
}

func mac(secret []byte, id, stamp string, body []byte) []byte {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(id + "." + stamp + ".")) // a hash never fails to write
	m.Write(body)
	return m.Sum(nil)
}

// Verify reports whether the headers sign the body with the secret, at a time close to
// now. A header may hold several signatures, of which one must be right.
func Verify(secret []byte, h http.Header, body []byte, now time.Time) error {
	refused := func(why string) error {
		return &terse.Error{Code: terse.CodeUnauthorized, Message: why}
	}
	id, stamp := h.Get("webhook-id"), h.Get("webhook-timestamp")
	sec, err := strconv.ParseInt(stamp, 10, 64)
	if id == "" || err != nil {
		return refused("the headers of the message are missing or wrong")
	}
	if d := now.Sub(time.Unix(sec, 0)); d > Tolerance || d < -Tolerance {
		return refused("the message is too old or from the future")
	}
	want := mac(secret, id, stamp, body)
	for part := range strings.FieldsSeq(h.Get("webhook-signature")) {
		text, ok := strings.CutPrefix(part, "v1,")
		if !ok {
			continue
		}
		if got, err := base64.StdEncoding.DecodeString(text); err == nil && hmac.Equal(got, want) {
			return nil
		}
	}
	return refused("no signature of the message is right")
}
