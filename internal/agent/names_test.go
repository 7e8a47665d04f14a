package agent

import (
	"slices"
	"testing"
)

// TestNames: what Parse says of the User-Agents of these tests is on the lists of names, which rules are held to.
func TestNames(t *testing.T) {
	t.Parallel()
	p := New(Options{})
	list := []string{
		"Mozilla/5.0 (Windows Phone 10.0; Android 6.0.1) Edge/15.15063", "Mozilla/5.0 (Linux; Tizen 2.3) AppleWebKit/537.3 SamsungBrowser/2.1", "Mozilla/5.0 (Web0S; Linux/SmartTV) Chrome/87",
		"Mozilla/5.0 (Mobile; Nokia_8110; rv:48.0) Gecko/48.0 Firefox/48.0 KAIOS/2.5", "Mozilla/5.0 (Phone; OpenHarmony 4.1) ArkWeb/4.1 Mobile", "Mozilla/5.0 (iPod touch; CPU iPhone OS 12_0 like Mac OS X)",
		"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) Chrome/119", "Mozilla/5.0 (X11; FreeBSD amd64; rv:109.0) Firefox/115.0", "Mozilla/5.0 (Windows NT 10.0; Trident/7.0; rv:11.0) like Gecko",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Version/17.1 Safari/605.1.15", "Mozilla/5.0 (Linux; Android 13) Chrome/116 Mobile", "Mozilla/5.0 (BlackBerry; U; BlackBerry 9900; en) AppleWebKit/534.11+ (KHTML, like Gecko) Version/7.1.0.346 Mobile Safari/534.11+",
		"Mozilla/5.0 (X11; Linux x86_64; rv:109.0) Gecko/20100101", "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15",
	}
	for _, b := range browserTokens {
		list = append(list, "Mozilla/5.0 (X11; Linux x86_64) "+b.token)
	}
	seen := map[string]bool{}
	for _, ua := range list {
		for _, platform := range []string{"", `"Windows"`, `"macOS"`, `"Linux"`, `"Android"`, `"iOS"`, `"Chrome OS"`, `"Chromium OS"`, `"Fuchsia"`} {
			info := p.Parse([]byte(ua), []byte(platform), false)
			seen[info.OS] = true
			if info.OS != "" && !slices.Contains(Systems(), info.OS) || info.Browser != "" && !slices.Contains(Browsers(), info.Browser) {
				t.Errorf("%q, %s: %q and %q are not on the lists", ua, platform, info.OS, info.Browser)
			}
		}
	}
	for _, name := range Systems() {
		if !seen[name] {
			t.Errorf("nothing here is %s", name)
		}
	}
}
