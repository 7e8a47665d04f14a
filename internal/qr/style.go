package qr

import (
	"image/color"
	"math"
	"strconv"
	"strings"

	"github.com/terselink/terse"
)

// Limits and defaults of a drawing.
const (
	DefaultSize   = 512
	MinSize       = 32
	MaxSize       = 2048
	DefaultMargin = 4 // modules, as ISO/IEC 18004 asks for
	MaxMargin     = 32
	// MinContrast is the least ratio of luminances between the colours (WCAG 2.2, contrast ratio).
	MinContrast = 4.0
)

// Style says how a code is drawn. Use NewStyle.
type Style struct {
	Size       int // of the square drawing: pixels, in a PDF points of 1/72 inch
	Margin     int // light modules around the code
	Foreground color.RGBA
	Background color.RGBA
	Logo       *Logo // for the middle; nil: none. Needs the level Quartile or High.
}

// NewStyle reads a style as a request spells it; "" is the default. Returns an error of
// code invalid for field size, margin, fg or bg.
func NewStyle(size, margin, fg, bg string) (Style, error) {
	s := Style{}
	var err error
	if s.Size, err = number("size", size, DefaultSize, MinSize, MaxSize); err != nil {
		return s, err
	}
	if s.Margin, err = number("margin", margin, DefaultMargin, 0, MaxMargin); err != nil {
		return s, err
	}
	if s.Foreground, err = parseColor("fg", fg, color.RGBA{A: 255}); err != nil {
		return s, err
	}
	if s.Background, err = parseColor("bg", bg, color.RGBA{R: 255, G: 255, B: 255, A: 255}); err != nil {
		return s, err
	}
	dark, light := luminance(s.Foreground), luminance(s.Background)
	if dark > light {
		return s, terse.Invalid("fg", "the foreground must be darker than the background, or many readers see nothing")
	}
	if ratio := (light + 0.05) / (dark + 0.05); ratio < MinContrast {
		return s, terse.Invalid("fg", "the contrast to the background is %.1f, at least %.1f is needed", math.Floor(ratio*10)/10, MinContrast)
	}
	return s, nil
}

func number(field, text string, preset, low, high int) (int, error) {
	if text == "" {
		return preset, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		return 0, terse.Invalid(field, "%s is a number from %d to %d", field, low, high)
	}
	return n, nil
}

// parseColor reads #rrggbb or #rgb; the hash sign may be missing, since it ends a URL.
func parseColor(field, text string, preset color.RGBA) (color.RGBA, error) {
	if text == "" {
		return preset, nil
	}
	hex := strings.TrimPrefix(text, "#")
	if len(hex) == 3 {
		hex = string([]byte{hex[0], hex[0], hex[1], hex[1], hex[2], hex[2]})
	}
	n, err := strconv.ParseUint(hex, 16, 32)
	if err != nil || len(hex) != 6 {
		return preset, terse.Invalid(field, "a colour is six hexadecimal digits, such as 1b1f24")
	}
	return color.RGBA{R: uint8(n >> 16), G: uint8(n >> 8), B: uint8(n), A: 255}, nil
}

// luminance is the relative luminance of WCAG 2.2.
func luminance(c color.RGBA) float64 {
	linear := func(v uint8) float64 {
		f := float64(v) / 255
		if f <= 0.04045 {
			return f / 12.92
		}
		return math.Pow((f+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(c.R) + 0.7152*linear(c.G) + 0.0722*linear(c.B)
}
