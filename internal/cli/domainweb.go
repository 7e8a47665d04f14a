package cli

import (
	"fmt"
	"os"
	"strings"

	"github.com/terselink/terse/client"
)

// domainWebFlags are what a domain tells browsers, crawlers and telephones.
type domainWebFlags struct {
	RobotsTxt      *string `help:"File to serve as robots.txt; empty: search engines stay out." placeholder:"FILE"`
	Noindex        *bool   `help:"Tell search engines with every redirect not to index it; on unless --no-noindex." negatable:""`
	ReferrerPolicy *string `help:"Referrer policy of redirects; empty: the default." placeholder:"POLICY"`
	TrailingSlash  *string `help:"What a slash after a code means: ignore (nothing) or strict (more path)." placeholder:"POLICY"`
	AppleAppSite   *string `name:"apple-app-site-association" help:"File to serve for iOS apps; empty: none." placeholder:"FILE"`
	AssetLinks     *string `name:"assetlinks" help:"File to serve for Android apps; empty: none." placeholder:"FILE"`
}

// domainFiles are the contents of the files; nil without the flag.
type domainFiles struct{ robots, apple, android *string }

func (f *domainWebFlags) read() (out domainFiles, err error) {
	for _, file := range []struct {
		flag string
		name *string
		text **string
	}{
		{"robots-txt", f.RobotsTxt, &out.robots},
		{"apple-app-site-association", f.AppleAppSite, &out.apple},
		{"assetlinks", f.AssetLinks, &out.android},
	} {
		if file.name == nil || *file.name == "" {
			*file.text = file.name
			continue
		}
		b, err := os.ReadFile(*file.name)
		if err != nil {
			return out, fmt.Errorf("--%s: %w", file.flag, err)
		}
		text := string(b)
		*file.text = &text
	}
	return out, nil
}

// domainFileNames lists the files that the domain has of its own.
func domainFileNames(d *client.Domain) string {
	var names []string
	for _, f := range [][2]string{
		{d.RobotsTxt, "robots.txt"}, {d.AppleAppSiteAssociation, "apple-app-site-association"}, {d.AssetLinks, "assetlinks.json"},
	} {
		if f[0] != "" {
			names = append(names, f[1])
		}
	}
	return strings.Join(names, ", ")
}

func boolChange(flag *bool) client.Change[bool] {
	if flag == nil {
		return client.Change[bool]{}
	}
	return client.Set(*flag)
}
