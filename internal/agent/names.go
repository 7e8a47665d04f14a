package agent

import (
	"maps"
	"slices"
)

// systems are the operating systems that Parse tells apart.
var systems = []string{
	"Android", "BlackBerry", "ChromeOS", "FreeBSD", "Harmony", "KaiOS", "Linux", "Tizen", "Windows", "Windows Phone", "iOS", "macOS", "webOS",
}

// Systems returns the names that Info.OS can have, but for "".
func Systems() []string { return slices.Clone(systems) }

// Browsers returns the names that Info.Browser can have, but for "", in their order.
func Browsers() []string {
	names := map[string]bool{"Internet Explorer": true, "Safari": true} // which browser tells by other signs, too
	for _, b := range browserTokens {
		names[b.name] = true
	}
	for _, name := range libraryBrowsers {
		names[name] = true
	}
	return slices.Sorted(maps.Keys(names))
}
