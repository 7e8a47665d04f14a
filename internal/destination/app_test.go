package destination

import (
	"errors"
	"strings"
	"testing"

	"github.com/terselink/terse"
)

func TestCheckSchemes(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"myapp": "myapp", "MyApp,zap,myapp": "myapp zap", "com.example.app": "com.example.app", "a+b-c.1": "a+b-c.1", "": "",
	} {
		var list []string
		if in != "" {
			list = strings.Split(in, ",")
		}
		got, err := CheckSchemes("app_schemes", list)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, bad := range []string{"a", "1app", "my app", "myapp:", "myapp://", "my_app", "mäpp", strings.Repeat("a", 33), "", " myapp",
		"javascript", "JavaScript", "data", "vbscript", "file", "blob", "intent", "about", "http", "https", "tel", "sms", "mailto", "view-source", "content", "ms-word", "filesystem", "ftp", "ws"} {
		if got, err := CheckSchemes("app_schemes", []string{"fine", bad}); !strings.HasPrefix(fieldOf(err), "app_schemes[1]") {
			t.Errorf("%q: %q, %v", bad, got, err)
		}
	}
	if _, err := CheckSchemes("app_schemes", make([]string, MaxSchemes+1)); err == nil {
		t.Error("too many schemes")
	}
}

func TestParseApp(t *testing.T) {
	t.Parallel()
	schemes := []string{"myapp", "com.example.app"}
	serves := func(host string) bool { return host == "go.example.com" }
	for in, want := range map[string]string{
		"https://example.com/a": "https://example.com/a", "HTTP://EXAMPLE.com": "http://example.com", "myapp://item/7?x=1#f": "myapp://item/7?x=1#f",
		"MYAPP://Item": "myapp://Item", " myapp://x ": "myapp://x", "myapp://": "myapp://", "com.example.app://o/é ü": "com.example.app://o/%C3%A9%20%C3%BC",
		"myapp:///deep": "myapp:///deep",
	} {
		got, err := ParseApp("ios_destination", in, serves, schemes)
		if err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
		if IsApp(got) != strings.Contains(want, "app://") {
			t.Errorf("%q is an app's: %v", got, IsApp(got))
		}
	}
	for _, in := range []string{
		"", "other://x", "myapp:x", "javascript://%0aalert(1)", "JavaScript://x", "data://x", "intent://x#Intent;scheme=myapp;end", "java\tscript://x", "\tjavascript://x",
		"myapp://a\r\nb", "myapp://a\x00", "myapp://\xff", "myapp://user:pw@host/", `myapp://a\b`, "https://user@example.com/", "https://go.example.com/x", "//example.com", "myapp ://x",
		"myapp://" + strings.Repeat("x", MaxLen), "myapp://" + strings.Repeat("é", MaxLen/4),
	} {
		if got, err := ParseApp("ios_destination", in, serves, schemes); err == nil || terse.ErrorCode(err) != terse.CodeInvalid {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

// FuzzParseApp: whatever comes out is safe in a header, of an allowed scheme, and comes out of itself again.
func FuzzParseApp(f *testing.F) {
	for _, s := range []string{"myapp://x?y#z", "https://example.com/", "MYAPP://é", "javascript://x", "myapp:\t//x", "myapp://a\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseApp("f", s, nil, []string{"myapp"})
		if err != nil {
			return
		}
		for i := range len(got) {
			if got[i] < 0x21 || got[i] > 0x7e {
				t.Fatalf("%q has byte %#x", got, got[i])
			}
		}
		if !strings.HasPrefix(got, "myapp://") && !strings.HasPrefix(got, "http://") && !strings.HasPrefix(got, "https://") {
			t.Fatalf("%q", got)
		}
		if again, err := ParseApp("f", got, nil, []string{"myapp"}); err != nil || again != got {
			t.Fatalf("%q becomes %q, %v", got, again, err)
		}
	})
}

// fieldOf returns the field that an error names, "" for any other error and for none.
func fieldOf(err error) string {
	if e, ok := errors.AsType[*terse.Error](err); ok {
		return e.Field
	}
	return ""
}
