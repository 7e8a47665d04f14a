package code

import (
	"crypto/aes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// slowCode is docs/format/codes.md, written down as it stands there, with
// arbitrary-precision integers and nothing of the package but the digits: it
// checks that the vectors are the specification, not merely what the code does.
func slowCode(key []byte, alphabet, digits string, length int, index uint64) string {
	size := big.NewInt(int64(len(digits)))
	n := new(big.Int).Exp(size, big.NewInt(int64(length)), nil)
	a := new(big.Int).Sqrt(n)
	if new(big.Int).Mul(a, a).Cmp(n) < 0 {
		a.Add(a, big.NewInt(1))
	}
	b := new(big.Int).Add(n, a) // ceil(n/a) = (n + a - 1) / a
	b.Sub(b, big.NewInt(1))
	b.Div(b, a)

	// HKDF-SHA256 (RFC 5869), first block only: 16 bytes are needed.
	extract := hmac.New(sha256.New, []byte("terse"))
	extract.Write(key)
	expand := hmac.New(sha256.New, extract.Sum(nil))
	expand.Write([]byte("code-perm/v1|" + alphabet + "|" + strconv.Itoa(length)))
	expand.Write([]byte{1})
	block, err := aes.NewCipher(expand.Sum(nil)[:16])
	if err != nil {
		panic(err)
	}
	f := func(r int, x, m *big.Int) *big.Int {
		in := binary.LittleEndian.AppendUint64([]byte("tersePv1"), x.Uint64()+uint64(r)*(1<<56))
		out := make([]byte, 16)
		block.Encrypt(out, in)
		v := new(big.Int).SetUint64(binary.LittleEndian.Uint64(out[:8]))
		return v.Rsh(v.Mul(v, m), 64)
	}

	y := new(big.Int).SetUint64(index)
	for {
		l, r := new(big.Int).DivMod(y, b, new(big.Int))
		for k := range 12 {
			if k%2 == 0 {
				l.Mod(l.Add(l, f(k, r, a)), a)
			} else {
				r.Mod(r.Add(r, f(k, l, b)), b)
			}
		}
		y.Add(y.Mul(l, b), r)
		if y.Cmp(n) < 0 {
			break
		}
	}
	code := make([]byte, length)
	for i := length - 1; i >= 0; i-- {
		var d *big.Int
		y, d = new(big.Int).DivMod(y, size, new(big.Int))
		code[i] = digits[d.Int64()]
	}
	return string(code)
}

func vectorKeys() [][]byte {
	counting := make([]byte, KeySize)
	for i := range counting {
		counting[i] = byte(i)
	}
	random := sha256.Sum256([]byte("terse code vectors"))
	return [][]byte{counting, testKey(0xff), random[:]}
}

// vectorIndexes returns the indexes whose codes are recorded: the ends, numbers spread
// over the space, and where there is one early enough an index that walks.
func vectorIndexes(p *Permutation) []uint64 {
	indexes := []uint64{0, 1, 2, 3, 4, 5, 6, 7, p.n/2 - 1, p.n / 2, p.n - 2, p.n - 1}
	for i := range 44 {
		h := sha256.Sum256([]byte(fmt.Sprintf("%s|%d|%d", p.alphabet.name, p.length, i)))
		indexes = append(indexes, binary.BigEndian.Uint64(h[:])%p.n)
	}
	if i, ok := firstWalk(p, 300_000); ok {
		indexes = append(indexes, i)
	}
	return indexes
}

// firstWalk returns the first index that needs a second pass of the network.
func firstWalk(p *Permutation, limit uint64) (uint64, bool) {
	if p.a*p.b == p.n || p.n > 1e9 { // none, or too rare to look for
		return 0, false
	}
	// The same network without the bound: a walk is a result at or above n.
	open := &Permutation{n: p.a * p.b, a: p.a, b: p.b, length: p.length, alphabet: p.alphabet, block: p.block}
	e := open.NewEncoder()
	for i := range limit {
		if e.permute(i) >= p.n {
			return i, true
		}
	}
	return 0, false
}

func renderVectors(t *testing.T, a *Alphabet) (text string, walks int) {
	var b strings.Builder
	fmt.Fprintf(&b, "# Golden vectors of docs/format/codes.md: length, index, code.\n")
	fmt.Fprintf(&b, "perm_version %d\nalphabet %s %s\n", PermVersion, a.Name(), a.Digits())
	for _, key := range vectorKeys() {
		fmt.Fprintf(&b, "key %x\n", key)
		for l := a.MinLength(); l <= a.MaxLength(); l++ {
			p := mustPerm(t, key, a.Name(), l)
			indexes := vectorIndexes(p)
			if len(indexes) > 56 {
				walks++
			}
			for _, i := range indexes {
				fmt.Fprintf(&b, "%d %d %s\n", l, i, p.AppendCode(nil, i))
			}
		}
	}
	return b.String(), walks
}

// TestVectors fails if a code differs from what this PermVersion has always given.
// -update adds files for new alphabets and new versions; it does not change a
// vector of the present version.
func TestVectors(t *testing.T) {
	walks := 0
	for _, a := range alphabets {
		file := filepath.Join("testdata", "vectors", a.Name()+".txt")
		got, w := renderVectors(t, a)
		walks += w
		want, err := os.ReadFile(file)
		if *update && (os.IsNotExist(err) || err == nil && !strings.Contains(string(want), fmt.Sprintf("perm_version %d\n", PermVersion))) {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: codes differ from those of perm_version %d. Codes that are printed on paper do not change: "+
				"make a new version, or take the change back", file, PermVersion)
		}
	}
	if walks < 4 {
		t.Errorf("only %d vectors walk: the cycle walk is not covered", walks)
	}
}

// TestVectorsAreTheSpecification recomputes every recorded vector by slowCode, and reads
// it back by Index.
func TestVectorsAreTheSpecification(t *testing.T) {
	for _, a := range alphabets {
		t.Run(a.Name(), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(filepath.Join("testdata", "vectors", a.Name()+".txt"))
			if err != nil {
				t.Fatal(err)
			}
			var name, digits string
			var key []byte
			count := 0
			for line := range strings.Lines(string(data)) {
				f := strings.Fields(line)
				switch f[0] {
				case "#", "perm_version":
				case "alphabet":
					name, digits = f[1], f[2]
				case "key":
					if key, err = hex.DecodeString(f[1]); err != nil {
						t.Fatal(err)
					}
				default:
					length, err1 := strconv.Atoi(f[0])
					index, err2 := strconv.ParseUint(f[1], 10, 64)
					if err1 != nil || err2 != nil {
						t.Fatalf("line %q", line)
					}
					if want := slowCode(key, name, digits, length, index); want != f[2] {
						t.Fatalf("%s: the specification gives %s", strings.TrimSpace(line), want)
					}
					if i, ok := mustPerm(t, key, name, length).Index([]byte(f[2])); !ok || i != index {
						t.Fatalf("%s: reads as %d, %t", strings.TrimSpace(line), i, ok)
					}
					count++
				}
			}
			if count < 1000 {
				t.Errorf("%d vectors, want at least 1000", count)
			}
		})
	}
}

// TestFormatDocument: the digits that the specification lists are the ones in use.
func TestFormatDocument(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "format", "codes.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{fmt.Sprintf("perm_version %d", PermVersion), fmt.Sprintf("`words_version` %d", WordsVersion)} {
		if !strings.Contains(string(doc), want) {
			t.Errorf("the document does not say %q", want)
		}
	}
	for _, a := range alphabets {
		if row := fmt.Sprintf("| `%s` | `%s` |", a.Name(), a.Digits()); !strings.Contains(string(doc), row) {
			t.Errorf("the document lacks the row %s", row)
		}
	}
}
