package clicks

import (
	_ "embed"
	"strconv"
	"strings"
	"sync"
)

//go:embed data/hosting.txt
var hostingText string

// loadHosting returns the networks of the data file. Lines that are no entries are left out; TestHostingData finds them.
var loadHosting = sync.OnceValue(func() map[uint32]bool {
	set := map[uint32]bool{}
	for line := range dataLines(hostingText) {
		number, _, _ := strings.Cut(line, " ")
		if n, err := strconv.ParseUint(number, 10, 32); err == nil {
			set[uint32(n)] = true
		}
	}
	return set
})

// hosted returns the networks of the data file and some more.
func hosted(more []uint32) map[uint32]bool {
	if len(more) == 0 {
		return loadHosting()
	}
	set := map[uint32]bool{}
	for n := range loadHosting() {
		set[n] = true
	}
	for _, n := range more {
		set[n] = true
	}
	return set
}
