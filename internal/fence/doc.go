// Package fence lets one process at a time carry out a duty, over the documents of a store.
//
// A lock is a document. Whoever holds it raises its version several times within Options.Lease; whoever
// wants it takes it when the version has stood still for longer than that. No clock of another machine is
// believed: only how long something took counts, measured where it matters. Invariants:
//
//   - the context of a duty ends before anybody else can take its lock, unless the process was
//     paused or starved in that very moment;
//   - the version of the document is the fencing token: it grows with every holder and every renewal. What is
//     written with Held.Write is written together with the next version, so a holder that was paused and
//     does not know that it lost the lock writes nothing;
//   - a lock is given back in order at a stop, so the next holder need not wait.
//
// A duty that writes by other means must be harmless when it runs twice for a moment.
package fence
