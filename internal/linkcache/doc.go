// Package linkcache is a second level below the redirect plane's own cache: links that any node has read are kept in a server
// that all nodes reach (Redis), so that a node which has just started need not ask the database for each of them.
//
// It is never needed. Whatever happens to the server, a look-up waits for it a few milliseconds at most and then asks the store; for
// a quarter of a second after that nobody waits.
//
// Invariants (the argument is docs/adr/0024-link-cache.md):
//
//   - The server says up to which position of the store's feed all changes have been applied to its entries. An entry is
//     believed only if that is at least the position up to which this node has followed the feed, and if it was
//     written since the server last lost what it held (the epoch). So no answer is older than what the node would know from
//     the feed alone.
//   - An entry older than a version that this node has been told of is not believed.
//   - An entry is written only by who read the store after following the feed to a position, and is refused if the server
//     has forgotten changes behind that position, or knows of a newer version.
//   - Nothing waits for a write, and a link whose look-up has side effects (a password, a limit of clicks) is never kept.
package linkcache
