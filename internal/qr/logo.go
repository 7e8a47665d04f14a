package qr

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"image"
	"image/color"
	_ "image/gif"  // logos
	_ "image/jpeg" // logos
	"image/png"
	"strings"

	xdraw "golang.org/x/image/draw"
	_ "golang.org/x/image/webp" // logos

	"github.com/terselink/terse"
)

// Limits of a logo.
const (
	MaxLogo     = 8 << 10 // bytes of the data URL
	maxLogoSide = 2048    // pixels, as sent
	logoSide    = 512     // pixels, as drawn
)

// Logo is an image for the middle of a code.
type Logo struct {
	img *image.NRGBA
	png []byte // img
}

// ParseLogo reads a PNG, JPEG, GIF (its first image) or WebP from a data URL in base64. Returns an error of code
// invalid for field logo.
func ParseLogo(dataURL string) (*Logo, error) {
	if len(dataURL) > MaxLogo {
		return nil, terse.Invalid("logo", "longer than %d bytes", MaxLogo)
	}
	mediaType, text, ok := strings.Cut(strings.TrimPrefix(dataURL, "data:"), ";base64,")
	format, isImage := strings.CutPrefix(mediaType, "image/")
	if !ok || !isImage || !strings.HasPrefix(dataURL, "data:") {
		return nil, terse.Invalid("logo", "the logo is a data URL of an image in base64, such as data:image/png;base64,iVBORw0…")
	}
	if format != "png" && format != "jpeg" && format != "gif" && format != "webp" {
		return nil, terse.Invalid("logo", "the logo of a code is a PNG, JPEG, GIF or WebP")
	}
	data, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, terse.Invalid("logo", "the image is not in base64 (in a URL the sign + is %%2B)")
	}
	config, is, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil || is != format {
		return nil, terse.Invalid("logo", "the image cannot be read as %s", mediaType)
	}
	// Before the pixels: 8 KiB can promise a gigabyte of them.
	if config.Width < 1 || config.Height < 1 || config.Width > maxLogoSide || config.Height > maxLogoSide {
		return nil, terse.Invalid("logo", "the image has %d × %d pixels, at most %d × %d are drawn", config.Width, config.Height, maxLogoSide, maxLogoSide)
	}
	img, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, terse.Invalid("logo", "the image cannot be read as %s", mediaType)
	}
	l := &Logo{}
	size := img.Bounds().Size()
	if longest := max(size.X, size.Y); longest > logoSide {
		size = image.Pt(max(1, size.X*logoSide/longest), max(1, size.Y*logoSide/longest))
	}
	l.img = image.NewNRGBA(image.Rectangle{Max: size})
	xdraw.CatmullRom.Scale(l.img, l.img.Bounds(), img, img.Bounds(), xdraw.Src, nil)
	var b bytes.Buffer
	if err := png.Encode(&b, l.img); err != nil {
		return nil, fmt.Errorf("encode the logo: %w", err)
	}
	l.png = b.Bytes()
	return l, nil
}

// plate returns the first module and the number of modules of the square in the middle that a logo takes: at most
// 24 % of a side, so less than 6 % of the modules, of which the levels Q and H do without four times as many.
func (m *Matrix) plate() (first, side int) {
	side = m.side * 24 / 100
	if side%2 == 0 { // the side of a code is odd
		side--
	}
	return (m.side - side) / 2, side
}

// hollow returns the code without the modules of the plate.
func (m *Matrix) hollow() *Matrix {
	out := &Matrix{side: m.side, dark: append([]bool(nil), m.dark...)}
	first, side := m.plate()
	for y := first; y < first+side; y++ {
		clear(out.dark[y*m.side+first : y*m.side+first+side])
	}
	return out
}

// box returns where the logo lies on the plate, in modules from the upper left corner of the code: half a module
// from its edge, its proportions kept.
func (m *Matrix) box(l *Logo) (x, y, width, height float64) {
	first, side := m.plate()
	size := l.img.Bounds().Size()
	longest := float64(max(size.X, size.Y))
	room := float64(side - 1)
	width, height = room*float64(size.X)/longest, room*float64(size.Y)/longest
	return float64(first) + (float64(side)-width)/2, float64(first) + (float64(side)-height)/2, width, height
}

// flat returns the logo on a colour as red, green and blue bytes.
func (l *Logo) flat(ground color.RGBA) []byte {
	b := l.img.Bounds()
	img := image.NewRGBA(b)
	xdraw.Draw(img, b, image.NewUniform(ground), image.Point{}, xdraw.Src)
	xdraw.Draw(img, b, l.img, image.Point{}, xdraw.Over)
	out := make([]byte, 0, 3*b.Dx()*b.Dy())
	for i := 0; i < len(img.Pix); i += 4 {
		out = append(out, img.Pix[i:i+3]...)
	}
	return out
}
