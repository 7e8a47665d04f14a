//go:build !linux

package openloop

import "time"

// preciseSleep returns the best sleep there is: latencies below a millisecond then show its
// error rather than the server.
func preciseSleep() (sleep func(time.Duration), relax func()) { return time.Sleep, func() {} }
