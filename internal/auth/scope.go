package auth

import (
	"slices"

	"github.com/terselink/terse"
)

// Scope is what a key may do.
type Scope string

// The scopes. Reading is never part of writing: a key that may do both has both.
const (
	ScopeAll              Scope = "*" // everything within the key's workspace
	ScopeLinksRead        Scope = "links:read"
	ScopeLinksWrite       Scope = "links:write"
	ScopeLinksBlock       Scope = "links:block" // blocking links for abuse, and lifting what the workspace blocked
	ScopeDomainsRead      Scope = "domains:read"
	ScopeDomainsWrite     Scope = "domains:write"
	ScopeAnalyticsRead    Scope = "analytics:read"
	ScopeAnalyticsWrite   Scope = "analytics:write"   // to share statistics, to erase clicks and to delete exports
	ScopeConversionsWrite Scope = "conversions:write" // to record conversions; reading them is analytics:read
	ScopeKeysRead         Scope = "keys:read"
	ScopeKeysWrite        Scope = "keys:write"
	ScopeWorkspacesRead   Scope = "workspaces:read"
	ScopeWorkspacesWrite  Scope = "workspaces:write"
	ScopeSystemRead       Scope = "system:read"
	// ScopeEdgeUse is for edge nodes: it reads the links and domains of all workspaces. Only the owner key can give
	// it, and it is no part of ScopeAll.
	ScopeEdgeUse Scope = "edge:use"
)

// Scopes returns every scope that a key may have.
func Scopes() []Scope {
	return []Scope{
		ScopeAll, ScopeLinksRead, ScopeLinksWrite, ScopeLinksBlock, ScopeDomainsRead, ScopeDomainsWrite, ScopeAnalyticsRead, ScopeAnalyticsWrite, ScopeConversionsWrite,
		ScopeKeysRead, ScopeKeysWrite, ScopeWorkspacesRead, ScopeWorkspacesWrite, ScopeSystemRead,
		ScopeEdgeUse,
	}
}

// checkScopes refuses unknown scopes, and scopes that the maker of the key does
// not have. It returns them without repetition, in their fixed order.
func checkScopes(want []Scope, maker *Identity) ([]Scope, error) {
	if len(want) == 0 {
		return nil, &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_scope", Field: "scopes", Message: "at least one scope is required"}
	}
	all := Scopes()
	for _, s := range want {
		if !slices.Contains(all, s) {
			return nil, &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_scope", Field: "scopes", Message: "there is no such scope"}
		}
		if !maker.Allows(s) || s == ScopeEdgeUse && !maker.Owner {
			return nil, &terse.Error{Code: terse.CodeForbidden, Reason: "scope_exceeded", Field: "scopes", Message: "a key cannot give more than it has"}
		}
	}
	return slices.DeleteFunc(all, func(s Scope) bool { return !slices.Contains(want, s) }), nil
}
