package code

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
	"testing"
)

// TestWordsVersion: the list of a version never changes, because the indexes that
// were skipped follow from it.
func TestWordsVersion(t *testing.T) {
	const version, want = 1, "54ef60fe2bb5f82d81bc8351d16a059ef7597919f07c5bccda28d22293d7cb11"
	sum := sha256.Sum256([]byte(strings.Join(words.all, "\n")))
	if got := hex.EncodeToString(sum[:]); WordsVersion != version || got != want {
		t.Errorf("version %d has list %s; want version %d, list %s. A new list is a new WordsVersion", WordsVersion, got, version, want)
	}
}

func TestWordList(t *testing.T) {
	valid := regexp.MustCompile(`^[a-z]{3,7}$`)
	for i, w := range words.all {
		if !valid.MatchString(w) {
			t.Errorf("%q is not 3 to 7 letters of a to z", w)
		}
		for j, v := range words.all {
			if i != j && strings.Contains(w, v) {
				t.Errorf("%q contains %q", w, v)
			}
		}
		for _, form := range []string{w, strings.ToUpper(w), "2" + w, w + "2", "Q9" + w, strings.NewReplacer("o", "0", "i", "1", "e", "3", "a", "4", "s", "5", "t", "7").Replace(w) + "x"} {
			if !Blocked([]byte(form)) {
				t.Errorf("%q passes", form)
			}
		}
	}
	if len(words.all) < 300 {
		t.Errorf("%d words", len(words.all))
	}
}

func TestBlocked(t *testing.T) {
	for _, tt := range []struct {
		code string
		want bool
	}{
		{"", false}, {"a", false}, {"as", false},
		{"aB3dE5g", false}, {"0000000", false}, {"zzzzzzz", false},
		{"ShIt123", true}, {"xx5h17x", true}, {"x5h1tx", true}, {"FuCkab9", true},
		{"f2uck", false},             // the 2 parts it
		{"fuc", false}, {"k", false}, // a beginning alone
		{"healthz", true}, {"readyz", true}, {"HEALTHZ", true},
		{"a55b2c9", true}, {"4553579", false}, {"455357x", true}, // digits alone are a number
		{"\xff\x00\x80abc", false},
	} {
		if got := Blocked([]byte(tt.code)); got != tt.want {
			t.Errorf("Blocked(%q) = %t", tt.code, got)
		}
	}
}

// TestBlockedAgainstSearch compares with a search that is plainly right.
func TestBlockedAgainstSearch(t *testing.T) {
	undo := strings.NewReplacer("0", "o", "1", "i", "3", "e", "4", "a", "5", "s", "7", "t")
	plainly := func(code string) bool {
		if strings.Trim(code, "0123456789") == "" {
			return false
		}
		text := undo.Replace(strings.ToLower(code))
		for _, w := range words.all {
			if strings.Contains(text, w) {
				return true
			}
		}
		return false
	}
	for _, name := range []string{"base62", "crockford32", "digits"} {
		p := mustPerm(t, testKey(8), name, 8)
		blocked := 0
		for i := range uint64(20_000) {
			c := p.AppendCode(nil, i)
			got := Blocked(c)
			if got != plainly(string(c)) {
				t.Fatalf("Blocked(%q) = %t", c, got)
			}
			if got {
				blocked++
			}
		}
		if (blocked == 0) != (name == "digits") {
			t.Errorf("%s: %d blocked", name, blocked)
		}
	}
}

// TestBlockedLoss states what the list costs: the share of indexes that are skipped.
func TestBlockedLoss(t *testing.T) {
	count := uint64(1_000_000)
	if testing.Short() {
		count = 100_000
	}
	for _, a := range alphabets {
		length := max(7, a.MinLength())
		p := mustPerm(t, testKey(8), a.Name(), length)
		e := p.NewEncoder()
		blocked := 0
		var c []byte
		for i := range count {
			if c = e.Append(c[:0], i); Blocked(c) {
				blocked++
			}
		}
		loss := 100 * float64(blocked) / float64(count)
		t.Logf("%s, %d characters: %.3f %%", a.Name(), length, loss)
		if loss > 2 {
			t.Errorf("%s: the list costs %.2f %% of the indexes, want at most 2 %%", a.Name(), loss)
		}
	}
}
