package edge

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/sleep"
)

// ShipperOptions configure a Shipper. Fields without a remark are required.
type ShipperOptions struct {
	Client   *Client
	Spool    string                                  // the directory
	Edge     string                                  // names the spool for ever
	Receiver string                                  // the file that keeps where the clicks go, which must not get lost before the spool
	Shipped  string                                  // the file that keeps up to where they have arrived, for a receiver that does not know
	Write    func(path string, content []byte) error // durably
	Log      *slog.Logger
}

// Shipper sends the clicks of an edge to the control plane, in the order of the spool and each once: the control plane knows up to
// where it has them, and is asked after every failure. It sends them to the process that it began with, whose spool
// a file names, since another one would not know that. If that file is taken away, because the process is lost, it goes on with
// another one from where the first had them. It is a prometheus.Collector.
type Shipper struct {
	o        ShipperOptions
	receiver string
	kept     clicks.Position // what the file Shipped holds
	keptAt   time.Time

	reader *clicks.Reader // nil: the control plane is to be asked
	at     clicks.Position
	batch  []byte
	most   int // what a batch is to have at least if there is so much: shipBytes, or less on a slow line

	shipped  atomic.Pointer[clicks.Position]
	trouble  atomic.Pointer[string]
	sent     atomic.Uint64 // clicks
	bytes    atomic.Uint64
	failures atomic.Uint64
}

const (
	// shipBytes is how much a batch has at least if there is so much and the line is not slow.
	shipBytes = 1 << 20
	// shipSoon is the part of the time for a batch that one of twice the size may well take.
	shipSoon = 4
	// shipPause is the pause after a batch that was smaller: requests for a few clicks each would cost more than they bring.
	shipPause = 100 * time.Millisecond
	shipMost  = 5 * time.Second
	// keepEvery is how many clicks may count twice if the receiver and this process are lost in one moment, as time.
	keepEvery = time.Second
)

// NewShipper returns a Shipper that does nothing yet.
func NewShipper(o ShipperOptions) (*Shipper, error) {
	b, err := os.ReadFile(o.Receiver)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	s := &Shipper{o: o, receiver: strings.TrimSpace(string(b)), most: shipBytes}
	switch b, err = os.ReadFile(o.Shipped); {
	case errors.Is(err, fs.ErrNotExist): // none were sent, or an earlier version sent them
	case err != nil:
		return nil, err
	default:
		if s.kept, err = clicks.ParsePosition(strings.TrimSpace(string(b))); err != nil { // it is written anew; nobody needs it while the receiver is there
			o.Log.Warn("up to where clicks have arrived cannot be read, and counts as unknown", "file", o.Shipped, "error", err)
		}
	}
	return s, nil
}

// keep notes up to where the clicks have arrived, at most once in keepEvery unless it has to be now. An error costs nothing until the
// receiver is lost, so it is logged only. Before the receiver has answered there is nothing to note.
func (s *Shipper) keep(now bool) {
	if s.at == s.kept || s.at == (clicks.Position{}) || !now && time.Since(s.keptAt) < keepEvery {
		return
	}
	s.keptAt = time.Now()
	if err := s.o.Write(s.o.Shipped, []byte(s.at.String()+"\n")); err != nil {
		s.o.Log.Warn("what has arrived of the clicks is not noted: another control plane in place of this one would count some twice", "error", err)
		return
	}
	s.kept = s.at
}

// Shipped returns the place in the spool before which the control plane has all clicks; zero until it has said so.
func (s *Shipper) Shipped() clicks.Position {
	if p := s.shipped.Load(); p != nil {
		return *p
	}
	return clicks.Position{}
}

// Trouble says why clicks cannot be sent; "" if they can.
func (s *Shipper) Trouble() string {
	if p := s.trouble.Load(); p != nil {
		return *p
	}
	return ""
}

// Run sends clicks until ctx ends.
func (s *Shipper) Run(ctx context.Context) {
	for pause := pauseFirst; ctx.Err() == nil; {
		n, err := s.step(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && n == 0:
			s.keep(true)
			_ = s.reader.Wait(ctx) // it ends with ctx
			continue
		case err == nil:
			pause = pauseFirst
			if n < s.most {
				_ = sleep.For(ctx, shipPause)
			}
			continue
		}
		s.failed(err)
		_ = sleep.For(ctx, pause/2+rand.N(pause))
		pause = min(2*pause, shipMost)
	}
}

// Finish sends what is left, after Run and when nothing is recorded any more. It gives up at the first failure: the next start goes on.
func (s *Shipper) Finish(ctx context.Context) error {
	for {
		n, err := s.step(ctx)
		if err != nil || n == 0 {
			s.keep(true)
			s.close()
			return err
		}
	}
}

func (s *Shipper) failed(err error) {
	text := terse.Message(err)
	if last := s.trouble.Swap(&text); last == nil || *last != text {
		s.o.Log.Warn("clicks cannot be sent to the upstream control plane: they wait in the spool", "error", err)
	}
	s.failures.Add(1)
	s.close()
}

func (s *Shipper) close() {
	if s.reader != nil {
		_ = s.reader.Close()
		s.reader = nil
	}
}

// step sends one batch and returns its size; 0 if there is nothing to send.
func (s *Shipper) step(ctx context.Context) (n int, err error) {
	if s.reader == nil {
		if err := s.begin(ctx); err != nil {
			return 0, err
		}
	}
	before := s.reader.Stats().Records
	if s.batch, err = s.reader.NextGroups(ctx, s.batch[:0], s.most); err != nil || len(s.batch) == 0 {
		return 0, err
	}
	to := s.reader.Position()
	c, began := s.o.Client, time.Now()
	answer, err := c.sendClicks(ctx, s.o.Edge, s.receiver, s.at.String(), to.String(), s.batch)
	switch {
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil: // down to one group
		s.most = max(len(s.batch)/2, 1)
	case err == nil && time.Since(began) < c.sendWithin/shipSoon:
		s.most = min(2*s.most, shipBytes)
	}
	if err != nil {
		return 0, err
	}
	p, err := clicks.ParsePosition(answer.Position)
	if err != nil || p != to { // it has other clicks than this process thought
		s.close()
		return len(s.batch), err
	}
	s.arrived(to)
	s.keep(false)
	s.sent.Add(s.reader.Stats().Records - before)
	s.bytes.Add(uint64(len(s.batch)))
	return len(s.batch), nil
}

func (s *Shipper) arrived(p clicks.Position) {
	s.at = p
	s.shipped.Store(&p)
	s.trouble.Store(nil)
}

// begin asks up to where the clicks are there, and goes there.
func (s *Shipper) begin(ctx context.Context) error {
	to, err := s.o.Client.clicksAt(ctx, s.o.Edge)
	if err != nil {
		return err
	}
	if s.receiver != "" && s.receiver != to.Receiver {
		return &terse.Error{Code: terse.CodeConflict, Message: "another process than before answers for the upstream control plane: its spool is " +
			to.Receiver + ", and clicks that went to " + s.receiver + " could be counted twice"}
	}
	changed := s.receiver == ""
	if changed { // known before the first click is sent, also after a kill
		if err := s.o.Write(s.o.Receiver, []byte(to.Receiver+"\n")); err != nil {
			return err
		}
		s.receiver = to.Receiver
	}
	p, err := clicks.ParsePosition(to.Position)
	if err != nil {
		return err
	}
	if p == (clicks.Position{}) || changed && s.kept.Compare(p) > 0 { // it knows nothing of this edge, or not what another one has had since
		p = s.kept
	}
	if s.reader, err = clicks.NewReader(clicks.ReaderOptions{Dir: s.o.Spool, From: p, Log: s.o.Log}); err != nil {
		return err
	}
	s.arrived(p)
	return nil
}

var (
	descSent     = prometheus.NewDesc("terse_edge_clicks_sent_total", "Clicks that the upstream control plane has taken.", nil, nil)
	descSentSize = prometheus.NewDesc("terse_edge_clicks_sent_bytes_total", "Bytes of these clicks.", nil, nil)
	descSendErrs = prometheus.NewDesc("terse_edge_clicks_send_errors_total", "Failed attempts to send clicks.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *Shipper) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descSent, descSentSize, descSendErrs} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *Shipper) Collect(ch chan<- prometheus.Metric) {
	for d, n := range map[*prometheus.Desc]*atomic.Uint64{descSent: &s.sent, descSentSize: &s.bytes, descSendErrs: &s.failures} {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n.Load()))
	}
}
