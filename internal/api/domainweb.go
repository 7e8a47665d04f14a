package api

import (
	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
)

// DomainWeb is what a domain tells browsers, crawlers and telephones.
type DomainWeb struct {
	RobotsTxt               *string `json:"robots_txt" doc:"null: search engines stay out, agents that make link previews may ask."`
	NoIndex                 bool    `json:"noindex" doc:"Redirects carry X-Robots-Tag: noindex."`
	ReferrerPolicy          string  `json:"referrer_policy" doc:"Of redirects, in force."`
	TrailingSlash           string  `json:"trailing_slash" enum:"ignore,strict" doc:"What a slash after a code means: nothing, or more path."`
	AppleAppSiteAssociation *string `json:"apple_app_site_association" doc:"Served as /.well-known/apple-app-site-association."`
	AssetLinks              *string `json:"assetlinks" doc:"Served as /.well-known/assetlinks.json."`
}

// NewDomainWeb is DomainWeb in the body of a creation.
type NewDomainWeb struct {
	RobotsTxt               string `json:"robots_txt,omitempty" nullable:"true" doc:"At most 64 KiB; without it search engines stay out and agents that make link previews may ask."`
	NoIndex                 *bool  `json:"noindex,omitempty" nullable:"true" doc:"true if absent."`
	ReferrerPolicy          string `json:"referrer_policy,omitempty" nullable:"true" doc:"A policy of the Referrer Policy specification; strict-origin-when-cross-origin if absent."`
	TrailingSlash           string `json:"trailing_slash,omitempty" nullable:"true" doc:"ignore (default) or strict: a slash after a code is more path."`
	AppleAppSiteAssociation string `json:"apple_app_site_association,omitempty" nullable:"true" doc:"A JSON object as text, at most 64 KiB, served as it is."`
	AssetLinks              string `json:"assetlinks,omitempty" nullable:"true" doc:"A JSON array as text, at most 64 KiB, served as it is."`
}

// PatchDomainWeb is DomainWeb in the body of a change.
type PatchDomainWeb struct {
	RobotsTxt               Optional[string] `json:"robots_txt,omitempty"`
	NoIndex                 Optional[bool]   `json:"noindex,omitempty"`
	ReferrerPolicy          Optional[string] `json:"referrer_policy,omitempty"`
	TrailingSlash           Optional[string] `json:"trailing_slash,omitempty"`
	AppleAppSiteAssociation Optional[string] `json:"apple_app_site_association,omitempty"`
	AssetLinks              Optional[string] `json:"assetlinks,omitempty"`
}

func domainWeb(w *terse.DomainWeb) DomainWeb {
	out := DomainWeb{
		RobotsTxt: orNull(w.RobotsTxt), NoIndex: !w.Index, ReferrerPolicy: w.ReferrerPolicy, TrailingSlash: w.TrailingSlash,
		AppleAppSiteAssociation: orNull(w.AppleAppSiteAssociation), AssetLinks: orNull(w.AssetLinks),
	}
	if out.ReferrerPolicy == "" {
		out.ReferrerPolicy = domains.DefaultReferrerPolicy
	}
	if out.TrailingSlash == "" {
		out.TrailingSlash = terse.TrailingSlashIgnore
	}
	return out
}

func (n *NewDomainWeb) domain() terse.DomainWeb {
	return terse.DomainWeb{
		RobotsTxt: n.RobotsTxt, Index: n.NoIndex != nil && !*n.NoIndex, ReferrerPolicy: n.ReferrerPolicy, TrailingSlash: n.TrailingSlash,
		AppleAppSiteAssociation: n.AppleAppSiteAssociation, AssetLinks: n.AssetLinks,
	}
}

func (p *PatchDomainWeb) domain() domains.WebPatch {
	out := domains.WebPatch{
		RobotsTxt: p.RobotsTxt.pointer(), ReferrerPolicy: p.ReferrerPolicy.pointer(), TrailingSlash: p.TrailingSlash.pointer(),
		AppleAppSiteAssociation: p.AppleAppSiteAssociation.pointer(), AssetLinks: p.AssetLinks.pointer(),
	}
	if p.NoIndex.Set {
		index := !p.NoIndex.Null && !p.NoIndex.Value
		out.Index = &index
	}
	return out
}
