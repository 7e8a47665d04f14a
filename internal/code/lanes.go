package code

import (
	"crypto/aes"
	"math/bits"
)

// crypto/aes encrypts one block a call. A round of the Feistel network needs one for every lane, and a processor
// that has AES works on several at once if it gets them together: encryptLanes does that where there is an
// implementation (useLanes), crypto/aes everywhere else and for single codes. Both are AES-128; TestLanes
// compares them, and TestVectors the codes that come out.

// laneKeys are the keys of the rounds of AES-128 (FIPS 197, section 5.2).
type laneKeys [11][aes.BlockSize]byte

// expandKey returns the round keys of a key of 16 bytes.
func expandKey(key []byte) *laneKeys {
	var k laneKeys
	copy(k[0][:], key)
	constant := byte(1)
	for r := 1; r < len(k); r++ {
		last, next := &k[r-1], &k[r]
		for i := range 4 {
			next[i] = last[i] ^ sbox[last[12+(i+1)%4]]
		}
		next[0] ^= constant
		for i := 4; i < aes.BlockSize; i++ {
			next[i] = last[i] ^ next[i-4]
		}
		constant = double(constant)
	}
	return &k
}

// double multiplies by x in the field of AES.
func double(b byte) byte { return b<<1 ^ b>>7*0x1b }

// sbox is the substitution of AES (FIPS 197, section 5.1.1): p runs through all numbers but 0 in the field, q
// through their inverses.
var sbox = func() (s [256]byte) {
	for p, q := byte(1), byte(1); ; {
		s[p] = q ^ bits.RotateLeft8(q, 1) ^ bits.RotateLeft8(q, 2) ^ bits.RotateLeft8(q, 3) ^ bits.RotateLeft8(q, 4) ^ 0x63
		p ^= double(p) // times 3
		q ^= q << 1    // divided by 3
		q ^= q << 2
		q ^= q << 4
		q ^= q >> 7 * 0x09
		if p == 1 {
			break
		}
	}
	s[0] = 0x63
	return s
}()
