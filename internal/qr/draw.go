package qr

import (
	"bytes"
	"compress/zlib"
	"encoding/base64"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"strings"

	xdraw "golang.org/x/image/draw"

	"github.com/terselink/terse"
)

// Format is what a drawing is written as.
type Format string

// The formats.
const (
	SVG Format = "svg"
	PNG Format = "png"
	PDF Format = "pdf"
)

// ParseFormat reads a format; "" is SVG. Returns an error of code invalid for field format.
func ParseFormat(s string) (Format, error) {
	switch f := Format(s); f {
	case "":
		return SVG, nil
	case SVG, PNG, PDF:
		return f, nil
	}
	return "", terse.Invalid("format", "the format is svg, png or pdf")
}

// ContentType returns the media type of the format.
func (f Format) ContentType() string {
	switch f {
	case PNG:
		return "image/png"
	case PDF:
		return "application/pdf"
	}
	return "image/svg+xml"
}

// Draw writes the code in a format. Equal codes and styles give equal bytes. Returns an
// error of code invalid for field size if a module of a PNG would be less than a pixel.
func (m *Matrix) Draw(f Format, s Style) ([]byte, error) {
	if s.Logo != nil {
		m = m.hollow()
	}
	switch f {
	case PNG:
		return m.png(s)
	case PDF:
		return m.pdf(s)
	}
	return m.svg(s), nil
}

func (m *Matrix) svg(s Style) []byte {
	var b bytes.Buffer
	side := m.side + 2*s.Margin
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" shape-rendering="crispEdges">`, s.Size, s.Size, side, side)
	fmt.Fprintf(&b, `<path fill="%s" d="M0 0h%dv%dH0z"/><path fill="%s" d="`, hexColor(s.Background), side, side, hexColor(s.Foreground))
	m.runs(func(x, y, n int) { fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", x+s.Margin, y+s.Margin, n, n) })
	b.WriteString(`"/>`)
	if s.Logo != nil {
		x, y, width, height := m.box(s.Logo)
		fmt.Fprintf(&b, `<image x="%.3f" y="%.3f" width="%.3f" height="%.3f" href="data:image/png;base64,%s"/>`,
			x+float64(s.Margin), y+float64(s.Margin), width, height, base64.StdEncoding.EncodeToString(s.Logo.png))
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// png draws every module as a square of whole pixels; what the size leaves over goes to
// the margin, because blurred edges are what readers fail on.
func (m *Matrix) png(s Style) ([]byte, error) {
	side := m.side + 2*s.Margin
	scale := s.Size / side
	if scale == 0 {
		return nil, terse.Invalid("size", "this code has %d modules with its margin, so it needs at least as many pixels", side)
	}
	img := image.NewPaletted(image.Rect(0, 0, s.Size, s.Size), color.Palette{s.Background, s.Foreground})
	offset := (s.Size - m.side*scale) / 2
	m.runs(func(x, y, n int) {
		for row := range scale {
			start := img.PixOffset(offset+x*scale, offset+y*scale+row)
			line := img.Pix[start : start+n*scale]
			for i := range line {
				line[i] = 1
			}
		}
	})
	var drawing image.Image = img
	if s.Logo != nil {
		x, y, width, height := m.box(s.Logo)
		at := func(modules float64) int { return offset + int(math.Round(modules*float64(scale))) }
		full := image.NewRGBA(img.Bounds())
		xdraw.Draw(full, full.Bounds(), img, image.Point{}, xdraw.Src)
		xdraw.CatmullRom.Scale(full, image.Rect(at(x), at(y), at(x+width), at(y+height)), s.Logo.img, s.Logo.img.Bounds(), xdraw.Over, nil)
		drawing = full
	}
	var b bytes.Buffer
	if err := png.Encode(&b, drawing); err != nil {
		return nil, fmt.Errorf("draw PNG: %w", err)
	}
	return b.Bytes(), nil
}

// pdf writes a page of the size of the code with one path of rectangles (ISO 32000-1).
func (m *Matrix) pdf(s Style) ([]byte, error) {
	var page bytes.Buffer
	side := m.side + 2*s.Margin
	scale := float64(s.Size) / float64(side)
	// Modules are the unit; the origin of a page is below on the left.
	fmt.Fprintf(&page, "%.6f 0 0 %.6f 0 0 cm\n%s rg 0 0 %d %d re f\n%s rg\n", scale, scale, unitColor(s.Background), side, side, unitColor(s.Foreground))
	m.runs(func(x, y, n int) { fmt.Fprintf(&page, "%d %d %d 1 re\n", x+s.Margin, side-1-y-s.Margin, n) })
	page.WriteString("f\n")
	var resources, logo string
	if s.Logo != nil {
		x, y, width, height := m.box(s.Logo)
		fmt.Fprintf(&page, "%.3f 0 0 %.3f %.3f %.3f cm /Logo Do\n", width, height, x+float64(s.Margin), float64(side)-y-float64(s.Margin)-height)
		pixels, err := deflate(s.Logo.flat(s.Background))
		if err != nil {
			return nil, err
		}
		size := s.Logo.img.Bounds().Size()
		logo = fmt.Sprintf("<</Type/XObject/Subtype/Image/Width %d/Height %d/ColorSpace/DeviceRGB/BitsPerComponent 8/Length %d/Filter/FlateDecode>>\nstream\n%s\nendstream",
			size.X, size.Y, len(pixels), pixels)
		resources = "/XObject<</Logo 5 0 R>>"
	}
	stream, err := deflate(page.Bytes())
	if err != nil {
		return nil, err
	}

	var b bytes.Buffer
	b.WriteString("%PDF-1.4\n")
	objects := []string{
		"<</Type/Catalog/Pages 2 0 R>>",
		"<</Type/Pages/Kids[3 0 R]/Count 1>>",
		fmt.Sprintf("<</Type/Page/Parent 2 0 R/MediaBox[0 0 %d %d]/Resources<<%s>>/Contents 4 0 R>>", s.Size, s.Size, resources),
		fmt.Sprintf("<</Length %d/Filter/FlateDecode>>\nstream\n%s\nendstream", len(stream), stream),
	}
	if logo != "" {
		objects = append(objects, logo)
	}
	offsets := make([]int, len(objects))
	for i, o := range objects {
		offsets[i] = b.Len()
		fmt.Fprintf(&b, "%d 0 obj\n%s\nendobj\n", i+1, o)
	}
	start := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n", len(objects)+1)
	for _, o := range offsets {
		fmt.Fprintf(&b, "%010d 00000 n \n", o)
	}
	fmt.Fprintf(&b, "trailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n", len(objects)+1, start)
	return b.Bytes(), nil
}

// deflate compresses a stream of a PDF.
func deflate(b []byte) ([]byte, error) {
	var out bytes.Buffer
	z := zlib.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		return nil, fmt.Errorf("draw PDF: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("draw PDF: %w", err)
	}
	return out.Bytes(), nil
}

func hexColor(c color.RGBA) string { return fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B) }

func unitColor(c color.RGBA) string {
	return fmt.Sprintf("%.4f %.4f %.4f", float64(c.R)/255, float64(c.G)/255, float64(c.B)/255)
}

// Text draws the code with half blocks: two rows of modules a line, every line ended by
// a line feed. Light modules are the ink, for the light text of a dark terminal; with
// colors every line sets white on black itself, for any terminal.
func (m *Matrix) Text(margin int, colors bool) string {
	var b strings.Builder
	for y := -margin; y < m.side+margin; y += 2 {
		if colors {
			b.WriteString("\x1b[97;40m")
		}
		for x := -margin; x < m.side+margin; x++ {
			top, bottom := !m.Dark(x, y), !m.Dark(x, y+1) && y+1 < m.side+margin
			switch {
			case top && bottom:
				b.WriteRune('█')
			case top:
				b.WriteRune('▀')
			case bottom:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		if colors {
			b.WriteString("\x1b[0m")
		}
		b.WriteByte('\n')
	}
	return b.String()
}
