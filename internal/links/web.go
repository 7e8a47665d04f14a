package links

import (
	"slices"
	"strings"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/destination"
)

// WebPatch changes what a link says of the answer beside where it leads: nil leaves a
// field as it is, a pointer to the zero value gives it back to the domain.
type WebPatch struct {
	NoIndex               **bool
	ReferrerPolicy        *string
	NotStartedDestination *string
	LimitDestination      *string
	QueryMode             *string
	UTM                   *terse.UTM
	Sticky                *string

	IOSDestination, IOSStore, AndroidDestination, AndroidStore *string
	OGTitle, OGDescription, OGImage                            *string
	Pixels                                                     *[]terse.Pixel
	Cloak                                                      *bool
}

// apply changes set as p says.
func (p *WebPatch) apply(set *terse.LinkSettings) {
	var w terse.LinkWeb
	if set.Web != nil {
		w = *set.Web
	}
	assign(&w.NoIndex, p.NoIndex)
	assign(&w.ReferrerPolicy, p.ReferrerPolicy)
	assign(&w.NotStartedDestination, p.NotStartedDestination)
	assign(&w.LimitDestination, p.LimitDestination)
	assign(&w.QueryMode, p.QueryMode)
	assign(&w.Sticky, p.Sticky)
	assign(&w.IOSDestination, p.IOSDestination)
	assign(&w.IOSStore, p.IOSStore)
	assign(&w.AndroidDestination, p.AndroidDestination)
	assign(&w.AndroidStore, p.AndroidStore)
	assign(&w.OGTitle, p.OGTitle)
	assign(&w.OGDescription, p.OGDescription)
	assign(&w.OGImage, p.OGImage)
	assign(&w.Pixels, p.Pixels)
	assign(&w.Cloak, p.Cloak)
	if p.UTM != nil {
		w.UTM = nil
		if *p.UTM != (terse.UTM{}) {
			w.UTM = p.UTM
		}
	}
	set.Web = &w
}

// allowed returns what the workspace allows, and what is there already, nil for nothing, and kept: who changes a title
// need not turn pages off that were allowed once. The redirect plane asks again for every visit.
func (p *WebPatch) allowed(set terse.WorkspaceSettings, w *terse.LinkWeb) terse.WorkspaceSettings {
	if w == nil {
		return set
	}
	if p.Pixels == nil && w.Pixels != nil && (p.Cloak == nil || !*p.Cloak) || p.Cloak == nil && w.Cloak && (p.Pixels == nil || len(*p.Pixels) == 0) {
		set.Interstitials = true
	}
	for _, kept := range []struct {
		change *string
		url    string
	}{{p.IOSDestination, w.IOSDestination}, {p.AndroidDestination, w.AndroidDestination}} {
		if kept.change == nil && destination.IsApp(kept.url) {
			scheme, _, _ := strings.Cut(kept.url, "://")
			set.AppSchemes = append(slices.Clip(set.AppSchemes), scheme)
		}
	}
	return set
}
