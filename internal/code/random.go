package code

import "crypto/rand"

// Random appends length characters of the alphabet, each chosen independently and
// evenly by the system's cryptographic generator. It is what the classes of
// codes use that are not numbered: 22 characters of base62 hold 131 bits.
func Random(dst []byte, a *Alphabet, length int) []byte {
	// Bytes at or above the largest multiple of A are refused: the rest of the
	// division would prefer the first characters.
	limit := 256 - 256%a.Len()
	var buf [64]byte
	for length > 0 {
		rand.Read(buf[:]) // never fails: the process ends if the system has no randomness
		for _, c := range buf {
			if int(c) >= limit {
				continue
			}
			dst = append(dst, a.digits[int(c)%a.Len()])
			if length--; length == 0 {
				break
			}
		}
	}
	clear(buf[:])
	return dst
}

// RandomCodes appends n random codes of length characters, none of which Blocked
// refuses, and nothing between them. They may equal each other or codes that
// exist: only an insert that refuses a taken code makes them unique.
//
// Hot path of bulk: no allocation if dst has room, see TestRandomCodes.
func RandomCodes(dst []byte, a *Alphabet, length, n int) []byte {
	limit := 256 - 256%a.Len()
	var buf [1024]byte
	at := len(buf)
	for range n {
		start := len(dst)
		for len(dst) < start+length {
			if at == len(buf) {
				rand.Read(buf[:])
				at = 0
			}
			c := int(buf[at])
			if at++; c >= limit {
				continue
			}
			dst = append(dst, a.digits[c%a.Len()])
			if len(dst) == start+length && Blocked(dst[start:]) {
				dst = dst[:start]
			}
		}
	}
	clear(buf[:])
	return dst
}
