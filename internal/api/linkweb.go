package api

import (
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/links"
)

// UTM are parameters that destinations get where they have none of the name.
type UTM struct {
	Source   string `json:"source,omitempty" example:"newsletter"`
	Medium   string `json:"medium,omitempty"`
	Campaign string `json:"campaign,omitempty"`
	Term     string `json:"term,omitempty"`
	Content  string `json:"content,omitempty"`
}

// Schema implements huma.SchemaProvider: null is no parameters.
func (UTM) Schema(r huma.Registry) *huma.Schema {
	type utm UTM
	return nullable(r, reflect.TypeFor[utm]())
}

// nullable returns the schema of an object that may be null.
func nullable(r huma.Registry, t reflect.Type) *huma.Schema {
	s := *huma.SchemaFromType(r, t)
	s.Nullable = true
	return &s
}

func showUTM(u *terse.UTM) *UTM { return (*UTM)(u) }

func (u *UTM) domain() *terse.UTM { return (*terse.UTM)(u) }

// patchUTM returns nil for an absent field and no parameters for null.
func patchUTM(o *Optional[UTM]) *terse.UTM {
	if !o.Set {
		return nil
	}
	return o.Value.domain()
}

// Pixel tells a provider of advertisements of a visit.
type Pixel struct {
	Provider string `json:"provider" doc:"google_ads, linkedin, meta, microsoft, pinterest, quora or x." example:"meta"`
	ID       string `json:"id" example:"1234567890123456"`
}

// LinkWeb is what a link says of the answer beside where it leads.
type LinkWeb struct {
	NoIndex               bool    `json:"noindex" doc:"In force: the link's own, else the domain's."`
	ReferrerPolicy        string  `json:"referrer_policy" doc:"In force: the link's own, else the domain's."`
	NotStartedDestination *string `json:"not_started_destination" doc:"Where visits before starts_at go; null: as the domain says."`
	LimitDestination      *string `json:"limit_destination" doc:"Where visits go when max_clicks are used up; null: as expired ones, or as the domain says."`
	QueryMode             string  `json:"query_mode" enum:"append,incoming_first,stored_first,drop" doc:"In force: how the visitor's query is added, drop if it is not."`
	UTM                   *UTM    `json:"utm" doc:"The link's own; the domain's fill what is missing."`
	Sticky                string  `json:"sticky" enum:"hash,cookie" doc:"What keeps a visitor on one variant."`
	BlockedReason         *string `json:"blocked_reason" doc:"Why the link is blocked."`

	IOSDestination     *string `json:"ios_destination"`
	IOSStore           *string `json:"ios_store"`
	AndroidDestination *string `json:"android_destination"`
	AndroidStore       *string `json:"android_store"`
	OGTitle            *string `json:"og_title"`
	OGDescription      *string `json:"og_description"`
	OGImage            *string `json:"og_image"`
	Pixels             []Pixel `json:"pixels"`
	Cloak              bool    `json:"cloak"`
}

// NewLinkWeb is LinkWeb in the body of a creation.
type NewLinkWeb struct {
	NoIndex               *bool  `json:"noindex,omitempty" nullable:"true" doc:"Redirects carry X-Robots-Tag: noindex; without it as the domain says."`
	ReferrerPolicy        string `json:"referrer_policy,omitempty" nullable:"true" doc:"Of redirects; without it the domain's."`
	NotStartedDestination string `json:"not_started_destination,omitempty" nullable:"true" doc:"Where visits before starts_at go; without it as the domain says."`
	LimitDestination      string `json:"limit_destination,omitempty" nullable:"true" doc:"Where visits go when max_clicks are used up; without it as expired ones, or as the domain says."`
	QueryMode             string `json:"query_mode,omitempty" nullable:"true" doc:"How the visitor's query is added: append, incoming_first, stored_first or drop. Says also whether it is."`
	UTM                   *UTM   `json:"utm,omitempty" doc:"UTM parameters for a destination that has none of the name, nor has the query that is forwarded."`
	Sticky                string `json:"sticky,omitempty" nullable:"true" doc:"hash (default) or cookie: what keeps a visitor on one variant."`

	IOSDestination     string  `json:"ios_destination,omitempty" nullable:"true" doc:"Where visitors with iOS go: an http or https URL, or one of an app, whose scheme is one of the workspace's app_schemes." example:"myapp://item/7"`
	IOSStore           string  `json:"ios_store,omitempty" nullable:"true" doc:"Where the app is to be had, for those who do not have it; alone it is where visitors with iOS go."`
	AndroidDestination string  `json:"android_destination,omitempty" nullable:"true" doc:"As ios_destination, for Android."`
	AndroidStore       string  `json:"android_store,omitempty" nullable:"true" doc:"As ios_store, for Android."`
	OGTitle            string  `json:"og_title,omitempty" nullable:"true" doc:"What link previews show: with any of the og_ fields agents that make them get a page, and people are redirected."`
	OGDescription      string  `json:"og_description,omitempty" nullable:"true"`
	OGImage            string  `json:"og_image,omitempty" nullable:"true" doc:"URL of an image."`
	Pixels             []Pixel `json:"pixels,omitempty" nullable:"true" doc:"Providers of advertisements to tell of the visit, at most 10. Needs interstitials of the workspace."`
	Cloak              bool    `json:"cloak,omitempty" nullable:"true" doc:"Shows the destination in a frame. Needs interstitials of the workspace."`
}

// PatchLinkWeb is LinkWeb in the body of a change.
type PatchLinkWeb struct {
	NoIndex               Optional[bool]    `json:"noindex,omitempty"`
	ReferrerPolicy        Optional[string]  `json:"referrer_policy,omitempty"`
	NotStartedDestination Optional[string]  `json:"not_started_destination,omitempty"`
	LimitDestination      Optional[string]  `json:"limit_destination,omitempty"`
	QueryMode             Optional[string]  `json:"query_mode,omitempty"`
	UTM                   Optional[UTM]     `json:"utm,omitempty"`
	Sticky                Optional[string]  `json:"sticky,omitempty"`
	IOSDestination        Optional[string]  `json:"ios_destination,omitempty"`
	IOSStore              Optional[string]  `json:"ios_store,omitempty"`
	AndroidDestination    Optional[string]  `json:"android_destination,omitempty"`
	AndroidStore          Optional[string]  `json:"android_store,omitempty"`
	OGTitle               Optional[string]  `json:"og_title,omitempty"`
	OGDescription         Optional[string]  `json:"og_description,omitempty"`
	OGImage               Optional[string]  `json:"og_image,omitempty"`
	Pixels                Optional[[]Pixel] `json:"pixels,omitempty"`
	Cloak                 Optional[bool]    `json:"cloak,omitempty"`
}

// CampaignWeb is LinkWeb of a campaign: what it says for its links, and null where it leaves it to the domain.
type CampaignWeb struct {
	NoIndex               *bool   `json:"noindex" doc:"null: as the domain says."`
	ReferrerPolicy        *string `json:"referrer_policy" doc:"null: that of the domain."`
	NotStartedDestination *string `json:"not_started_destination"`
	LimitDestination      *string `json:"limit_destination"`
	QueryMode             *string `json:"query_mode" doc:"null: as the domain says."`
	UTM                   *UTM    `json:"utm" doc:"May have placeholders."`
	Sticky                string  `json:"sticky" enum:"hash,cookie" doc:"What keeps a visitor on one variant."`

	IOSDestination     *string `json:"ios_destination"`
	IOSStore           *string `json:"ios_store"`
	AndroidDestination *string `json:"android_destination"`
	AndroidStore       *string `json:"android_store"`
	OGTitle            *string `json:"og_title"`
	OGDescription      *string `json:"og_description"`
	OGImage            *string `json:"og_image"`
	Pixels             []Pixel `json:"pixels"`
	Cloak              bool    `json:"cloak"`
}

func showCampaignWeb(set *terse.LinkSettings) CampaignWeb {
	var w terse.LinkWeb
	if set.Web != nil {
		w = *set.Web
	}
	mode := orNull(w.QueryMode)
	if set.ForwardQuery != nil && !*set.ForwardQuery {
		mode = new(terse.QueryDrop)
	}
	return CampaignWeb{
		NoIndex: w.NoIndex, ReferrerPolicy: orNull(w.ReferrerPolicy), NotStartedDestination: orNull(w.NotStartedDestination), LimitDestination: orNull(w.LimitDestination),
		QueryMode: mode, UTM: showUTM(w.UTM), Sticky: either(w.Sticky, terse.StickyHash),
		IOSDestination: orNull(w.IOSDestination), IOSStore: orNull(w.IOSStore), AndroidDestination: orNull(w.AndroidDestination), AndroidStore: orNull(w.AndroidStore),
		OGTitle: orNull(w.OGTitle), OGDescription: orNull(w.OGDescription), OGImage: orNull(w.OGImage), Pixels: showPixels(w.Pixels), Cloak: w.Cloak,
	}
}

func showPixels(list []terse.Pixel) []Pixel {
	out := []Pixel{}
	for _, p := range list {
		out = append(out, Pixel(p))
	}
	return out
}

// showLinkWeb shows what is in force on the domain, which may be nil.
func showLinkWeb(out *Link, set *terse.LinkSettings, d *domains.Domain) {
	var w terse.LinkWeb
	if set != nil && set.Web != nil {
		w = *set.Web
	}
	out.NoIndex, out.ReferrerPolicy, out.QueryMode, out.Sticky = true, domains.DefaultReferrerPolicy, terse.QueryAppend, either(w.Sticky, terse.StickyHash)
	mode := w.QueryMode
	if d != nil {
		out.NoIndex, out.ReferrerPolicy = !d.Index, either(d.ReferrerPolicy, out.ReferrerPolicy)
		mode = either(mode, d.Domain.QueryMode)
	}
	if w.NoIndex != nil {
		out.NoIndex = *w.NoIndex
	}
	out.ReferrerPolicy = either(w.ReferrerPolicy, out.ReferrerPolicy)
	out.QueryMode = queryMode(mode, out.ForwardQuery)
	out.NotStartedDestination, out.LimitDestination, out.UTM = orNull(w.NotStartedDestination), orNull(w.LimitDestination), showUTM(w.UTM)
	out.IOSDestination, out.IOSStore = orNull(w.IOSDestination), orNull(w.IOSStore)
	out.AndroidDestination, out.AndroidStore = orNull(w.AndroidDestination), orNull(w.AndroidStore)
	out.OGTitle, out.OGDescription, out.OGImage = orNull(w.OGTitle), orNull(w.OGDescription), orNull(w.OGImage)
	out.Cloak, out.Pixels = w.Cloak, showPixels(w.Pixels)
	if set != nil && set.Block != nil {
		out.BlockedReason = orNull(set.Block.Reason)
	}
}

// queryMode returns the mode in force.
func queryMode(mode string, forwards bool) string {
	if !forwards {
		return terse.QueryDrop
	}
	return either(mode, terse.QueryAppend)
}

func (n *NewLinkWeb) domain() *terse.LinkWeb {
	w := &terse.LinkWeb{
		NoIndex: n.NoIndex, ReferrerPolicy: n.ReferrerPolicy, NotStartedDestination: n.NotStartedDestination, LimitDestination: n.LimitDestination,
		QueryMode: n.QueryMode, UTM: n.UTM.domain(), Sticky: n.Sticky,
		IOSDestination: n.IOSDestination, IOSStore: n.IOSStore, AndroidDestination: n.AndroidDestination, AndroidStore: n.AndroidStore,
		OGTitle: n.OGTitle, OGDescription: n.OGDescription, OGImage: n.OGImage, Pixels: toPixels(n.Pixels), Cloak: n.Cloak,
	}
	if w.IsZero() {
		return nil
	}
	return w
}

func (p *PatchLinkWeb) domain() links.WebPatch {
	out := links.WebPatch{
		IOSDestination: p.IOSDestination.pointer(), IOSStore: p.IOSStore.pointer(), AndroidDestination: p.AndroidDestination.pointer(), AndroidStore: p.AndroidStore.pointer(),
		OGTitle: p.OGTitle.pointer(), OGDescription: p.OGDescription.pointer(), OGImage: p.OGImage.pointer(), Cloak: p.Cloak.pointer(),
		NoIndex: patchBool(&p.NoIndex), ReferrerPolicy: p.ReferrerPolicy.pointer(), NotStartedDestination: p.NotStartedDestination.pointer(),
		LimitDestination: p.LimitDestination.pointer(), QueryMode: p.QueryMode.pointer(), UTM: patchUTM(&p.UTM), Sticky: p.Sticky.pointer(),
	}
	if p.Pixels.Set {
		pixels := toPixels(p.Pixels.Value)
		out.Pixels = &pixels
	}
	return out
}

func toPixels(list []Pixel) []terse.Pixel {
	var out []terse.Pixel
	for _, p := range list {
		out = append(out, terse.Pixel(p))
	}
	return out
}

// patchBool is for a switch that null gives back to the domain.
func patchBool(o *Optional[bool]) **bool {
	if !o.Set {
		return nil
	}
	var own *bool
	if !o.Null {
		own = &o.Value
	}
	return &own
}
