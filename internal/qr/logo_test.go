package qr

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"strings"
	"testing"

	"github.com/terselink/terse"
)

// picture is a disc of strong colours on nothing, as logos are.
func picture(width, height int) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			dx, dy := 2*x-width, 2*y-height
			if dx*dx*height*height+dy*dy*width*width < width*width*height*height {
				img.SetNRGBA(x, y, color.NRGBA{R: uint8(255 * (x / 8 % 2)), B: 160, A: 255})
			}
		}
	}
	return img
}

func dataURL(t testing.TB, format string, img image.Image) string {
	t.Helper()
	var b bytes.Buffer
	var err error
	switch format {
	case "png":
		err = png.Encode(&b, img)
	case "jpeg":
		err = jpeg.Encode(&b, img, nil)
	case "gif":
		err = gif.Encode(&b, img, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return "data:image/" + format + ";base64," + base64.StdEncoding.EncodeToString(b.Bytes())
}

// webp is one white pixel (lossless).
const webp = "data:image/webp;base64,UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA=="

// TestLogoScan: a code with a logo is read in every format, at the levels that a logo may have.
func TestLogoScan(t *testing.T) {
	t.Parallel()
	for i, tc := range []struct {
		content string
		level   Level
		logo    string
		size    string
	}{
		{"https://go.example.com/aB3dE5g" + ScanMark, High, dataURL(t, "png", picture(64, 64)), ""},
		{"https://go.example.com/aB3dE5g" + ScanMark, Quartile, dataURL(t, "png", picture(64, 64)), ""},
		{"HTTP://G.CO/7", High, dataURL(t, "gif", picture(40, 20)), "256"}, // the smallest code
		{"https://go.example.com/" + strings.Repeat("lang-", 16) + ScanMark, High, dataURL(t, "jpeg", picture(30, 90)), "1024"},
		{"https://go.example.com/" + strings.Repeat("lang-", 16) + ScanMark, Quartile, dataURL(t, "png", picture(600, 100)), "800"},
		{"https://go.example.com/x" + ScanMark, High, webp, "400"},
	} {
		logo, err := ParseLogo(tc.logo)
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		for _, f := range []Format{PNG, SVG, PDF} {
			t.Run(fmt.Sprintf("%d/%s", i, f), func(t *testing.T) {
				t.Parallel()
				s := mustStyle(t, tc.size, "", "", "")
				plain := draw(t, tc.content, tc.level, f, s)
				s.Logo = logo
				drawing := draw(t, tc.content, tc.level, f, s)
				if bytes.Equal(drawing, plain) {
					t.Error("the logo changes nothing")
				}
				if !bytes.Equal(drawing, draw(t, tc.content, tc.level, f, s)) {
					t.Error("equal parameters give other bytes")
				}
				if got := scan(t, f, drawing); got != tc.content {
					t.Errorf("read %q; want %q", got, tc.content)
				}
			})
		}
	}
}

// TestLogoIsDrawn: the middle of the drawing has the colour of the logo, and the corner that of the code.
func TestLogoIsDrawn(t *testing.T) {
	t.Parallel()
	img := image.NewUniform(color.NRGBA{R: 200, G: 10, B: 20, A: 255})
	square := image.NewNRGBA(image.Rect(0, 0, 16, 16))
	for i := 0; i < len(square.Pix); i += 4 {
		copy(square.Pix[i:], []byte{200, 10, 20, 255})
	}
	s := mustStyle(t, "500", "", "", "")
	var err error
	if s.Logo, err = ParseLogo(dataURL(t, "png", square)); err != nil {
		t.Fatal(err)
	}
	got, err := png.Decode(bytes.NewReader(draw(t, "https://go.example.com/aB3dE5g", High, PNG, s)))
	if err != nil {
		t.Fatal(err)
	}
	if r, g, b, _ := got.At(250, 250).RGBA(); r>>8 != 200 || g>>8 != 10 || b>>8 != 20 {
		t.Errorf("the middle is %v, want %v", got.At(250, 250), img.C)
	}
	if r, _, _, _ := got.At(2, 2).RGBA(); r>>8 != 255 {
		t.Errorf("the margin is %v", got.At(2, 2))
	}
}

func TestParseLogoRefuses(t *testing.T) {
	t.Parallel()
	for _, logo := range []string{
		"", "brand", "https://example.com/logo.png", "data:", "data:image/png", "data:image/png;base64,", "data:image/png;base64,AAAA", "data:image/png;base64,@",
		"data:text/html;base64,AAAA", "data:image/svg+xml;base64,PHN2Zy8+", "data:image/bmp;base64,AAAA",
		strings.Replace(dataURL(t, "gif", picture(8, 8)), "image/gif", "image/png", 1), // says what it is not
		dataURL(t, "png", picture(64, 64))[:80],                                        // cut
		strings.ReplaceAll(webp, "+", " ") + " ",
		"data:image/png;base64," + strings.Repeat("A", MaxLogo),
		bomb(t),
	} {
		_, err := ParseLogo(logo)
		var e *terse.Error
		if !errors.As(err, &e) || e.Code != terse.CodeInvalid || e.Field != "logo" {
			t.Errorf("%.40q: %v", logo, err)
		}
	}
}

// bomb is a PNG that promises 60,000 × 60,000 pixels.
func bomb(t testing.TB) string {
	t.Helper()
	text := dataURL(t, "png", picture(8, 8))
	b, err := base64.StdEncoding.DecodeString(text[strings.IndexByte(text, ',')+1:])
	if err != nil {
		t.Fatal(err)
	}
	binary.BigEndian.PutUint32(b[16:], 60_000)
	binary.BigEndian.PutUint32(b[20:], 60_000)
	binary.BigEndian.PutUint32(b[29:], crc32.ChecksumIEEE(b[12:29]))
	return "data:image/png;base64," + base64.StdEncoding.EncodeToString(b)
}

func FuzzParseLogo(f *testing.F) {
	for _, s := range []string{"", "brand", webp, dataURL(f, "png", picture(8, 8)), dataURL(f, "gif", picture(8, 4)), dataURL(f, "jpeg", picture(4, 8)), bomb(f)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseLogo(text)
		if err != nil {
			return
		}
		if size := l.img.Bounds().Size(); size.X < 1 || size.Y < 1 || size.X > logoSide || size.Y > logoSide {
			t.Errorf("a logo of %v pixels", size)
		}
	})
}
