package clickstream

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/sleep"
)

// SenderOptions configure a Sender. Fields without a remark are required.
type SenderOptions struct {
	Remote Remote
	Dir    string // of the spool
	Spool  string // names it for ever
	Window int64  // bytes that may be in the stream and not stored yet; default DefaultWindow
	Log    *slog.Logger
}

// DefaultWindow is some million clicks.
const DefaultWindow = 64 << 20

const (
	// entryBytes is how much an entry has at most, but for the group that reaches it.
	entryBytes = 64 << 10
	// smallEntry is followed by a pause, so that clicks gather: a group of the spool is as small as 5 ms of visits.
	smallEntry = 16 << 10
	gather     = 10 * time.Millisecond

	lookEvery  = 200 * time.Millisecond // at the mark
	askFirst   = 2 * time.Second        // before what is not answered is asked again, doubled each time
	askMost    = 15 * time.Second
	pauseFirst = 100 * time.Millisecond
	pauseMost  = 5 * time.Second
	// nobodyAfter is how long a question may have no answer until that is said.
	nobodyAfter = 30 * time.Second
)

// Sender adds the clicks of a spool to the stream, in order, and follows up to where they are stored. It is a prometheus.Collector.
type Sender struct {
	o      SenderOptions
	reader *clicks.Reader // nil: it is to begin
	run    uint64
	cursor clicks.Position // everything before it is in entries of the run
	unsent []byte          // an entry whose Add failed; it ends at cursor
	next   *group          // read, and not in an entry yet
	node   string          // that recorded next
	flight []flight        // not known to be stored, in order
	looked time.Time

	asked     time.Time // when the last question was sent
	askPause  time.Duration
	since     time.Time     // of the first question that was not answered; zero: there is none
	lostPause time.Duration // grows while nothing gets through

	window  atomic.Int64 // bytes of flight
	stored  atomic.Pointer[clicks.Position]
	trouble trouble
	nobody  atomic.Bool // nobody answers

	clicks, bytes, failures, again atomic.Uint64
}

// flight is an entry on its way.
type flight struct {
	to    clicks.Position
	bytes int64
}

// NewSender returns a Sender that does nothing yet.
func NewSender(o SenderOptions) *Sender {
	if o.Window <= 0 {
		o.Window = DefaultWindow
	}
	return &Sender{o: o, askPause: askFirst, trouble: trouble{log: o.Log, text: "clicks cannot be added to the stream: they wait in the spool"}}
}

// Stored returns the place in the spool before which all clicks are with the engine; zero until somebody has said so.
func (s *Sender) Stored() clicks.Position {
	if p := s.stored.Load(); p != nil {
		return *p
	}
	return clicks.Position{}
}

// Trouble says why clicks do not arrive; "" if they do.
func (s *Sender) Trouble() string {
	if t := s.trouble.get(); t != "" {
		return "redis does not take them"
	}
	if s.nobody.Load() {
		return fmt.Sprintf("nobody has stored them for %d s: is a node with the role worker there, and does its log say that this spool is held?", int(nobodyAfter.Seconds()))
	}
	return ""
}

// Run sends clicks until ctx ends.
func (s *Sender) Run(ctx context.Context) {
	for pause := pauseFirst; ctx.Err() == nil; {
		n, err := s.step(ctx)
		if ctx.Err() != nil {
			return
		}
		s.trouble.note(err)
		switch {
		case err != nil:
			s.failures.Add(1)
			_ = sleep.For(ctx, pause/2+rand.N(pause)) // it ends with ctx
			pause = min(2*pause, pauseMost)
			continue
		case n == 0 && s.reader != nil && s.window.Load() < s.o.Window:
			short, cancel := context.WithTimeout(ctx, lookEvery)
			_ = s.reader.Wait(short)
			cancel()
		case n == 0:
			_ = sleep.For(ctx, pauseFirst)
		case n < smallEntry:
			_ = sleep.For(ctx, gather)
		}
		pause = pauseFirst
	}
}

// Finish sends what is left, after Run and when nothing is recorded any more. It gives up at the first failure, and does not wait until
// anything is stored: the next start goes on from what is.
//
// Returns an error if the spool was not read to its end.
func (s *Sender) Finish(ctx context.Context) error {
	defer s.close()
	for s.reader != nil {
		n, err := s.step(ctx)
		if err != nil {
			return err
		}
		if n == 0 && s.reader != nil {
			if s.unsent == nil && s.window.Load() < s.o.Window { // there is nothing more
				return nil
			}
			return errWindow
		}
	}
	return errNoPlace
}

var (
	errWindow  = &terse.Error{Code: terse.CodeUnavailable, Message: "more clicks wait in the stream than a node may have there: nobody stores them"}
	errNoPlace = &terse.Error{Code: terse.CodeUnavailable, Message: "nobody has said from where in the spool clicks are to be sent"}
)

// step does the next thing, and returns how many bytes it has added to the stream.
func (s *Sender) step(ctx context.Context) (int, error) {
	if s.reader == nil {
		return 0, s.begin(ctx)
	}
	if err := s.look(ctx); err != nil || s.reader == nil {
		return 0, err
	}
	if s.unsent == nil {
		if s.window.Load() >= s.o.Window {
			return 0, s.askAgain(ctx)
		}
		if err := s.fill(ctx); err != nil {
			return 0, err
		}
		if s.unsent == nil { // the spool is read to its end
			return 0, s.askAgain(ctx)
		}
	}
	n := len(s.unsent)
	if err := s.o.Remote.Add(ctx, s.unsent); err != nil {
		return 0, err
	}
	s.unsent = nil
	s.bytes.Add(uint64(n))
	s.asked = time.Now() // what was sent is answered like a question
	return n, nil
}

// begin asks for the place from which on clicks are to be sent, and goes there once there is an answer.
func (s *Sender) begin(ctx context.Context) error {
	if s.run == 0 || time.Since(s.asked) > s.askPause {
		if s.run == 0 {
			if s.lostPause > 0 {
				if err := sleep.For(ctx, s.lostPause); err != nil {
					return err
				}
			}
			s.run, s.since, s.askPause = rand.Uint64()|1, time.Now(), askFirst
		} else {
			s.askPause = min(2*s.askPause, askMost)
		}
		if err := s.question(ctx, clicks.Position{}); err != nil {
			return err
		}
	}
	m, err := s.told(ctx)
	if err != nil || m == nil {
		s.nobody.Store(time.Since(s.since) > nobodyAfter)
		return err
	}
	if s.reader, err = clicks.NewReader(clicks.ReaderOptions{Dir: s.o.Dir, From: m.stored, Log: s.o.Log}); err != nil {
		return err
	}
	s.cursor = m.stored
	s.arrived(m.stored)
	s.o.Log.Info("clicks go into the stream", "from", m.stored.String())
	return nil
}

// question adds an entry without clicks, which is answered with a mark.
func (s *Sender) question(ctx context.Context, from clicks.Position) error {
	s.asked = time.Now()
	return s.o.Remote.Add(ctx, (&entry{run: s.run, spool: s.o.Spool, from: from}).append(nil))
}

// told returns the mark of this spool; nil: it does not answer this run.
func (s *Sender) told(ctx context.Context) (*mark, error) {
	s.looked = time.Now()
	text, err := s.o.Remote.Told(ctx, s.o.Spool)
	if err != nil {
		return nil, err
	}
	m, ok := parseMark(text)
	if !ok || m.run != s.run {
		return nil, nil
	}
	return &m, nil
}

// look reads the mark now and then while there is something to learn from it.
func (s *Sender) look(ctx context.Context) error {
	if len(s.flight) == 0 || time.Since(s.looked) < lookEvery {
		return nil
	}
	s.nobody.Store(time.Since(s.since) > nobodyAfter)
	m, err := s.told(ctx)
	if err != nil || m == nil {
		return err
	}
	if !m.lost {
		s.arrived(m.stored)
		return nil
	}
	s.o.Log.Warn("clicks in the stream were lost: they are sent again", "from", m.stored.String())
	s.again.Add(1)
	s.close()
	return nil
}

// arrived notes that everything before p is stored.
func (s *Sender) arrived(p clicks.Position) {
	if p.Compare(s.Stored()) > 0 {
		s.stored.Store(&p)
	}
	n := 0
	for n < len(s.flight) && s.flight[n].to.Compare(p) <= 0 {
		s.window.Add(-s.flight[n].bytes)
		n++
	}
	if n > 0 {
		s.askPause, s.lostPause = askFirst, 0
	}
	s.flight = s.flight[n:]
	if n > 0 || len(s.flight) == 0 {
		s.since = time.Now()
		s.nobody.Store(false)
	}
}

// askAgain asks whether what was sent has arrived, if nothing is heard of it: the stream may have been emptied.
func (s *Sender) askAgain(ctx context.Context) error {
	if len(s.flight) == 0 {
		return nil
	}
	if time.Since(s.asked) < s.askPause {
		return nil
	}
	s.askPause = min(2*s.askPause, askMost)
	return s.question(ctx, s.cursor)
}

// close forgets what is under way, so that the next step begins anew.
func (s *Sender) close() {
	if s.reader != nil {
		_ = s.reader.Close() // it was read only
	}
	s.reader, s.run, s.unsent, s.next, s.flight = nil, 0, nil, nil, nil
	s.window.Store(0)
	s.lostPause = min(max(2*s.lostPause, pauseFirst), askMost)
}

// fill makes the next entry of what the spool has; none if there is nothing more at the moment.
func (s *Sender) fill(ctx context.Context) error {
	e := entry{run: s.run, spool: s.o.Spool, from: s.cursor}
	size, before := 0, s.reader.Stats().Records
	for size < entryBytes {
		if s.next == nil {
			b, err := s.reader.NextGroups(ctx, nil, 1)
			if err != nil && len(e.groups) == 0 {
				return err
			}
			if len(b) == 0 { // what there is goes first, whatever is wrong with the rest
				break
			}
			s.next, s.node = &group{end: s.reader.Position(), data: b}, s.reader.Node()
		}
		if len(e.groups) > 0 && !e.to().SameSegment(s.next.end) {
			break
		}
		e.node = s.node
		e.groups = append(e.groups, *s.next)
		size += len(s.next.data)
		s.next = nil
	}
	s.clicks.Add(s.reader.Stats().Records - before)
	if len(e.groups) == 0 {
		return nil
	}
	if len(s.flight) == 0 {
		s.since = time.Now()
	}
	s.unsent, s.cursor = e.append(nil), e.to()
	s.flight = append(s.flight, flight{s.cursor, int64(len(s.unsent))})
	s.window.Add(int64(len(s.unsent)))
	return nil
}

var (
	descSent    = prometheus.NewDesc("terse_click_stream_sent_clicks_total", "Clicks of this node that were read for the stream, those that were sent again too.", nil, nil)
	descBytes   = prometheus.NewDesc("terse_click_stream_sent_bytes_total", "Bytes of entries that the stream has taken.", nil, nil)
	descErrors  = prometheus.NewDesc("terse_click_stream_send_errors_total", "Failed attempts to add to the stream or to learn what is stored.", nil, nil)
	descAgain   = prometheus.NewDesc("terse_click_stream_sent_again_total", "How often something in the stream was lost and sent again.", nil, nil)
	descWaiting = prometheus.NewDesc("terse_click_stream_waiting_bytes", "Bytes of the spool of this node that are not known to be stored: in the stream or not sent yet.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *Sender) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descSent, descBytes, descErrors, descAgain, descWaiting} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. What is not known is left out.
func (s *Sender) Collect(ch chan<- prometheus.Metric) {
	for d, n := range map[*prometheus.Desc]*atomic.Uint64{descSent: &s.clicks, descBytes: &s.bytes, descErrors: &s.failures, descAgain: &s.again} {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n.Load()))
	}
	if n, err := clicks.BytesAfter(s.o.Dir, s.Stored()); err == nil {
		ch <- prometheus.MustNewConstMetric(descWaiting, prometheus.GaugeValue, float64(n))
	}
}
