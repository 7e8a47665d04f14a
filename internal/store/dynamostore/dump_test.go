package dynamostore

import "testing"

func FuzzKeyCursor(f *testing.F) {
	for _, s := range []string{"", "2164.00", formatKeyCursor(single("1#abc")), "x", ".", "21.", "2164.0A"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if it, err := parseKeyCursor(s); err == nil && s != "" && formatKeyCursor(keyOf(it)) != s {
			t.Errorf("%q is read as another key: %q", s, formatKeyCursor(keyOf(it)))
		}
	})
}

// TestUnknownSetting: a link with a setting of a newer program is not read without it.
func TestUnknownSetting(t *testing.T) {
	it := linkKey(1, "abc").item()
	it["link_number"] = num(uint64(1)<<43 | 7<<38 | 1)
	it["settings"] = str(`{"title":"x"}`)
	if _, err := readLink(it); err != nil {
		t.Fatal(err)
	}
	it["settings"] = str(`{"title":"x","made_up":1}`)
	if _, err := readLink(it); err == nil {
		t.Fatal("a setting that is not known was left out")
	}
}
