package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/code"
	"github.com/terselink/terse/internal/qr"
)

type linkQRInput struct {
	LinkPath
	Format      string `query:"format" doc:"svg (default), png or pdf."`
	Size        string `query:"size" doc:"Of a side: pixels, in a PDF points; 32 to 2048, 512 if absent."`
	Margin      string `query:"margin" doc:"Light modules around the code; 0 to 32, 4 if absent. Readers want 4."`
	Foreground  string `query:"fg" doc:"Colour of the code as six hexadecimal digits; black if absent. Must be darker than bg, with a contrast of at least 4."`
	Background  string `query:"bg" doc:"Colour around and behind it; white if absent."`
	ECC         string `query:"ecc" doc:"Error correction: L, M (default), Q or H; with a logo Q or H (default)."`
	Mark        string `query:"mark" doc:"true (default): the code holds the short URL with ?qr=1, so that scans are counted as such. false: the bare short URL, in upper case where the domain folds case, which makes a smaller code."`
	Logo        string `query:"logo" doc:"An image for the middle: brand, for the logo of the domain's brand, or a PNG, JPEG, GIF or WebP as a data URL in base64 of at most 8 KiB, encoded for a URL."`
	IfNoneMatch string `header:"If-None-Match" doc:"The ETag of a copy: 304 if it is the current drawing."`
}

type linkQROutput struct {
	Status       int
	ContentType  string `header:"Content-Type"`
	ETag         string `header:"ETag" doc:"Of these bytes."`
	CacheControl string `header:"Cache-Control"`
	Body         []byte
}

func (s *Server) registerQR() {
	const path = "/api/v1/links/{id}/qr"
	register(s, operation{
		ID: "getLinkQR", Method: http.MethodGet, Path: path, Tag: "Links", Scope: auth.ScopeLinksRead, Status: http.StatusOK,
		Summary: "Draw the QR code of a link", Description: "Equal parameters give equal bytes.",
	}, s.linkQR)
	responses := s.huma.OpenAPI().Paths[path].Get.Responses
	drawing := responses["200"]
	drawing.Content = map[string]*huma.MediaType{}
	for _, f := range []qr.Format{qr.SVG, qr.PNG, qr.PDF} {
		drawing.Content[f.ContentType()] = &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}
	}
	responses["304"] = &huma.Response{Description: "The copy of the caller is the current drawing"}
}

func (s *Server) linkQR(ctx context.Context, c *call, in *linkQRInput) (*linkQROutput, error) {
	n, err := parseLinkID(in.ID)
	if err != nil {
		return nil, err
	}
	if in.Mark != "" && in.Mark != "true" && in.Mark != "false" {
		return nil, terse.Invalid("mark", "mark is true or false")
	}
	format, err := qr.ParseFormat(in.Format)
	if err != nil {
		return nil, err
	}
	level, err := qr.ParseLevel(in.ECC, in.Logo != "")
	if err != nil {
		return nil, err
	}
	style, err := qr.NewStyle(in.Size, in.Margin, in.Foreground, in.Background)
	if err != nil {
		return nil, err
	}
	l, err := s.o.Links.Get(ctx, c.actor(), n)
	if err != nil {
		return nil, err
	}
	if in.Logo != "" {
		if style.Logo, err = s.logo(in.Logo, &l); err != nil {
			return nil, err
		}
	}
	content := s.o.Links.ShortURL(&l) + qr.ScanMark
	if in.Mark == "false" {
		content = s.bareURL(&l)
	}
	m, err := qr.New(content, level)
	if err != nil {
		return nil, err
	}
	drawing, err := m.Draw(format, style)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(drawing)
	out := &linkQROutput{
		Status: http.StatusOK, ContentType: format.ContentType(), ETag: `"` + hex.EncodeToString(sum[:16]) + `"`,
		CacheControl: "private, no-cache", Body: drawing,
	}
	if matchesETag(in.IfNoneMatch, out.ETag) {
		out.Status, out.Body = http.StatusNotModified, nil
	}
	return out, nil
}

// logo returns the logo that a request asks for. The URL of a brand's logo is not fetched.
func (s *Server) logo(text string, l *terse.Link) (*qr.Logo, error) {
	if text == "brand" {
		d := s.o.Domains.ByNumber(l.Number.Domain())
		if d == nil || d.Brand == nil || d.Brand.Logo == "" {
			return nil, terse.Invalid("logo", "the domain has no brand with a logo")
		}
		if !strings.HasPrefix(d.Brand.Logo, "data:") {
			return nil, terse.Invalid("logo", "the logo of the brand is a URL; for a code it must be an image in a data URL")
		}
		text = d.Brand.Logo
	}
	return qr.ParseLogo(text)
}

// bareURL returns the short URL of a link in upper case if that leads to the same
// link, which lets a QR code use fewer bits a character.
func (s *Server) bareURL(l *terse.Link) string {
	short := s.o.Links.ShortURL(l)
	d := s.o.Domains.ByNumber(l.Number.Domain())
	if d == nil || d.Fold() == nil {
		return short
	}
	upper := strings.ToUpper(short)
	path := upper[strings.LastIndexByte(upper, '/')+1:]
	if canonical, err := code.Canonical([]byte(path), d.Fold()); err != nil || canonical != l.Code {
		return short
	}
	return upper
}

// matchesETag reports whether an If-None-Match header names the tag (RFC 9110, 13.1.2).
func matchesETag(header, tag string) bool {
	for item := range strings.SplitSeq(header, ",") {
		item = strings.TrimPrefix(strings.TrimSpace(item), "W/")
		if item == tag || item == "*" {
			return true
		}
	}
	return false
}
