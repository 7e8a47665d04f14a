package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
)

// QR says how the QR code of a link is drawn. Zero fields take the server's defaults.
type QR struct {
	Format     string // svg (default), png or pdf
	Size       int    // of a side: pixels, in a PDF points
	Margin     *int   // light modules around the code
	Foreground string // six hexadecimal digits
	Background string
	ECC        string // L, M (default), Q or H; with a logo Q or H (default)
	Logo       string // "brand", or an image as a data URL in base64
	// Unmarked leaves the mark out by which scans are counted as such.
	Unmarked bool
}

// LinkQR returns the drawing of the QR code of a link.
func (c *Client) LinkQR(ctx context.Context, id string, o QR) ([]byte, error) {
	q := url.Values{}
	set(q, "format", o.Format)
	setInt(q, "size", o.Size)
	if o.Margin != nil {
		q.Set("margin", strconv.Itoa(*o.Margin))
	}
	set(q, "fg", o.Foreground)
	set(q, "bg", o.Background)
	set(q, "ecc", o.ECC)
	set(q, "logo", o.Logo)
	if o.Unmarked {
		q.Set("mark", "false")
	}
	var drawing []byte
	if err := c.do(ctx, &call{method: http.MethodGet, path: "/links/" + url.PathEscape(id) + "/qr", query: q, out: &drawing}); err != nil {
		return nil, err
	}
	return drawing, nil
}
