package api_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"image"
	"image/png"
	neturl "net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// scanPNG reads a code with zbar, which knows nothing of how it was made.
func scanPNG(t *testing.T, drawing []byte) string {
	t.Helper()
	if _, err := exec.LookPath("zbarimg"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("zbarimg is missing")
		}
		t.Skip("zbarimg is missing: Debian package zbar-tools")
	}
	file := filepath.Join(t.TempDir(), "code.png")
	if err := os.WriteFile(file, drawing, 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := exec.CommandContext(t.Context(), "zbarimg", "-q", "--raw", file).Output()
	if err != nil {
		t.Fatalf("zbar cannot read the code: %v", err)
	}
	return strings.TrimSuffix(string(text), "\n")
}

func TestQR(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.want(201, request{method: "POST", path: "/api/v1/domains", body: `{"host":"fold.example.com","alphabet":"crockford32"}`})
	make := func(body string) string {
		return "/api/v1/links/" + b.want(201, request{method: "POST", path: "/api/v1/links", body: body}).text(t, "id") + "/qr"
	}
	plain := make(`{"destination":"https://example.com/","code":"Summer-ü"}`)
	folded := make(`{"destination":"https://example.com/","domain":"fold.example.com","code":"summer"}`)
	for _, tc := range []struct{ path, want string }{
		{plain + "?format=png", "http://localhost:8080/Summer-%C3%BC?qr=1"},
		{plain + "?format=png&mark=true&size=300&margin=6&fg=1b1f24&bg=%23f6f7f9&ecc=h", "http://localhost:8080/Summer-%C3%BC?qr=1"},
		{plain + "?format=png&mark=false", "http://localhost:8080/Summer-%C3%BC"},
		{folded + "?format=png", "https://fold.example.com/summer?qr=1"},
		{folded + "?format=png&mark=false", "HTTPS://FOLD.EXAMPLE.COM/SUMMER"},
	} {
		if got := scanPNG(t, b.want(200, request{method: "GET", path: tc.path}).body); got != tc.want {
			t.Errorf("%s reads %q; want %q", tc.path, got, tc.want)
		}
	}

	for format, contentType := range map[string]string{"": "image/svg+xml", "svg": "image/svg+xml", "png": "image/png", "pdf": "application/pdf"} {
		a := b.want(200, request{method: "GET", path: plain + "?format=" + format})
		tag := a.header.Get("ETag")
		if got := a.header.Get("Content-Type"); got != contentType || tag == "" || a.header.Get("Cache-Control") != "private, no-cache" {
			t.Errorf("format %q: headers %v", format, a.header)
		}
		for _, header := range []string{tag, "W/" + tag, `"other", ` + tag, "*"} {
			again := b.want(304, request{method: "GET", path: plain + "?format=" + format, header: map[string]string{"If-None-Match": header}})
			if len(again.body) != 0 || again.header.Get("ETag") != tag {
				t.Errorf("304 with %d bytes, tag %s", len(again.body), again.header.Get("ETag"))
			}
		}
		other := b.want(200, request{method: "GET", path: plain + "?ecc=L&format=" + format, header: map[string]string{"If-None-Match": tag}})
		if bytes.Equal(other.body, a.body) || other.header.Get("ETag") == tag {
			t.Errorf("format %q: another drawing has the same tag", format)
		}
	}
	img, err := png.DecodeConfig(bytes.NewReader(b.want(200, request{method: "GET", path: plain + "?format=png&size=777"}).body))
	if err != nil || img.Width != 777 || img.Height != 777 {
		t.Errorf("%+v, %v", img, err)
	}
}

// TestQRLogo: the logo of the domain's brand, and one that the request brings, are drawn and the code is read.
func TestQRLogo(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	var logo bytes.Buffer
	if err := png.Encode(&logo, image.NewGray(image.Rect(0, 0, 32, 32))); err != nil {
		t.Fatal(err)
	}
	url := "data:image/png;base64," + base64.StdEncoding.EncodeToString(logo.Bytes())
	b.want(201, request{method: "POST", path: "/api/v1/domains", body: `{"host":"acme.example.com","brand":{"name":"Acme","logo":"` + url + `"}}`})
	path := "/api/v1/links/" + b.want(201, request{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","domain":"acme.example.com","code":"summer"}`}).text(t, "id") + "/qr?format=png"
	plain := b.want(200, request{method: "GET", path: path + "&ecc=H"}).body
	brand := b.want(200, request{method: "GET", path: path + "&logo=brand"}).body
	own := b.want(200, request{method: "GET", path: path + "&logo=" + neturl.QueryEscape(url)}).body
	if bytes.Equal(plain, brand) || !bytes.Equal(brand, own) {
		t.Errorf("%d bytes without a logo, %d with the brand's, %d with the same one of the request", len(plain), len(brand), len(own))
	}
	if got := scanPNG(t, brand); got != "https://acme.example.com/summer?qr=1" {
		t.Errorf("read %q", got)
	}
}

func TestQRRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	path := "/api/v1/links/" + b.want(201, request{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/"}`}).text(t, "id") + "/qr"
	for query, field := range map[string]string{
		"format=gif": "format", "size=10": "size", "size=999999999": "size", "size=a": "size", "margin=-1": "margin", "ecc=Z": "ecc",
		"fg=red": "fg", "bg=%22%3E": "bg", "fg=ffffff&bg=000000": "fg", "fg=999999": "fg", "mark=maybe": "mark",
		"logo=https://example.com/logo.png": "logo", "logo=brand": "logo", "logo=data:image/svg%2Bxml;base64,AAAA": "logo", "logo=data:image/png;base64,AAAA": "logo",
		"ecc=M&logo=brand": "ecc", "colour=red": "colour", "format=png&size=32&ecc=H": "size",
	} {
		a := b.want(422, request{method: "GET", path: path + "?" + query})
		if want := fmt.Sprintf(`"location":"query.%s"`, field); !strings.Contains(string(a.body), want) {
			t.Errorf("%s: %s; want %s", query, a.body, want)
		}
	}
	b.want(404, request{method: "GET", path: "/api/v1/links/nonsense/qr"})
	b.want(401, request{method: "GET", path: path, key: "-"})
}
