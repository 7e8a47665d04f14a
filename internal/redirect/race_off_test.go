//go:build !race

package redirect

// raceEnabled: see race_on_test.go.
const raceEnabled = false
