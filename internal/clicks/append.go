package clicks

import (
	"context"
	"errors"
	"io"

	"github.com/terselink/terse"
)

// Groups are self-contained, so those of one spool can go into another as they are: the clicks keep their ids, and
// visitors and places were made where the addresses were.

// NextGroups appends whole groups to dst, as they are on disk, until these are at least most bytes or everything
// written so far. Position is then the place after the last of them. Damage is treated as by Next.
func (r *Reader) NextGroups(ctx context.Context, dst []byte, most int) ([]byte, error) {
	for begin := len(dst); len(dst)-begin < most; {
		if err := ctx.Err(); err != nil {
			return dst, err
		}
		n, err := r.stepGroup(func(info groupInfo, group []byte) (int, bool, error) {
			if r.check(info, group[groupHeader:]) != nil {
				return 0, true, nil
			}
			dst = append(dst, group...)
			r.stats.Records += uint64(info.records)
			r.stats.Groups++
			return info.records, false, nil
		})
		if errors.Is(err, io.EOF) {
			return dst, nil
		}
		if err != nil {
			return dst, err
		}
		if n > 0 {
			r.backoff = waitFirst
		}
	}
	return dst, nil
}

// EachGroup calls fn with every group in b, which NextGroups made, the number of its clicks and the id of the first, which no
// other group has. Nothing is said of the groups unless all are whole and readable: else it returns an error of code invalid.
func EachGroup(b []byte, fn func(first terse.ClickID, group []byte, records int)) error {
	return eachGroup(b, func(g *foundGroup) { fn(g.first, g.bytes, g.records) })
}

type foundGroup struct {
	first   terse.ClickID
	bytes   []byte
	records int
	keeps   bool // something of visitors, see Kept
}

func eachGroup(b []byte, fn func(*foundGroup)) error {
	var list []foundGroup
	var r Reader
	for len(b) > 0 {
		info, err := parseGroupHeader(b)
		if err != nil || len(b) < info.size() {
			return errGroups
		}
		group := b[:info.size()]
		if r.check(info, group[groupHeader:]) != nil || r.group.reset(info, group[groupHeader:]) != nil {
			return errGroups
		}
		keeps := r.group.kept.more
		if r.group.next(&r.raw) != nil {
			return errGroups
		}
		list = append(list, foundGroup{r.raw.ID, group, info.records, keeps})
		b = b[len(group):]
	}
	for i := range list {
		fn(&list[i])
	}
	return nil
}

var errGroups = &terse.Error{Code: terse.CodeInvalid, Message: "not whole groups of a spool"}

// appended is a request of Append.
type appended struct {
	groups []byte
	counts []int // the clicks of each group
	answer chan error
}

// Append writes groups of another recorder's spool (Reader.NextGroups) into this one, durable when it returns nil. What a workspace
// no longer wants kept of its visitors is left out. Returns an error of code invalid if they are not whole, unavailable if the
// spool is full or closed, and unknown_outcome if the disk refused or ctx ended.
func (r *Recorder) Append(ctx context.Context, groups []byte) error {
	const op = "append clicks"
	// The caller may give up and use its bytes again while the writer has not come to them.
	a := appended{groups: make([]byte, 0, len(groups)), answer: make(chan error, 1)}
	limit := keptLimit{wanted: r.o.Kept}
	var unread error
	err := eachGroup(groups, func(g *foundGroup) {
		if g.keeps && unread == nil {
			a.groups, unread = limit.appendGroup(a.groups, g.bytes)
		} else {
			a.groups = append(a.groups, g.bytes...)
		}
		a.counts = append(a.counts, g.records)
	})
	if err == nil {
		err = unread
	}
	if err != nil {
		return err
	}
	if rungOf(r.dirBytes.Load(), r.o.MaxBytes) == rungNone {
		return &terse.Error{Code: terse.CodeUnavailable, Op: op, Message: "the spool is full"}
	}
	select {
	case r.append <- a:
	case <-r.done:
		return &terse.Error{Code: terse.CodeUnavailable, Op: op, Message: "the recorder is closed"}
	case <-ctx.Done():
		return &terse.Error{Code: terse.CodeUnavailable, Op: op, Err: ctx.Err()}
	}
	select {
	case err := <-a.answer:
		if err != nil {
			return &terse.Error{Code: terse.CodeUnknownOutcome, Op: op, Err: err}
		}
		return nil
	case <-ctx.Done():
		return &terse.Error{Code: terse.CodeUnknownOutcome, Op: op, Err: ctx.Err()}
	}
}

// errStopped answers those who wait for what could not be written before the end.
var errStopped = errors.New("the recorder stopped before the disk took it")

// add puts the groups of Append behind those that wait to be written.
func (w *writer) add(a *appended) {
	w.pending = append(w.pending, a.groups...)
	w.counts = append(w.counts, a.counts...)
	for _, n := range a.counts {
		w.r.stats.appended.Add(uint64(n))
	}
}
