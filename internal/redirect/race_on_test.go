//go:build race

package redirect

// raceEnabled: the race detector makes sync.Pool forget things on purpose, so what is made anew counts as allocated.
const raceEnabled = true
