package terse

// Brand is how the pages of a domain look. The zero value is the plain look.
type Brand struct {
	Name       string `json:"name,omitempty"`
	Accent     string `json:"accent,omitempty"`      // "#rrggbb", lower case
	Logo       string `json:"logo,omitempty"`        // an https URL, or a small image as a data URL
	SupportURL string `json:"support_url,omitempty"` // http, https or mailto
}
