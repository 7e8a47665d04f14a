package code

import (
	"crypto/aes"
	"math/rand/v2"
	"testing"
)

// TestLanes: encryptLanes is AES-128.
func TestLanes(t *testing.T) {
	if !useLanes {
		t.Skip("this processor has no AES")
	}
	r := rand.NewChaCha8([32]byte{1})
	for range 1000 {
		var key [16]byte
		var in, out, want [lanes][aes.BlockSize]byte
		_, _ = r.Read(key[:]) // it never fails
		block, err := aes.NewCipher(key[:])
		if err != nil {
			t.Fatal(err)
		}
		for i := range in {
			_, _ = r.Read(in[i][:])
			block.Encrypt(want[i][:], in[i][:])
		}
		if encryptLanes(expandKey(key[:]), &out, &in); out != want {
			t.Fatalf("key %x, blocks %x: got %x, want %x", key, in, out, want)
		}
	}
}

// TestAppendAllTail: whatever the number of indexes, their codes are those that single calls give.
func TestAppendAllTail(t *testing.T) {
	for _, lanesOn := range []bool{true, false} {
		p := mustPerm(t, testKey(1), "base62", 7)
		if !lanesOn {
			p.keys = nil
		}
		e := p.NewEncoder()
		for n := range 3*lanes + 1 {
			var indexes []uint64
			want := "before"
			for i := range n {
				indexes = append(indexes, uint64(i)*7919)
				want += string(p.AppendCode(nil, indexes[i]))
			}
			if got := string(e.AppendAll([]byte("before"), indexes)); got != want {
				t.Fatalf("%d codes: %q, want %q", n, got, want)
			}
		}
	}
}
