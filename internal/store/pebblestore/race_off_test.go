//go:build !race

package pebblestore

// raceEnabled: see race_on_test.go.
const raceEnabled = false
