// Package e2e holds the tests that see Terse as its users do: they build the program,
// start it as a process, speak HTTP and the command line to it, stop it, kill it and look at what
// is left. They know nothing of its inside. TERSE_BIN names a program to test in place of
// a fresh build.
//
// The crash test is the proof of the promises about durability (docs/durability.md): what
// decides is a ledger that the client keeps, of everything the server has acknowledged.
package e2e
