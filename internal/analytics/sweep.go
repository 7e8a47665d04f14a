package analytics

import (
	"github.com/terselink/terse"
)

// A sweep is a program that follows many links at once, such as the scanner of a mail server that opens every link of a
// message before the person does: one visitor, or one network whose requests name no language, on SweepLinks different links
// of a workspace within SweepWindow. Bursts of scanners start at any time after a message was sent, so the time since then
// says nothing, and nobody follows five links in two seconds by hand.
const (
	SweepWindow = 2000 // ms
	SweepLinks  = 5    // by default
	// SweepName is the name of the bot in clicks that belong to a sweep; their class is clicks.BotScanner.
	SweepName = "Sweep"
)

// SweepClick is a click of one visitor or network in one workspace.
type SweepClick struct {
	At   terse.Millis
	Link terse.LinkNumber
}

// SweepSpan is a time in which all clicks of that visitor or network belong to a sweep; both ends belong to it.
type SweepSpan struct{ From, To terse.Millis }

// Sweeps returns the spans, in order and apart, in which clicks, which are in order of time, have at least links different
// links within SweepWindow. Whether a click belongs to a sweep depends on the clicks less than SweepWindow before and
// after it alone.
func Sweeps(clicks []SweepClick, links int) []SweepSpan {
	var spans []SweepSpan
	inside := map[terse.LinkNumber]int{}
	end := 0
	for start := range clicks {
		for end < len(clicks) && clicks[end].At-clicks[start].At <= SweepWindow {
			inside[clicks[end].Link]++
			end++
		}
		if len(inside) >= links {
			s := SweepSpan{clicks[start].At, clicks[end-1].At}
			if n := len(spans); n > 0 && s.From <= spans[n-1].To {
				spans[n-1].To = s.To
			} else {
				spans = append(spans, s)
			}
		}
		if l := clicks[start].Link; inside[l] == 1 {
			delete(inside, l)
		} else {
			inside[l]--
		}
	}
	return spans
}
