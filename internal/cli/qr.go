package cli

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/terselink/terse/client"
	"github.com/terselink/terse/internal/qr"
)

type qrCmd struct {
	Link   string `arg:"" help:"Id or short URL."`
	Output string `short:"o" help:"File to write; - is standard output. Without it the code is drawn in the terminal." placeholder:"FILE"`
	Format string `help:"svg, png or pdf; without it as the name of the file ends, else svg." placeholder:"FORMAT"`
	Size   int    `help:"Of a side: pixels, in a PDF points of 1/72 inch." placeholder:"N"`
	Margin *int   `help:"Light modules around the code; readers want 4." placeholder:"N"`
	FG     string `name:"fg" help:"Colour of the code, such as 1b1f24." placeholder:"COLOUR"`
	BG     string `name:"bg" help:"Colour behind it." placeholder:"COLOUR"`
	ECC    string `name:"ecc" help:"Error correction: L, M, Q or H." placeholder:"LEVEL"`
	Logo   string `help:"Image for the middle: a PNG, JPEG, GIF or WebP of at most 6 KB, or the word brand for the logo of the domain's brand." placeholder:"FILE"`
}

func (c *qrCmd) Run(s *session) error {
	drawn := c.Format != "" || c.Size != 0 || c.FG != "" || c.BG != "" || c.Logo != ""
	if c.Output == "" && drawn {
		return usage("--format, --size, --fg, --bg and --logo need -o FILE")
	}
	cl, err := s.connect()
	if err != nil {
		return err
	}
	if c.Output == "" {
		return c.show(s, cl)
	}
	id, err := s.linkID(cl, c.Link)
	if err != nil {
		return err
	}
	format := c.Format
	if ext := strings.ToLower(strings.TrimPrefix(filepath.Ext(c.Output), ".")); format == "" && (ext == "png" || ext == "pdf") {
		format = ext
	}
	logo, err := c.logo()
	if err != nil {
		return err
	}
	drawing, err := cl.LinkQR(s.ctx, id, client.QR{
		Format: format, Size: c.Size, Margin: c.Margin, Foreground: c.FG, Background: c.BG, ECC: c.ECC, Logo: logo,
	})
	if err != nil {
		return err
	}
	if c.Output == "-" {
		_, err = s.Stdout.Write(drawing)
	} else {
		err = os.WriteFile(c.Output, drawing, 0o666)
	}
	if err != nil {
		return fmt.Errorf("write the QR code: %w", err)
	}
	return nil
}

// logo returns the logo as the API takes it.
func (c *qrCmd) logo() (string, error) {
	if c.Logo == "" || c.Logo == "brand" {
		return c.Logo, nil
	}
	image, err := os.ReadFile(c.Logo)
	if err != nil {
		return "", fmt.Errorf("read the logo: %w", err)
	}
	url := "data:" + http.DetectContentType(image) + ";base64," + base64.StdEncoding.EncodeToString(image)
	if len(url) > qr.MaxLogo {
		return "", fmt.Errorf("%s is too large for a logo: %d bytes in base64, at most %d", c.Logo, len(url), qr.MaxLogo)
	}
	return url, nil
}

// show draws the code in the terminal.
func (c *qrCmd) show(s *session, cl *client.Client) error {
	level, err := qr.ParseLevel(c.ECC, false)
	if err != nil {
		return err
	}
	margin := 2 // enough on a screen, and a line counts there
	if c.Margin != nil {
		margin = *c.Margin
	}
	if margin < 0 || margin > qr.MaxMargin {
		return usage("--margin: a number from 0 to %d", qr.MaxMargin)
	}
	l, err := s.link(cl, c.Link)
	if err != nil {
		return err
	}
	m, err := qr.New(l.ShortURL+qr.ScanMark, level)
	if err != nil {
		return err
	}
	if s.g.JSON {
		return usage("--json has nothing to say about a QR code")
	}
	_, err = fmt.Fprint(s.Stdout, m.Text(margin, isTerminal(s.Stdout))+l.ShortURL+"\n")
	return err
}
