//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

var (
	armed string
	stops bool
	left  atomic.Int64
)

func init() {
	v := os.Getenv("FAILPOINT")
	if v == "" {
		return
	}
	name, times, _ := strings.Cut(v, ":")
	times, stops = strings.CutSuffix(times, ":stop")
	n, err := strconv.ParseInt(times, 10, 64)
	if err != nil || n < 1 || !slices.Contains(Names, name) {
		panic(fmt.Sprintf("FAILPOINT=%s is not the name of a place, a number and perhaps stop", v)) // a mistake of the test
	}
	armed = name
	left.Store(n)
}

// Hit kills or stops the process if the place is the one that was named, and this is the time.
func Hit(name string) {
	if name != armed || left.Add(-1) != 0 {
		return
	}
	if stops {
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP) // cannot fail for ourselves
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // the same
	select {}
}
