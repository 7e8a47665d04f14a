// Package lint holds the rules of this code base that no linter knows: which
// package may import which, which calls belong to one place, what the docs must
// name. They are tests, so that breaking one names the file and the reason.
package lint
