// Package terse holds the domain model of the Terse short-link platform: the
// types, the contract that every link store implements, and the error codes
// that every layer speaks. It imports the standard library only, so that any
// package may import it and a new storage engine needs nothing else.
//
// The words used here mean one thing everywhere: a link is a row; its code is
// the generated last part of a short URL; an alias is a code that a person
// chose; a domain is a host with its own code spaces; a destination is where a
// visitor is sent; a campaign is many links made together; a click is one
// recorded redirect decision. See docs/architecture.md.
package terse
