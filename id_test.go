package terse

import (
	"strings"
	"testing"
)

func TestClickID(t *testing.T) {
	for _, c := range []ClickID{{}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, {0x01, 0x93, 1, 2, 3, 4, 0x70, 3, 0xbf, 6, 7, 8, 9, 10, 11, 255}} {
		s := c.String()
		got, err := ParseClickID(s)
		if err != nil || got != c || len(s) != len("click_")+26 {
			t.Errorf("%s: %x, %v", s, got, err)
		}
	}
	at := ClickID{0x01, 0x93, 0x01, 0x02, 0x03, 0x04, 0x70}
	if at.Time() != 0x019301020304 {
		t.Errorf("time %d", at.Time())
	}
	if a, b := (ClickID{1}).String(), (ClickID{2}).String(); a >= b {
		t.Errorf("%s sorts after %s", a, b)
	}
	for _, s := range []string{"", "click_", "link_0000000000000", "click_8" + strings.Repeat("0", 25), "click_" + strings.Repeat("u", 26), "click_" + strings.Repeat("0", 27), "click_0" + strings.Repeat("A", 25)} {
		if _, err := ParseClickID(s); ErrorCode(err) != CodeInvalid {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func FuzzParseClickID(f *testing.F) {
	f.Add("click_01kaq3v3s8x6m9c2f4h7j0n5pq")
	f.Add("click_zzzzzzzzzzzzzzzzzzzzzzzzzz")
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := ParseClickID(s); err == nil && c.String() != s {
			t.Errorf("%q is also written %q", s, c)
		}
	})
}
