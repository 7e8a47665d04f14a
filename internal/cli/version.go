package cli

import "runtime/debug"

// BuildVersion returns the version of this program: what the linker was told, else
// what the build recorded, which is a revision for a build from a checkout.
func BuildVersion(linked string) string {
	if linked != "" {
		return linked
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return info.Main.Version
}
