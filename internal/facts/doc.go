// Package facts tells the analytics engine what it must know beside clicks: the tags of links and
// campaigns, and conversions. It follows the changes of the store, which is the truth; the engine's copy
// can be lost at any time and is then told again.
//
// Invariants:
//
//   - the position and what was told up to it are one transaction of the engine, so nothing is
//     told twice or left out, whoever is killed;
//   - it reads the store and writes the engine only; nobody waits for it;
//   - after a gap in the changes, which are kept for a day at least, everything is told again.
//
// The engine lags behind the store by Options.Every plus the time of a batch.
package facts
