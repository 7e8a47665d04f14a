package redirect

import (
	"net/http"
	"slices"

	"github.com/valyala/fasthttp"

	"github.com/terselink/terse/internal/domains"
)

// policy is what redirects tell beside their location: twice the index of a referrer
// policy, one more if search engines may index. 0 is the default.
type policy uint8

const policyCount = 2 * 8 // TestPolicies holds it to the list of the domains

// policyOf returns the policy of a domain. One that this version does not know is the default.
//
// Hot path: 0 allocs/op, see TestHitAllocs.
func policyOf(d *domains.Domain) policy {
	var p policy
	if d.ReferrerPolicy != "" {
		p = 2 * policy(max(slices.Index(domains.ReferrerPolicies(), d.ReferrerPolicy), 0))
	}
	if d.Index {
		p++
	}
	return p
}

// lines returns the header lines of a policy.
func (p policy) lines() string {
	lines := "X-Content-Type-Options: nosniff\r\n" +
		"Referrer-Policy: " + domains.ReferrerPolicies()[p/2] + "\r\n"
	if p%2 == 0 {
		lines = "X-Robots-Tag: noindex\r\n" + lines
	}
	return lines
}

var redirectBlocks, sharedBlocks = policyBlocks()

func policyBlocks() (redirects [policyCount][]byte, shared [policyCount]string) {
	for p := range redirects {
		lines := policy(p).lines()
		redirects[p] = []byte(lines + "Cache-Control: private, max-age=0\r\nLocation")
		shared[p] = lines + "Cache-Control: public, max-age=0, s-maxage="
	}
	return redirects, shared
}

// defaultRobots keeps search engines out and lets the agents in that make link
// previews: they honour robots.txt, and a link without a preview is not clicked.
const defaultRobots = `User-agent: Twitterbot
User-agent: facebookexternalhit
User-agent: facebookcatalog
User-agent: meta-externalfetcher
User-agent: LinkedInBot
User-agent: Slackbot
User-agent: Slackbot-LinkExpanding
User-agent: Slack-ImgProxy
User-agent: Discordbot
User-agent: TelegramBot
User-agent: WhatsApp
User-agent: SkypeUriPreview
User-agent: Pinterestbot
User-agent: redditbot
User-agent: Iframely
User-agent: Embedly
User-agent: Cardyb
User-agent: NotionEmbedder
Allow: /

User-agent: *
Disallow: /
`

// answerDomainFile answers a file that the domain may have of its own. It reports
// false if the path is none.
func (s *Server) answerDomainFile(ctx *fasthttp.RequestCtx, r *request, d *domains.Domain) bool {
	contentType, body := "application/json", ""
	switch string(r.path) {
	case "/robots.txt":
		contentType, body = "text/plain; charset=utf-8", d.RobotsTxt
		if body == "" {
			body = defaultRobots
		}
	case "/.well-known/apple-app-site-association":
		body = d.AppleAppSiteAssociation
	case "/.well-known/assetlinks.json":
		body = d.AssetLinks
	}
	if body == "" {
		return false
	}
	ctx.Response.SetStatusCode(http.StatusOK)
	ctx.Response.Header.SetCanonical(noStoreBlock, []byte("public, max-age=3600"))
	ctx.Response.Header.SetContentType(contentType)
	ctx.Response.SetBodyRaw(stringBytes(body))
	return true
}
