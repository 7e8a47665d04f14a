package app

import "testing"

// TestNodeURL: a control plane that listens where nobody else can be has no URL, unless one is given.
func TestNodeURL(t *testing.T) {
	t.Parallel()
	for _, c := range [][3]string{
		{"", "127.0.0.1:8081", ""},
		{"", "[::1]:8081", ""},
		{"", "0.0.0.0:8081", ""},
		{"", "[::]:8081", ""},
		{"", "169.254.1.1:8081", ""},
		{"", "[fe80::1%eth0]:8081", ""},
		{"", "10.0.0.5:8081", "http://10.0.0.5:8081"},
		{"", "[fd00::5]:8081", "http://[fd00::5]:8081"},
		{"https://a.internal/", "127.0.0.1:8081", "https://a.internal"},
		{"http://10.0.0.6:1", "10.0.0.5:8081", "http://10.0.0.6:1"},
	} {
		if got := nodeURL(c[0], c[1]); got != c[2] {
			t.Errorf("%q at %s: %q, want %q", c[0], c[1], got, c[2])
		} else if want := c[0] == "" && got != ""; inClear(c[0], got) != want {
			t.Errorf("%q at %s: a notice is %t, want %t", c[0], c[1], !want, want)
		}
	}
}
