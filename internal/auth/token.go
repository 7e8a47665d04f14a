package auth

import (
	"crypto/rand"
	"hash/crc32"
	"strings"
)

// A generated key is "terse_", the key's id, "_", the secret and a checksum of
// all before it, so that scanners find leaked keys and junk is refused without
// a read.
const (
	tokenPrefix = "terse_"
	idLength    = 8
	secretLen   = 32 // base 62: 190 bits
	sumLength   = 6  // base 62: 62^6 > 2^32
	tokenLen    = len(tokenPrefix) + idLength + 1 + secretLen + sumLength
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// newToken returns a new key and its id.
func newToken() (token, id string) {
	b := make([]byte, 0, tokenLen)
	b = append(b, tokenPrefix...)
	b = appendRandom(b, idLength)
	b = append(b, '_')
	b = appendRandom(b, secretLen)
	b = appendSum(b)
	return string(b), string(b[len(tokenPrefix) : len(tokenPrefix)+idLength])
}

// parseToken returns the id of a generated key; false if it is not one.
func parseToken(t string) (id string, ok bool) {
	if len(t) != tokenLen || !strings.HasPrefix(t, tokenPrefix) || t[len(tokenPrefix)+idLength] != '_' {
		return "", false
	}
	body := t[:tokenLen-sumLength]
	if string(appendSum([]byte(body))) != t {
		return "", false
	}
	id = t[len(tokenPrefix):][:idLength]
	return id, ValidKeyID(id)
}

func appendSum(b []byte) []byte {
	n := crc32.ChecksumIEEE(b)
	var digits [sumLength]byte
	for i := sumLength - 1; i >= 0; i-- {
		digits[i] = base62[n%62]
		n /= 62
	}
	return append(b, digits[:]...)
}

// appendRandom appends n digits, each equally likely: bytes of 248 and above are
// thrown away.
func appendRandom(b []byte, n int) []byte {
	var buf [64]byte
	for n > 0 {
		rand.Read(buf[:]) // never fails: crypto/rand ends the process instead
		for _, c := range buf {
			if c < 248 && n > 0 {
				b = append(b, base62[c%62])
				n--
			}
		}
	}
	return b
}
