// Package edge makes a redirect node out of nothing but the URL of a control plane and a folder on local disk. It is the store of
// such a node (Store), and the way its clicks take (Shipper).
//
// A Store asks the control plane for what the redirect plane asks it for, keeps the answers in a copy on disk, and follows the feed of
// changes, which it applies to the copy. What is in the copy is served from it, whether the control plane answers or
// not: it is as old as the feed is late. What is not in it is asked for, and unavailable while nobody answers.
//
// Invariants:
//
//   - Absence is said by the control plane alone, never by a failure, and is not kept on disk.
//   - The copy has the position in the feed up to which it is right, written in one batch with what the changes
//     before it made of it.
//   - An older version never replaces a newer one, and what was deleted does not come back: what an answer says that was
//     overtaken by a change is not kept.
//   - After a gap in the feed everything in the copy is in doubt: it is asked for again, and served as it is only
//     while nobody answers.
//   - A claim of clicks of a link with a limit is the control plane's to give, and never in the copy.
//   - A control plane that is slow or away costs each visitor's goroutine a bounded time, and after a few failures none at
//     all: the circuit of the client is open, and somebody tries once a second.
//
// Locks: there are none. One goroutine writes the copy, and what it alone uses (recent) is its own; the state is replaced as a whole.
//
// It knows no redirect plane and no cache: changes.Target is told what has changed. docs/edge.md is for operators.
package edge
