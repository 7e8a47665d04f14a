package api

import (
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
)

// DomainPlaces is where visits go that a link does not take, and what is added to those it takes.
type DomainPlaces struct {
	NotStartedDestination *string `json:"not_started_destination"`
	LimitDestination      *string `json:"limit_destination"`
	QueryMode             string  `json:"query_mode" enum:"append,incoming_first,stored_first,drop"`
	UTM                   *UTM    `json:"utm"`
	ClickIDParameter      *string `json:"click_id_parameter" doc:"Destinations get the id of the click under this name."`
	Brand                 *Brand  `json:"brand"`
}

// Brand is how the pages of a domain look.
type Brand struct {
	Name       string `json:"name,omitempty" doc:"At most 80 bytes." example:"Acme"`
	Accent     string `json:"accent,omitempty" doc:"The colour of the buttons, #rrggbb." example:"#0b57d0"`
	Logo       string `json:"logo,omitempty" doc:"An https URL, or an image (PNG, JPEG, GIF, WebP or SVG) as a data URL of at most 8 KiB in base64."`
	SupportURL string `json:"support_url,omitempty" doc:"An http, https or mailto URL, linked below the page." example:"https://example.com/help"`
}

// Schema implements huma.SchemaProvider: null is the plain look.
func (Brand) Schema(r huma.Registry) *huma.Schema {
	type brand Brand
	return nullable(r, reflect.TypeFor[brand]())
}

// NewDomainPlaces is DomainPlaces in the body of a creation.
type NewDomainPlaces struct {
	NotStartedDestination string `json:"not_started_destination,omitempty" nullable:"true" doc:"Where visitors of links that have not begun go; without it as with an unknown code."`
	LimitDestination      string `json:"limit_destination,omitempty" nullable:"true" doc:"Where visitors go when the clicks of a link are used up; without it as with ended links."`
	QueryMode             string `json:"query_mode,omitempty" nullable:"true" doc:"How the visitor's query is added: append, incoming_first, stored_first or drop. Says also whether it is."`
	UTM                   *UTM   `json:"utm,omitempty" doc:"UTM parameters for destinations that have none of the name."`
	ClickIDParameter      string `json:"click_id_parameter,omitempty" nullable:"true" doc:"Adds the id of the click to destinations under this name, for conversions; not to permanent redirects." example:"click_id"`
	Brand                 *Brand `json:"brand,omitempty" doc:"How pages look: of unknown and ended links, for passwords, and so on."`
}

// PatchDomainPlaces is DomainPlaces in the body of a change.
type PatchDomainPlaces struct {
	NotStartedDestination Optional[string] `json:"not_started_destination,omitempty"`
	LimitDestination      Optional[string] `json:"limit_destination,omitempty"`
	QueryMode             Optional[string] `json:"query_mode,omitempty"`
	UTM                   Optional[UTM]    `json:"utm,omitempty"`
	ClickIDParameter      Optional[string] `json:"click_id_parameter,omitempty"`
	Brand                 Optional[Brand]  `json:"brand,omitempty" doc:"As a whole; null: the plain look."`
}

func domainPlaces(d *domains.Domain) DomainPlaces {
	return DomainPlaces{
		NotStartedDestination: orNull(d.NotStartedDestination), LimitDestination: orNull(d.LimitDestination),
		QueryMode: queryMode(d.Domain.QueryMode, d.ForwardQuery), UTM: showUTM(d.UTM), Brand: (*Brand)(d.Brand),
		ClickIDParameter: orNull(d.ClickIDParameter),
	}
}

func (b *Brand) domain() *terse.Brand { return (*terse.Brand)(b) }

// patchBrand returns nil for an absent field and no brand for null.
func patchBrand(o *Optional[Brand]) *terse.Brand {
	if !o.Set {
		return nil
	}
	return o.Value.domain()
}
