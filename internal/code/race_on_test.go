//go:build race

package code

// raceEnabled: the race detector makes sync.Pool forget things on purpose.
const raceEnabled = true
