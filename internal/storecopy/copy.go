package storecopy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
)

// Options say what to copy.
type Options struct {
	From, To terse.Portable
	// ByCreation says that the target lists links by their time of creation, not in the order in which they were
	// inserted: then links go in as large a chunk as they come.
	ByCreation bool
	// Settle is asked before the target is compared again because its listings lag: it waits, and says whether to go
	// on. Nil: they do not lag.
	Settle func(ctx context.Context, attempt int) bool
	// Sample is how many links are compared field by field. 0 means 1,000.
	Sample int
	// Progress is called after every step, from one goroutine. Nil: nobody wants to know.
	Progress func(Progress)
}

// Progress is how far a copy is.
type Progress struct {
	Phase Phase
	Links uint64 // done in this phase, with those of a run before
	Total uint64 // 0 while it is not known
}

// Phase is what a copy is doing.
type Phase string

// The phases, in their order.
const (
	PhaseReading   Phase = "reading"   // the source, to know what there is
	PhaseCopying   Phase = "copying"   // links, after everything else
	PhaseVerifying Phase = "verifying" // the target
)

// Report is what a copy did.
type Report struct {
	Resumed bool // it went on where another had ended
	Source  *Survey
	Sampled int // links that were compared field by field
}

// copier is one run.
type copier struct {
	o       Options
	report  Report
	state   state
	version uint64 // of the document of the state
	unsaved int    // chunks since it was saved
	names   *domains.Registry
}

// Run copies everything and verifies it. What was copied stays after an error, and another Run goes on
// there. Returns an error of code conflict if the target is not empty and is not a part of this copy, of code
// invalid if the source is not fit to be copied, and a *MismatchError if the copy is not like the source.
func Run(ctx context.Context, o Options) (Report, error) {
	if o.Sample == 0 {
		o.Sample = 1_000
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	c := &copier{o: o}
	source, err := survey(ctx, o.From, o.Sample, func(n uint64) { o.Progress(Progress{Phase: PhaseReading, Links: n}) })
	if err != nil {
		return c.report, fmt.Errorf("read the source: %w", err)
	}
	c.report.Source = source
	switch {
	case source.state != nil:
		return c.report, terse.Invalid("from", "is itself a copy that was not finished")
	case source.DocumentCount() == 0 && source.LinkCount() == 0:
		return c.report, terse.Invalid("from", "holds nothing")
	}
	if err := c.openNames(ctx); err != nil {
		return c.report, err
	}
	defer c.names.Close()
	if err := c.begin(ctx, fmt.Sprintf("%016x", source.digest())); err != nil {
		return c.report, fmt.Errorf("look at the target: %w", err)
	}
	if !c.state.Loaded {
		if err := c.load(ctx); err != nil {
			return c.report, fmt.Errorf("copy documents: %w", err)
		}
	}
	if !c.state.Copied {
		if err := c.copyLinks(ctx); err != nil {
			return c.report, fmt.Errorf("copy links: %w", err)
		}
	}
	if err := c.verify(ctx); err != nil {
		return c.report, err
	}
	if err := c.finish(ctx); err != nil {
		return c.report, fmt.Errorf("end the copy: %w", err)
	}
	return c.report, nil
}

// openNames prepares the domains of the source: engines that keep links under their codes must be told them, and
// others check later reads against them. A domain whose key is not the one of its codes is refused: no code of its would
// be right.
func (c *copier) openNames(ctx context.Context) error {
	r, err := domains.OpenKept(ctx, domains.Options{Store: c.o.From, Clock: func() terse.Millis { return terse.MillisOf(time.Now()) }, Log: slog.New(slog.DiscardHandler)}, c.report.Source.domains, "")
	if err != nil {
		return err
	}
	c.names = r
	for n := range c.report.Source.Links {
		if d := r.ByNumber(n); d != nil && d.Broken() != nil {
			r.Close()
			return &terse.Error{Code: terse.CodeInvalid, Field: "from", Message: "a domain cannot be copied: its permutation key is not the one of its codes", Err: d.Broken()}
		}
	}
	return nil
}

// load copies everything but links. Counters come last: until then no code could be issued.
func (c *copier) load(ctx context.Context) error {
	if err := eachPart(ctx, c.o.From, c.state.Part, func(p *terse.Part) error {
		p.Documents = slices.DeleteFunc(p.Documents, func(d terse.Document) bool { return isOwn(&d) })
		if err := again(ctx, func() error { return c.o.To.Load(ctx, p) }); err != nil {
			return err
		}
		for _, n := range p.Counters {
			if err := c.raise(ctx, n); err != nil {
				return err
			}
		}
		c.state.Part = p.Next
		if c.unsaved++; c.unsaved < saveParts || p.Next == "" {
			return nil
		}
		return c.save(ctx)
	}); err != nil {
		return err
	}
	c.state.Part, c.state.Loaded = "", true
	return c.save(ctx)
}

// How many parts, chunks and links are copied between two notes of how far it is.
const (
	saveParts  = 20
	saveChunks = 200
	saveLinks  = 50_000
)

// raise leases a space up to where it is in the source.
func (c *copier) raise(ctx context.Context, n terse.Counter) error {
	return again(ctx, func() error {
		next, err := c.o.To.Next(ctx, n.Domain, n.Space)
		switch {
		case err != nil || next == n.Next:
			return err
		case next > n.Next:
			return &terse.Error{Code: terse.CodeConflict, Field: "to", Message: fmt.Sprintf("counter %d of domain %d is further than in the source", n.Space, n.Domain)}
		}
		_, err = c.o.To.Lease(ctx, terse.LeaseRequest{Domain: n.Domain, Space: n.Space, Count: n.Next - next, Cap: n.Next})
		return err
	})
}

// copyLinks copies the links of one workspace after the other.
func (c *copier) copyLinks(ctx context.Context) error {
	total := c.report.Source.LinkCount()
	c.o.Progress(Progress{PhaseCopying, c.state.Links, total})
	sinceSave := 0
	for _, w := range c.report.Source.sortedWorkspaces() {
		if w < c.state.Workspace {
			continue // an earlier run did it
		}
		after := ""
		if w == c.state.Workspace {
			after = c.state.Cursor
		}
		c.state.Workspace = w
		if err := eachPage(ctx, c.o.From, w, after, func(page *terse.LinkPage) error {
			c.setCodes(page.Links)
			for links := page.Links; len(links) > 0; {
				n := c.chunk(links)
				if err := c.insert(ctx, links[:n]); err != nil {
					return err
				}
				links = links[n:]
				c.unsaved++
			}
			c.state.Links += uint64(len(page.Links))
			c.state.Cursor = page.Next
			if page.Next == "" {
				c.state.Workspace = w + 1
			}
			sinceSave += len(page.Links)
			if c.unsaved >= saveChunks || sinceSave >= saveLinks {
				sinceSave = 0
				if err := c.save(ctx); err != nil {
					return err
				}
			}
			c.o.Progress(Progress{PhaseCopying, c.state.Links, total})
			return nil
		}); err != nil {
			return err
		}
	}
	c.state.Copied = true
	return c.save(ctx)
}

// chunk returns how many of the links, at least one, go into one insert: within one an engine orders by number, so it
// ends where the numbers fall.
func (c *copier) chunk(links []terse.Link) int {
	if c.o.ByCreation {
		return len(links)
	}
	n := 1
	for n < len(links) && links[n].Number > links[n-1].Number {
		n++
	}
	return n
}

// setCodes gives every link its code.
func (c *copier) setCodes(links []terse.Link) {
	buf := make([]byte, 0, 10*len(links))
	ends := make([]int, len(links))
	for i := range links {
		if l := &links[i]; !l.Named() && l.Code == "" {
			if d := c.names.ByNumber(l.Number.Domain()); d != nil && d.Permuted(l.Number) {
				buf = d.AppendCode(buf, l.Number)
			}
		}
		ends[i] = len(buf)
	}
	text, start := string(buf), 0
	for i := range links {
		if code := text[start:ends[i]]; code != "" {
			links[i].Code = code
		}
		start = ends[i]
	}
}

// insert inserts links, of which some may be there from a run before.
func (c *copier) insert(ctx context.Context, links []terse.Link) error {
	for {
		err := again(ctx, func() error { return c.o.To.InsertLinks(ctx, &terse.Chunk{Links: links}) })
		if err == nil || !errors.Is(err, terse.ErrAliasTaken) {
			return err
		}
		missing, lookErr := c.missing(ctx, links)
		if lookErr != nil {
			return lookErr
		}
		switch len(missing) {
		case 0:
			return nil
		case len(links):
			return fmt.Errorf("link %s and perhaps others: %w", links[0].Number, err)
		}
		links = missing
	}
}

// missing returns the links that are not in the target. One that is there and is another is an error.
func (c *copier) missing(ctx context.Context, links []terse.Link) ([]terse.Link, error) {
	keys, found := make([]terse.LinkKey, len(links)), make([]terse.Link, len(links))
	for i := range links {
		keys[i] = terse.LinkKey{Number: links[i].Number, Code: links[i].Code}
	}
	if err := again(ctx, func() error { return c.o.To.GetLinks(ctx, keys, found) }); err != nil {
		return nil, err
	}
	var missing []terse.Link
	for i := range links {
		if found[i].Number == 0 {
			missing = append(missing, links[i])
		} else if fields := differences(&links[i], &found[i]); len(fields) > 0 {
			return nil, &terse.Error{Code: terse.CodeConflict, Field: "to", Message: fmt.Sprintf("has another link %s: %v differ", links[i].Number, fields)}
		}
	}
	return missing, nil
}
