// Package redirect is the redirect plane: it answers visitors of short links. It is
// an adapter of valyala/fasthttp around one function, decide, that turns a compiled
// link and the facts of a request into an outcome.
//
// It is not the control plane, and it depends on no part of it: no database driver,
// no API, no analytics. A store is a narrow reader, clicks go into a recorder that
// never waits. What it serves is specified by TestBehaviour and docs/redirect.md.
//
// Invariants:
//
//   - A code leads only to its own link's destination. Whatever is not known for
//     sure (store down, wrong permutation key, a setting this version does not know)
//     is 503 with Retry-After; 404 is said only of what is known not to exist.
//   - Location consists of the bytes 0x21 to 0x7e: stored destinations are checked
//     again when they are compiled, forwarded parts are encoded here.
//   - Answering waits for nothing but a cache miss, and for that no longer than the
//     load timeout. Recording a click never waits.
//   - Nothing of a request outlives its handler. The request's own bytes are used,
//     never fasthttp's normalised path.
//   - A panic is a 500 and a count, never the end of the process.
//
// One file per step of a request: request.go reads the header block, handler.go
// finds host, path and link, decide.go decides, forward.go builds a Location that
// takes parts of the request along, response.go and pages.go answer.
package redirect
