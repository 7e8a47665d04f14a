// Package qr draws QR codes of short URLs as SVG, PNG, PDF and text for a terminal.
//
// The matrix comes from github.com/boombuler/barcode, the drawing is our own, so that
// equal parameters give equal bytes. It knows no links and no HTTP. Invariants:
//
//   - colours that readers fail on, with too little contrast or light on dark, are
//     refused, not drawn, and so is a PNG with less than a pixel a module;
//   - memory is bounded by MaxSize and the size of a logo, whatever the parameters;
//   - a logo hides less than a reader can do without.
package qr

import (
	"strings"

	"github.com/boombuler/barcode"
	boombuler "github.com/boombuler/barcode/qr"

	"github.com/terselink/terse"
)

// ScanMark is the query that a code carries, so that the visit counts as a scan.
const ScanMark = "?qr=1"

// alphanumeric are the characters that take 5.5 bits instead of 8 (ISO/IEC 18004, 7.4.4).
const alphanumeric = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"

// Level is how much of a code may be unreadable.
type Level byte

// The levels of error correction.
const (
	Low      Level = 'L' // 7 %
	Medium   Level = 'M' // 15 %
	Quartile Level = 'Q' // 25 %
	High     Level = 'H' // 30 %
)

// ParseLevel reads L, M, Q or H of either case; "" is Medium, and High for a code with a logo, of which
// a part is hidden. Returns an error of code invalid for field ecc.
func ParseLevel(s string, logo bool) (Level, error) {
	switch l := strings.ToUpper(s); l {
	case "":
		if logo {
			return High, nil
		}
		return Medium, nil
	case "L", "M":
		if logo {
			return 0, terse.Invalid("ecc", "a logo hides a part of the code: the error correction is Q or H")
		}
		return Level(l[0]), nil
	case "Q", "H":
		return Level(l[0]), nil
	}
	return 0, terse.Invalid("ecc", "the error correction is L, M, Q or H")
}

func (l Level) boombuler() boombuler.ErrorCorrectionLevel {
	switch l {
	case Low:
		return boombuler.L
	case Quartile:
		return boombuler.Q
	case High:
		return boombuler.H
	}
	return boombuler.M
}

// Matrix is a QR code: square modules, dark or light, without the margin.
type Matrix struct {
	side int
	dark []bool // by row
}

// New encodes content in the smallest version that holds it at the level. Returns an
// error of code invalid for field ecc if none does.
func New(content string, level Level) (*Matrix, error) {
	// The mode is chosen here: the library finds out by trying, and leaves a goroutine
	// behind for every mode that does not fit.
	mode := boombuler.Unicode
	if strings.Trim(content, alphanumeric) == "" {
		mode = boombuler.AlphaNumeric
	}
	// A pixel of the 16 bit scheme is black if the module is dark.
	b, err := boombuler.EncodeWithColor(content, level.boombuler(), mode, barcode.ColorScheme16)
	if err != nil {
		return nil, &terse.Error{Code: terse.CodeInvalid, Field: "ecc", Message: "the short URL is too long for a code with this error correction", Err: err}
	}
	side := b.Bounds().Dx()
	m := &Matrix{side: side, dark: make([]bool, side*side)}
	for y := range side {
		for x := range side {
			r, _, _, _ := b.At(x, y).RGBA()
			m.dark[y*side+x] = r == 0
		}
	}
	return m, nil
}

// Side returns the number of modules of a side: 21 to 177.
func (m *Matrix) Side() int { return m.side }

// Dark reports whether a module is dark. Everything outside of the code is light.
func (m *Matrix) Dark(x, y int) bool {
	return x >= 0 && y >= 0 && x < m.side && y < m.side && m.dark[y*m.side+x]
}

// runs calls draw for every horizontal run of dark modules.
func (m *Matrix) runs(draw func(x, y, length int)) {
	for y := range m.side {
		for x := 0; x < m.side; x++ {
			start := x
			for m.Dark(x, y) {
				x++
			}
			if x > start {
				draw(start, y, x-start)
			}
		}
	}
}
