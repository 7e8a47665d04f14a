package cli

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/terselink/terse/client"
)

// domainPlaceFlags are where a domain sends visits that a link does not take, and what it adds to those it takes.
type domainPlaceFlags struct {
	NotStartedDestination *string           `help:"Where visitors of links that have not begun are sent." placeholder:"URL"`
	LimitDestination      *string           `help:"Where visitors are sent when the clicks of a link are used up." placeholder:"URL"`
	ClickIDParameter      *string           `name:"click-id-parameter" help:"Add the id of the click to destinations under this name, for conversions." placeholder:"NAME"`
	ForwardQuery          *bool             `help:"Add the query of visits to destinations." negatable:""`
	QueryMode             *string           `help:"How the query is added: append, incoming_first, stored_first or drop." placeholder:"MODE"`
	UTM                   map[string]string `name:"utm" help:"UTM parameter for destinations without it, such as source=sms; can be repeated; an empty value takes all away." placeholder:"NAME=VALUE" mapsep:"none"`

	BrandName    *string `help:"Name at the top of pages. The four --brand flags describe one look; those left out of a change are as they were." placeholder:"TEXT"`
	BrandAccent  *string `help:"Colour of the buttons of pages, such as #0b57d0." placeholder:"COLOUR"`
	BrandLogo    *string `help:"Logo of pages: an https URL, or the file of an image of at most 6 KiB; empty: none." placeholder:"URL|FILE"`
	BrandSupport *string `help:"Where pages say help is to be had: a URL, or mailto: and an address." placeholder:"URL"`
}

// places adds what the flags say to a patch.
func (f *domainPlaceFlags) places(p *client.DomainPatch) (err error) {
	p.NotStartedDestination, p.LimitDestination = textChange(f.NotStartedDestination), textChange(f.LimitDestination)
	p.ClickIDParameter = textChange(f.ClickIDParameter)
	p.ForwardQuery, p.QueryMode = boolChange(f.ForwardQuery), textChange(f.QueryMode)
	p.UTM, err = utmChange(f.UTM)
	return err
}

// brand adds what the flags say to the brand that the domain has.
func (f *domainPlaceFlags) brand(now *client.Brand) (client.Change[client.Brand], error) {
	if f.BrandName == nil && f.BrandAccent == nil && f.BrandLogo == nil && f.BrandSupport == nil {
		return client.Change[client.Brand]{}, nil
	}
	var b client.Brand
	if now != nil {
		b = *now
	}
	for _, part := range []struct{ flag, to *string }{{f.BrandName, &b.Name}, {f.BrandAccent, &b.Accent}, {f.BrandSupport, &b.SupportURL}} {
		if part.flag != nil {
			*part.to = *part.flag
		}
	}
	if f.BrandLogo != nil {
		var err error
		if b.Logo, err = readLogo(*f.BrandLogo); err != nil {
			return client.Change[client.Brand]{}, err
		}
	}
	if b == (client.Brand{}) {
		return client.Clear[client.Brand](), nil
	}
	return client.Set(b), nil
}

// readLogo returns a URL as it is, and the image in a file as a data URL.
func readLogo(name string) (string, error) {
	if name == "" || strings.Contains(name, "://") || strings.HasPrefix(name, "data:") {
		return name, nil
	}
	image, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("--brand-logo: %w", err)
	}
	kind := http.DetectContentType(image)
	if strings.EqualFold(filepath.Ext(name), ".svg") {
		kind = "image/svg+xml"
	}
	if !strings.HasPrefix(kind, "image/") {
		return "", usage("--brand-logo: %s is no image", name)
	}
	return "data:" + kind + ";base64," + base64.StdEncoding.EncodeToString(image), nil
}

// queryText says how the domain forwards queries, "" if it does not.
func queryText(d *client.Domain) string {
	if !d.ForwardQuery {
		return ""
	}
	return d.QueryMode
}

// brandText describes a brand on one line.
func brandText(b *client.Brand) string {
	if b == nil {
		return ""
	}
	parts := []string{b.Name, b.Accent, b.SupportURL}
	if b.Logo != "" {
		logo, _, _ := strings.Cut(b.Logo, ",") // not the image itself
		parts = append(parts, "logo "+logo)
	}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", ")
}
