//go:build race

package pebblestore

// raceEnabled: the race detector slows Pebble down twentyfold. What is counted in seeds and
// faults is run in full without it, and in part with it, where only races are looked for.
const raceEnabled = true
