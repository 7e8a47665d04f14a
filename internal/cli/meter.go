package cli

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// meter shows how far something is that tells so now and then: a bar on a terminal, a line
// every few seconds elsewhere.
type meter struct {
	w       io.Writer // nil: nothing is shown
	now     func() time.Time
	shown   time.Time // the last line
	bars    *mpb.Progress
	bar     *mpb.Bar
	caption atomic.Pointer[string]
}

// meterSteps is how finely a bar is divided.
const meterSteps = 1000

// meter begins to show.
func (s *session) meter(quiet bool) *meter {
	m := &meter{now: s.Now}
	if quiet {
		return m
	}
	m.w = s.Stderr
	if isTerminal(s.Stderr) {
		m.bars = mpb.New(mpb.WithOutput(m.w), mpb.WithWidth(40), mpb.WithAutoRefresh())
		m.bar = m.bars.New(meterSteps, mpb.BarStyle().Rbound("]"), mpb.BarRemoveOnComplete(), mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
			if text := m.caption.Load(); text != nil {
				return " " + *text
			}
			return ""
		})))
	}
	return m
}

// show tells the part that is done, 0 to 1, and what to say of it. A line is shown at once if
// last is set, for it will be true for long.
func (m *meter) show(part float64, text string, last bool) {
	switch now := m.now(); {
	case m.w == nil:
	case m.bar != nil:
		m.caption.Store(&text)
		m.bar.SetCurrent(int64(min(part, 0.99) * meterSteps)) // a full bar would be removed
	case last || now.Sub(m.shown) >= lineEvery:
		m.shown = now
		fmt.Fprintln(m.w, text)
	}
}

// stop ends showing. A bar is removed.
func (m *meter) stop() {
	if m.bar != nil {
		m.bar.Abort(true)
		m.bars.Wait()
		m.bar = nil
	}
}
