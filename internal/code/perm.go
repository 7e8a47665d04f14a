package code

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"sync"

	"github.com/terselink/terse"
)

// PermVersion is the version of the permutation. Its definition is
// docs/format/codes.md and its values are testdata/vectors: whatever would change
// one of them is a new version, and so a new code space, never a silent change.
const PermVersion = 1

// KeySize is the length of a permutation key in bytes.
const KeySize = 32

const (
	// rounds of the Feistel network. Attacks are known up to 6; FF1 has 10. Two
	// more cost a sixth of the time (docs/codes.md says why 12).
	rounds = 12
	// tweak starts every AES block, so that the key serves no other purpose by accident.
	tweak = "tersePv1"
	// maxDigits is the longest code of any alphabet.
	maxDigits = 18
)

// Permutation maps the indexes of one code space to codes and back: a balanced
// Feistel network over Z_a x Z_b with AES-128 as its round function, restricted to
// exactly [0, N) by cycle walking. Safe for many goroutines.
type Permutation struct {
	n, a, b  uint64 // a is the least integer with a*a >= n, b = ceil(n/a)
	length   int
	alphabet *Alphabet
	block    cipher.Block
	keys     *laneKeys // for encryptLanes; nil: block does it
	encoders sync.Pool // of *Encoder
}

// NewPermutation returns the permutation of the codes of a length in an alphabet under
// a key of KeySize bytes. Keys for other alphabets and lengths are derived from
// the same key and are independent of each other. Returns an error of code
// invalid, field "perm_key" or "code_length".
func NewPermutation(key []byte, a *Alphabet, length int) (*Permutation, error) {
	if len(key) != KeySize {
		return nil, terse.Invalid("perm_key", "must have %d bytes, has %d", KeySize, len(key))
	}
	if length < a.min || length > a.max {
		return nil, terse.Invalid("code_length", "must be %d to %d for alphabet %s", a.min, a.max, a.name)
	}
	n, ok := power(uint64(a.Len()), length)
	if !ok {
		return nil, &terse.Error{Code: terse.CodeInternal, Op: "make permutation", Message: "the code space has more than 63 bits"}
	}
	info := "code-perm/v1|" + a.name + "|" + strconv.Itoa(length)
	k, err := hkdf.Key(sha256.New, key, []byte("terse"), info, 16)
	if err != nil {
		return nil, fmt.Errorf("derive permutation key: %w", err)
	}
	return newPermutation(k, a, length, n)
}

// newPermutation returns a permutation of any n >= 1 below 2^63; tests use it
// for sizes that are no power.
func newPermutation(k []byte, alphabet *Alphabet, length int, n uint64) (*Permutation, error) {
	block, err := aes.NewCipher(k)
	if err != nil {
		return nil, fmt.Errorf("make round function: %w", err)
	}
	a := ceilSqrt(n)
	p := &Permutation{n: n, a: a, b: (n-1)/a + 1, length: length, alphabet: alphabet, block: block}
	if useLanes {
		p.keys = expandKey(k)
	}
	p.encoders.New = func() any { return p.NewEncoder() }
	return p, nil
}

// N returns the number of codes, A^L: indexes are 0 to N-1.
func (p *Permutation) N() uint64 { return p.n }

// Length returns the number of characters of every code.
func (p *Permutation) Length() int { return p.length }

// Alphabet returns the alphabet of the codes.
func (p *Permutation) Alphabet() *Alphabet { return p.alphabet }

// AppendCode appends the code of an index, Length characters. It panics if the
// index is not below N: indexes come from a lease, whose cap is at most N.
//
// Hot path: 0 allocs/op, see TestAllocs. For many codes in a row an Encoder is faster.
func (p *Permutation) AppendCode(dst []byte, index uint64) []byte {
	e := p.encoders.Get().(*Encoder)
	dst = e.Append(dst, index)
	p.encoders.Put(e)
	return dst
}

// Index returns the index of a code in canonical form. It reports false if the
// code is not of this shape: another length, or a character that is not of the
// alphabet. Every code of the shape has an index, whether it was issued or not.
//
// Hot path: 0 allocs/op, see TestAllocs.
func (p *Permutation) Index(code []byte) (uint64, bool) {
	if len(code) != p.length {
		return 0, false
	}
	y, base := uint64(0), uint64(p.alphabet.Len())
	for _, c := range code {
		v := p.alphabet.value[c]
		if v == noDigit {
			return 0, false
		}
		y = y*base + uint64(v)
	}
	if y >= p.n { // only sizes that are no power
		return 0, false
	}
	e := p.encoders.Get().(*Encoder)
	i := e.invert(y)
	p.encoders.Put(e)
	return i, true
}

// CheckCodes returns the codes of the indexes 0 to 7. They are stored with the
// space: codes that differ under the key at hand mean that the key is wrong, and a wrong
// key would lead visitors to the links of others.
func (p *Permutation) CheckCodes() []string {
	codes := make([]string, 8)
	for i := range codes {
		codes[i] = string(p.AppendCode(nil, uint64(i)))
	}
	return codes
}

// Cap returns how many indexes of a space of n codes are issued before the domain
// grows: floor(n*density), at least 1 and never more than n or than an index of a
// terse.LinkNumber can count. A density outside (0, 1] counts as 1.
func Cap(n uint64, density float64) uint64 {
	limit := min(n, terse.MaxIndex+1)
	if !(density > 0 && density < 1) { // also a NaN
		return limit
	}
	// Products near the limit, 2^38, are exact to far less than one index.
	c := math.Floor(float64(n) * density)
	if c >= float64(limit) {
		return limit
	}
	return max(1, uint64(c))
}

// power returns base^exp and whether it is below 2^63.
func power(base uint64, exp int) (uint64, bool) {
	n := uint64(1)
	for range exp {
		hi, lo := bits.Mul64(n, base)
		if hi != 0 || lo >= 1<<63 {
			return 0, false
		}
		n = lo
	}
	return n, true
}

// ceilSqrt returns the least a with a*a >= n, for 1 <= n < 2^63. math.Sqrt is
// off by one near 2^63; Newton's method on integers is exact.
func ceilSqrt(n uint64) uint64 {
	x := uint64(1) << ((bits.Len64(n) + 1) / 2) // x*x >= n
	for {
		y := (x + n/x) / 2
		if y >= x {
			break // x = floor(sqrt(n))
		}
		x = y
	}
	if x*x < n {
		x++
	}
	return x
}

// lanes is how many indexes an Encoder works on side by side: the AES blocks of
// one round do not wait for each other, so the processor overlaps them (lanes.go).
const lanes = 8

// Encoder makes many codes of one Permutation. It holds the scratch memory that
// the AES calls need, so it is for one goroutine at a time.
type Encoder struct {
	p   *Permutation
	in  [lanes][aes.BlockSize]byte // tweak, then the input of the round
	out [lanes][aes.BlockSize]byte
}

// NewEncoder returns an encoder for one goroutine.
func (p *Permutation) NewEncoder() *Encoder {
	e := &Encoder{p: p}
	for i := range e.in {
		copy(e.in[i][:], tweak)
	}
	return e
}

// Append appends the code of an index as AppendCode does.
//
// Hot path: 0 allocs/op, see TestAllocs.
func (e *Encoder) Append(dst []byte, index uint64) []byte {
	e.mustContain(index)
	return e.appendDigits(dst, e.permute(index))
}

// AppendAll appends the codes of all indexes, one after the other. It is the
// fastest way: several indexes are under way at once.
//
// Hot path: 0 allocs/op, see TestAllocs.
func (e *Encoder) AppendAll(dst []byte, indexes []uint64) []byte {
	var ys [lanes]uint64 // behind the last index: what it held before, as good as any
	for len(indexes) > 1 {
		n := copy(ys[:], indexes)
		for _, i := range ys[:n] {
			e.mustContain(i)
		}
		e.permuteLanes(&ys)
		for _, y := range ys[:n] {
			dst = e.appendDigits(dst, y)
		}
		indexes = indexes[n:]
	}
	for _, i := range indexes {
		dst = e.Append(dst, i)
	}
	return dst
}

func (e *Encoder) mustContain(index uint64) {
	if index >= e.p.n {
		panic(fmt.Sprintf("code: index %d is not below %d", index, e.p.n))
	}
}

// round is F_k(x, m) on lane 0: a number below m.
func (e *Encoder) round(k int, x, m uint64) uint64 {
	binary.LittleEndian.PutUint64(e.in[0][8:], x|uint64(k)<<56)
	e.p.block.Encrypt(e.out[0][:], e.in[0][:])
	hi, _ := bits.Mul64(binary.LittleEndian.Uint64(e.out[0][:]), m)
	return hi
}

// permute is the permutation of one index.
func (e *Encoder) permute(x uint64) uint64 {
	a, b := e.p.a, e.p.b
	for {
		l, r := x/b, x%b
		for k := 0; k < rounds; k += 2 {
			l = addMod(l, e.round(k, r, a), a)
			r = addMod(r, e.round(k+1, l, b), b)
		}
		x = l*b + r
		if x < e.p.n {
			return x
		}
	}
}

// invert is the inverse of permute.
func (e *Encoder) invert(y uint64) uint64 {
	a, b := e.p.a, e.p.b
	for {
		l, r := y/b, y%b
		for k := rounds - 2; k >= 0; k -= 2 {
			r = subMod(r, e.round(k+1, l, b), b)
			l = subMod(l, e.round(k, r, a), a)
		}
		y = l*b + r
		if y < e.p.n {
			return y
		}
	}
}

// permuteLanes replaces every x by permute(x). It is the same network, run round
// by round over all lanes; permute is its oracle in the tests.
func (e *Encoder) permuteLanes(xs *[lanes]uint64) {
	var l, r [lanes]uint64
	a, b := e.p.a, e.p.b
	for j, x := range xs {
		l[j] = x / b
		r[j] = x % b
	}
	for k := 0; k < rounds; k += 2 {
		e.roundLanes(k, &r, &l, a)
		e.roundLanes(k+1, &l, &r, b)
	}
	for j := range xs {
		y := l[j]*b + r[j]
		if y >= e.p.n { // rare: at most one in sqrt(N)
			y = e.permute(y)
		}
		xs[j] = y
	}
}

// roundLanes adds F_k(x, m) to y in every lane.
func (e *Encoder) roundLanes(k int, x, y *[lanes]uint64, m uint64) {
	for j := range x {
		binary.LittleEndian.PutUint64(e.in[j][8:], x[j]|uint64(k)<<56)
	}
	if e.p.keys != nil {
		encryptLanes(e.p.keys, &e.out, &e.in)
	} else {
		for j := range e.in {
			e.p.block.Encrypt(e.out[j][:], e.in[j][:])
		}
	}
	for j := range y {
		hi, _ := bits.Mul64(binary.LittleEndian.Uint64(e.out[j][:]), m)
		y[j] = addMod(y[j], hi, m)
	}
}

// appendDigits appends y as exactly Length digits, two at a time.
func (e *Encoder) appendDigits(dst []byte, y uint64) []byte {
	var buf [maxDigits]byte
	alphabet := e.p.alphabet
	square := uint64(len(alphabet.pairs))
	i := e.p.length
	for i >= 2 {
		q := y / square
		pair := alphabet.pairs[y-q*square]
		i -= 2
		buf[i], buf[i+1] = pair[0], pair[1]
		y = q
	}
	if i == 1 {
		buf[0] = alphabet.digits[y]
	}
	return append(dst, buf[:e.p.length]...)
}

// addMod returns x+y mod m for x, y < m < 2^63.
func addMod(x, y, m uint64) uint64 {
	x += y
	if x >= m {
		x -= m
	}
	return x
}

// subMod returns x-y mod m for x, y < m.
func subMod(x, y, m uint64) uint64 {
	if x < y {
		x += m
	}
	return x - y
}
