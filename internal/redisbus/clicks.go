package redisbus

import (
	"cmp"
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clickstream"
)

var _ clickstream.Remote = (*Clicks)(nil)

// Clicks is the stream of package clickstream. Nothing is dropped when something is added: the stream is trimmed by who reads it, up to what
// the group has done with. Its keys do not expire. It needs a server from 6.2 on.
//
// Everybody who reads is the same consumer, because one process at a time does: the next one finds what the one before had in its hands in order, and
// need not wait for a time after which that may be claimed.
type Clicks struct {
	conn
	stream, marks, aside string
	keepAside            time.Duration
	seal                 sealer
	bad                  *refusals

	mu           sync.Mutex
	trimmed      time.Time
	done         []string // entries that are done since then, and may be in the stream
	swept        string   // up to here it was looked for what others have done and left; "": from the beginning
	sweepTo      string   // and here is the end; "": not known yet
	clean        bool     // nothing more is to be looked for
	asideTrimmed time.Time
}

const (
	clickGroup    = "store"
	clickConsumer = "owner"
	fieldEntry    = "e"
	// clicksLabel tells the key of signatures from others that follow from the same secret, and sealedEntry and sealedMark what is signed.
	clicksLabel = "terse clicks 1 "
	sealedEntry = "entry"
	sealedMark  = "mark"
	// trimEvery is how often memory is given back.
	trimEvery = time.Second
	// maxAside is how many entries are kept aside, and trimAsideEvery how often those that are too old go.
	maxAside       = 1000
	trimAsideEvery = time.Minute
	// idsAtOnce is how many entries one command is for, by their ids.
	idsAtOnce = 1000
	// doneMost is how many entries are remembered as done: a server that refuses to delete them must not fill the memory. Beyond, they are looked for.
	doneMost = 100_000
	// sweepAtOnce is how many entries are read at once in the search for what is done, and sweepPages how many times in trimEvery.
	sweepAtOnce = 64
	sweepPages  = 8
	// lastAside is among how many of the newest copies another one is looked for; of 64 KiB each or a little more.
	lastAside = 20
)

// ClicksOptions configure a Clicks.
type ClicksOptions struct {
	Options
	// Secret is what all nodes of the instance know, and nobody else: entries and marks are signed with what follows from it, because who writes
	// a mark says which clicks need not be sent. An entry names its spool and run, and a mark its run; it is bound to its spool.
	Secret []byte
	// KeepAside is for how long a copy of what was set aside is kept: it holds what visitors sent. 0: until somebody empties it.
	KeepAside time.Duration
	Log       *slog.Logger
}

// NewClicks reads the options; nothing is connected. Returns an error of code invalid.
func NewClicks(o ClicksOptions) (*Clicks, error) {
	if len(o.Secret) < 32 {
		return nil, terse.Invalid("secret", "is shorter than 32 bytes")
	}
	option, err := clientOption(o.URL)
	if err != nil {
		return nil, err
	}
	base := fmt.Sprintf("%s:{%s:clicks}:", o.Prefix, o.Instance) // on one node of a cluster
	seal, err := sealerFor(o.Secret, clicksLabel+base)
	if err != nil {
		return nil, err
	}
	return &Clicks{
		conn: newConn(option), stream: base + "stream", marks: base + "marks", aside: base + "aside", keepAside: o.KeepAside, seal: seal,
		bad: refusalsOf(o.Log, "clicks", prometheus.CounterOpts{
			Name: "terse_click_stream_refused_total", Help: "Entries and marks in the stream of clicks that no node of this instance has signed, or that were damaged.",
		}, sealedEntry, sealedMark),
	}, nil
}

// Refused counts what was not signed by a node.
func (s *Clicks) Refused() prometheus.Collector { return s.bad.count }

// call returns the client and a context for one exchange.
func (s *Clicks) call(ctx context.Context) (rueidis.Client, context.Context, context.CancelFunc, error) {
	c, err := s.connect()
	if err != nil {
		return nil, nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, ioWithin)
	return c, ctx, cancel, nil
}

// Add implements clickstream.Remote.
func (s *Clicks) Add(ctx context.Context, entry []byte) error {
	c, ctx, cancel, err := s.call(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	return c.Do(ctx, c.B().Xadd().Key(s.stream).Id("*").FieldValue().FieldValue(fieldEntry, rueidis.BinaryString(entry)).
		FieldValue(fieldMAC, s.seal.sign(sealedEntry, "", "", rueidis.BinaryString(entry))).Build()).Error()
}

// Read implements clickstream.Remote.
func (s *Clicks) Read(ctx context.Context, most int) ([]clickstream.Message, error) {
	return s.read(ctx, ">", most)
}

// Unfinished implements clickstream.Remote.
func (s *Clicks) Unfinished(ctx context.Context, after string, most int) ([]clickstream.Message, error) {
	return s.read(ctx, cmp.Or(after, firstID), most)
}

// Pending implements clickstream.Remote.
func (s *Clicks) Pending(ctx context.Context, after string, most int) ([]clickstream.Pending, error) {
	return s.deliveries(ctx, "("+cmp.Or(after, firstID), "+", most)
}

// firstID is before all entries.
const firstID = "0-0"

func (s *Clicks) read(ctx context.Context, from string, most int) ([]clickstream.Message, error) {
	c, ctx, cancel, err := s.call(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	got, err := c.Do(ctx, c.B().Xreadgroup().Group(clickGroup, clickConsumer).Count(int64(most)).Streams().Key(s.stream).Id(from).Build()).AsXRead()
	switch {
	case rueidis.IsRedisNil(err):
		return nil, nil
	case missing(err): // everything was lost, or nothing was ever there
		err := c.Do(ctx, c.B().XgroupCreate().Key(s.stream).Group(clickGroup).Id("0").Mkstream().Build()).Error()
		if err != nil && !strings.Contains(err.Error(), "BUSYGROUP") {
			return nil, err
		}
		return nil, nil
	case err != nil:
		return nil, err
	}
	list := make([]clickstream.Message, 0, len(got[s.stream]))
	for _, e := range got[s.stream] {
		m := clickstream.Message{ID: e.ID}
		if e.FieldValues != nil { // else it was deleted
			text := e.FieldValues[fieldEntry]
			m.Entry = []byte(text)
			if m.Unsigned = !s.seal.verify(e.FieldValues[fieldMAC], sealedEntry, "", "", text); m.Unsigned {
				s.bad.add(sealedEntry)
			}
		}
		list = append(list, m)
	}
	return list, nil
}

// deliveries returns how often entries that are not done were handed out, in order.
func (s *Clicks) deliveries(ctx context.Context, from, to string, most int) ([]clickstream.Pending, error) {
	c, ctx, cancel, err := s.call(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	rows, err := c.Do(ctx, c.B().Xpending().Key(s.stream).Group(clickGroup).Start(from).End(to).Count(int64(most)).Build()).ToArray()
	if err != nil {
		if missing(err) {
			err = nil
		}
		return nil, err
	}
	counts := make([]clickstream.Pending, 0, len(rows))
	for _, row := range rows {
		parts, err := row.ToArray()
		if err != nil || len(parts) < 4 {
			return nil, errPending
		}
		id, err1 := parts[0].ToString()
		n, err2 := parts[3].AsInt64()
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		counts = append(counts, clickstream.Pending{ID: id, Deliveries: n})
	}
	return counts, nil
}

var errPending = &terse.Error{Code: terse.CodeInternal, Message: "the server's answer to XPENDING cannot be understood"}

// Excuse implements clickstream.Remote.
func (s *Clicks) Excuse(ctx context.Context, not map[string]bool) error {
	from := "-"
	for {
		counts, err := s.deliveries(ctx, from, "+", idsAtOnce)
		if err != nil || len(counts) == 0 {
			return err
		}
		ids := make([]string, 0, len(counts))
		for _, p := range counts {
			if !not[p.ID] {
				ids = append(ids, p.ID)
			}
		}
		if err := s.excuse(ctx, ids); err != nil || len(counts) < idsAtOnce {
			return err
		}
		from = "(" + counts[len(counts)-1].ID
	}
}

func (s *Clicks) excuse(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	c, ctx, cancel, err := s.call(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	return c.Do(ctx, c.B().Xclaim().Key(s.stream).Group(clickGroup).Consumer(clickConsumer).MinIdleTime("0").Id(ids...).Retrycount(0).Justid().Build()).Error()
}

// laterID reports whether the id of an entry is after another one.
func laterID(a, b string) bool {
	ams, aseq := parseID(a)
	bms, bseq := parseID(b)
	return ams > bms || ams == bms && aseq > bseq
}

func parseID(id string) (ms, seq uint64) {
	first, second, _ := strings.Cut(id, "-")
	ms, _ = strconv.ParseUint(first, 10, 64)   // the server's own
	seq, _ = strconv.ParseUint(second, 10, 64) // the same
	return ms, seq
}

// Done implements clickstream.Remote.
func (s *Clicks) Done(ctx context.Context, ids []string) error {
	s.mu.Lock()
	due := (len(s.done)+len(ids) > 0 || !s.clean) && time.Since(s.trimmed) >= trimEvery
	if due {
		s.trimmed = time.Now()
	}
	dueAside := s.keepAside > 0 && time.Since(s.asideTrimmed) >= trimAsideEvery
	if dueAside {
		s.asideTrimmed = time.Now()
	}
	s.mu.Unlock()
	if len(ids) == 0 && !due && !dueAside {
		return nil
	}
	c, call, cancel, err := s.call(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if len(ids) > 0 {
		if err := c.Do(call, c.B().Xack().Key(s.stream).Group(clickGroup).Id(ids...).Build()).Error(); err != nil && !missing(err) {
			return err
		}
		s.remember(ids)
	}
	if dueAside {
		if err := s.trimAside(call, c); err != nil {
			return err
		}
	}
	if !due {
		return nil
	}
	return s.tidy(call, c)
}

// Flush implements clickstream.Remote.
func (s *Clicks) Flush(ctx context.Context) error {
	s.mu.Lock()
	n := len(s.done)
	s.sweepAgain()
	s.mu.Unlock()
	if n == 0 {
		return nil
	}
	c, ctx, cancel, err := s.call(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	_, err = s.trim(ctx, c)
	return err
}

// sweepAgain lets it be looked for what is done and still there, under the lock.
func (s *Clicks) sweepAgain() { s.swept, s.sweepTo, s.clean = "", "", false }

// remember notes what is done and to be deleted.
func (s *Clicks) remember(ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.done)+len(ids) > doneMost {
		s.done = nil
		s.sweepAgain()
		return
	}
	s.done = append(s.done, ids...)
}

// tidy gives back the memory of what this process has done, and looks for a part of what others have.
func (s *Clicks) tidy(ctx context.Context, c rueidis.Client) error {
	st, err := s.trim(ctx, c)
	if err != nil {
		return err
	}
	for range sweepPages {
		if more, err := s.sweep(ctx, c, st); err != nil || !more {
			return err
		}
	}
	return nil
}

// trim drops what is before the first entry that somebody needs, and of what is behind it the entries that are done: one that holds its spool may
// stay for long. What could not be deleted is tried once more the next time, though nothing more may ever be done.
func (s *Clicks) trim(ctx context.Context, c rueidis.Client) (streamState, error) {
	s.mu.Lock()
	done := s.done
	s.done = nil
	s.mu.Unlock()
	st, err := s.state(ctx, c)
	if err == nil && st.keep != "" {
		err = c.Do(ctx, c.B().Xtrim().Key(s.stream).Minid().Threshold(st.keep).Build()).Error()
	}
	if err == nil {
		done = slices.DeleteFunc(done, func(id string) bool { return st.keep == "" || !laterID(id, st.keep) })
		done, err = s.drop(ctx, c, done)
	}
	if len(done) > 0 {
		s.remember(done)
	}
	return st, err
}

// drop deletes entries, and returns those that it could not.
func (s *Clicks) drop(ctx context.Context, c rueidis.Client, ids []string) ([]string, error) {
	for len(ids) > 0 {
		n := min(len(ids), idsAtOnce)
		if err := c.Do(ctx, c.B().Xdel().Key(s.stream).Id(ids[:n]...).Build()).Error(); err != nil {
			return ids, err
		}
		ids = ids[n:]
	}
	return nil, nil
}

// sweep deletes of the next page those entries that were handed out and are not pending: a process that was killed has acknowledged them and not
// deleted them. It reports whether there is more to look at. The server has no command that tells ids without what is in the entries, so it is done once for each who receives.
func (s *Clicks) sweep(ctx context.Context, c rueidis.Client, st streamState) (more bool, err error) {
	s.mu.Lock()
	from, to, clean := s.swept, s.sweepTo, s.clean
	s.mu.Unlock()
	if clean || st.keep == "" {
		return false, nil
	}
	if to == "" || laterID(to, st.delivered) { // never what was not handed out: an older copy of the stream may have come back
		to = st.delivered
	}
	if from == "" || laterID(st.keep, from) { // the first one is pending, or it is the last of all and stays
		from = st.keep
	}
	var page []rueidis.XRangeEntry
	if laterID(to, from) {
		page, err = c.Do(ctx, c.B().Xrange().Key(s.stream).Start("("+from).End(to).Count(sweepAtOnce).Build()).AsXRange()
		if err != nil {
			return false, err
		}
	}
	if len(page) > 0 {
		pending, err := s.deliveries(ctx, page[0].ID, page[len(page)-1].ID, len(page))
		if err != nil {
			return false, err
		}
		waits := make(map[string]bool, len(pending))
		for _, p := range pending {
			waits[p.ID] = true
		}
		var ids []string
		for _, e := range page {
			if !waits[e.ID] {
				ids = append(ids, e.ID)
			}
		}
		if _, err := s.drop(ctx, c, ids); err != nil {
			return false, err
		}
		from = page[len(page)-1].ID
	}
	more = len(page) == sweepAtOnce
	s.mu.Lock()
	defer s.mu.Unlock()
	s.swept, s.sweepTo, s.clean = from, to, !more
	return more, nil
}

// trimAside drops what was set aside too long ago.
func (s *Clicks) trimAside(ctx context.Context, c rueidis.Client) error {
	before := time.Now().Add(-s.keepAside).UnixMilli()
	return c.Do(ctx, c.B().Xtrim().Key(s.aside).Minid().Threshold(strconv.FormatInt(before, 10)).Build()).Error()
}

var errAside = fmt.Errorf("%w: %d entries are set aside already: look at them and empty the stream aside (docs/redis.md)", clickstream.ErrNoRoom, maxAside)

// Tell implements clickstream.Remote.
func (s *Clicks) Tell(ctx context.Context, marks map[string]string) error {
	c, ctx, cancel, err := s.call(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	set := c.B().Hset().Key(s.marks).FieldValue()
	for spool, mark := range marks {
		set = set.FieldValue(spool, s.signed(spool, mark))
	}
	return c.Do(ctx, set.Build()).Error()
}

// signed returns a mark of a spool behind its signature.
func (s *Clicks) signed(spool, mark string) string {
	return fmt.Sprintf("%x %s", s.seal.sign(sealedMark, spool, "", mark), mark)
}

// Told implements clickstream.Remote.
func (s *Clicks) Told(ctx context.Context, spool string) (string, error) {
	c, ctx, cancel, err := s.call(ctx)
	if err != nil {
		return "", err
	}
	defer cancel()
	text, err := c.Do(ctx, c.B().Hget().Key(s.marks).Field(spool).Build()).ToString()
	if rueidis.IsRedisNil(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	_, mark, _ := strings.Cut(text, " ")
	if !hmac.Equal([]byte(text), []byte(s.signed(spool, mark))) {
		s.bad.add(sealedMark)
		return "", nil // as if it was lost: the sender asks again
	}
	return mark, nil
}

// SetAside implements clickstream.Remote.
func (s *Clicks) SetAside(ctx context.Context, m clickstream.Message, why string) error {
	c, ctx, cancel, err := s.call(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	// The reply to the one before may have been lost, or the process that kept it may have ended before the place after the entry was written.
	last, err := c.Do(ctx, c.B().Xrevrange().Key(s.aside).End("+").Start("-").Count(lastAside).Build()).AsXRange()
	if err != nil {
		return err
	}
	for _, e := range last {
		if e.FieldValues["id"] == m.ID && e.FieldValues[fieldEntry] == string(m.Entry) {
			return nil
		}
	}
	n, err := c.Do(ctx, c.B().Xlen().Key(s.aside).Build()).AsInt64()
	if err != nil {
		return err
	}
	if n >= maxAside {
		return errAside
	}
	err = c.Do(ctx, c.B().Xadd().Key(s.aside).Id("*").FieldValue().FieldValue("id", m.ID).FieldValue("why", why).FieldValue(fieldEntry, rueidis.BinaryString(m.Entry)).Build()).Error()
	if err != nil && strings.HasPrefix(err.Error(), "OOM ") {
		return fmt.Errorf("%w: %w", clickstream.ErrNoRoom, err)
	}
	return err
}

// State implements clickstream.Watched.
func (s *Clicks) State(ctx context.Context) (clickstream.State, error) {
	c, ctx, cancel, err := s.call(ctx)
	if err != nil {
		return clickstream.State{}, err
	}
	defer cancel()
	st, err := s.state(ctx, c)
	if err != nil {
		return clickstream.State{}, err
	}
	if st.Aside, err = c.Do(ctx, c.B().Xlen().Key(s.aside).Build()).AsInt64(); err != nil {
		return clickstream.State{}, err
	}
	st.Entries, err = c.Do(ctx, c.B().Xlen().Key(s.stream).Build()).AsInt64()
	return st.State, err
}

// streamState is the state, the id of the first entry that somebody needs and that of the last one that was handed out; "": not known.
type streamState struct {
	clickstream.State
	keep, delivered string
}

// state asks for the group, and in the same exchange for what it has not done: entries before both may go.
func (s *Clicks) state(ctx context.Context, c rueidis.Client) (st streamState, err error) {
	got := c.DoMulti(ctx,
		c.B().XinfoGroups().Key(s.stream).Build(),
		c.B().Xpending().Key(s.stream).Group(clickGroup).Build())
	groups, err := got[0].ToArray()
	if missing(err) {
		return st, nil
	}
	if err != nil {
		return st, err
	}
	pending, err := got[1].ToArray()
	if missing(err) {
		return st, nil
	}
	if err != nil {
		return st, err
	}
	if len(pending) < 2 {
		return st, errPending
	}
	if st.Pending, err = pending[0].AsInt64(); err != nil {
		return st, err
	}
	first, _ := pending[1].ToString() // null: none is pending
	for _, g := range groups {
		m, err := g.AsMap()
		if err != nil {
			return st, err
		}
		name := m["name"]
		if text, _ := name.ToString(); text != clickGroup {
			continue
		}
		delivered := m["last-delivered-id"]
		if st.delivered, err = delivered.ToString(); err != nil {
			return st, err
		}
		st.keep = st.delivered
		if lag, ok := m["lag"]; ok { // from 7.0 on, if the server knows it
			st.Lag, _ = lag.AsInt64()
		}
	}
	if first != "" && (st.keep == "" || laterID(st.keep, first)) {
		st.keep = first
	}
	return st, nil
}

// CheckClicks says what of a server does not suit a stream of clicks; "" if it does.
func CheckClicks(ctx context.Context, o Options) (problem, advice string, err error) {
	option, err := clientOption(o.URL)
	if err != nil {
		return "", "", err
	}
	s := &Clicks{conn: newConn(option)} // it only asks the server
	defer s.Close()
	c, ctx, cancel, err := s.call(ctx)
	if err != nil {
		return "", "", inWords(err)
	}
	defer cancel()
	info, err := c.Do(ctx, c.B().Info().Build()).ToString()
	if err != nil {
		return "", "", inWords(err)
	}
	problem, advice = judge(info)
	return problem, advice, nil
}

// judge reads what the server says of itself.
func judge(info string) (problem, advice string) {
	field := map[string]string{}
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			field[name] = value
		}
	}
	version := field["redis_version"]
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err == nil && (major < 6 || major == 6 && minor < 2) {
		problem = "version " + version + " cannot trim a stream by ids: redis.click_streams wants 6.2 or later"
	}
	if policy := field["maxmemory_policy"]; field["maxmemory"] != "0" && strings.HasPrefix(policy, "allkeys-") {
		advice = "maxmemory-policy is " + policy + ": when its memory is full the server drops the stream of clicks, and everything in it is sent again; noeviction suits it"
	}
	return problem, advice
}
