package terse

// DomainWeb is what a domain tells browsers, crawlers and telephones beside its
// redirects. The zero value is the default of everything.
type DomainWeb struct {
	RobotsTxt      string `json:"robots_txt,omitempty"`      // "": search engines stay out, link previews may ask
	Index          bool   `json:"index,omitempty"`           // redirects carry no "X-Robots-Tag: noindex"
	ReferrerPolicy string `json:"referrer_policy,omitempty"` // of redirects; "": strict-origin-when-cross-origin
	TrailingSlash  string `json:"trailing_slash,omitempty"`  // "": TrailingSlashIgnore

	// The documents that tie apps to the domain, JSON as it is served; "": 404.
	AppleAppSiteAssociation string `json:"apple_app_site_association,omitempty"`
	AssetLinks              string `json:"assetlinks,omitempty"`
}

// What a slash after a code means.
const (
	TrailingSlashIgnore = "ignore" // nothing
	TrailingSlashStrict = "strict" // more path: forwarded by links that forward it, for others an unknown code
)
