package clickstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// fakeRemote is a stream in memory that fails as a server does.
type fakeRemote struct {
	mu      sync.Mutex
	last    int // id of the newest entry
	entries []fakeEntry
	sent    int           // ids up to it were handed out
	pending map[int]int64 // handed out and not done, and how often
	marks   map[string]string
	aside   []Message
	full    bool
	forged  int // id of an entry whose signature is wrong
	limit   int // bytes of entries with which it is full; 0: none
	away    bool
	// before is called without the lock before each call, and fails it.
	before func(call string) error
	// after fails a call that was applied.
	after func(call string) error
}

type fakeEntry struct {
	id   int
	data []byte
}

var (
	errFull = fmt.Errorf("%w: OOM command not allowed when used memory > 'maxmemory'", ErrNoRoom)
	errAway = errors.New("connection refused")
)

func newFake() *fakeRemote {
	return &fakeRemote{pending: map[int]int64{}, marks: map[string]string{}}
}

// empty is FLUSHALL.
func (f *fakeRemote) empty() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.entries, f.marks, f.pending, f.sent = nil, map[string]string{}, map[int]int64{}, 0
}

func (f *fakeRemote) set(full, away bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.full, f.away = full, away
}

func (f *fakeRemote) setBefore(hook func(call string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = hook
}

func (f *fakeRemote) setAfter(hook func(call string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.after = hook
}

// newest returns the id of the newest entry.
func (f *fakeRemote) newest() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// limitTo makes the entries after one just enough to fill the server, without those before.
func (f *fakeRemote) limitTo(id int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limit = 0
	for _, e := range f.entries {
		if e.id > id {
			f.limit += len(e.data)
		}
	}
}

func (f *fakeRemote) isFull() bool {
	n := 0
	for _, e := range f.entries {
		n += len(e.data)
	}
	return f.full || f.limit > 0 && n >= f.limit
}

// call runs fn under the lock, unless the call fails.
func (f *fakeRemote) call(ctx context.Context, name string, fn func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	before, after := f.before, f.after
	f.mu.Unlock()
	if before != nil {
		if err := before(name); err != nil {
			return err
		}
	}
	f.mu.Lock()
	err := errAway
	if !f.away {
		err = fn()
	}
	f.mu.Unlock()
	if err == nil && after != nil {
		err = after(name)
	}
	return err
}

func (f *fakeRemote) Add(ctx context.Context, entry []byte) error {
	return f.call(ctx, "Add", func() error {
		if f.isFull() {
			return errFull
		}
		f.last++
		f.entries = append(f.entries, fakeEntry{f.last, slices.Clone(entry)})
		return nil
	})
}

func (f *fakeRemote) Read(ctx context.Context, most int) (list []Message, err error) {
	err = f.call(ctx, "Read", func() error {
		for _, e := range f.entries {
			if e.id > f.sent && len(list) < most {
				f.sent = e.id
				f.pending[e.id]++
				list = append(list, Message{ID: fmt.Sprint(e.id), Entry: e.data, Unsigned: e.id == f.forged})
			}
		}
		return nil
	})
	return list, err
}

func (f *fakeRemote) Unfinished(ctx context.Context, after string, most int) (list []Message, err error) {
	err = f.call(ctx, "Unfinished", func() error {
		from := 0
		_, _ = fmt.Sscan(after, &from) // "" is the beginning
		for _, id := range slices.Sorted(maps.Keys(f.pending)) {
			if id <= from || len(list) >= most {
				continue
			}
			m := Message{ID: fmt.Sprint(id), Unsigned: id == f.forged}
			f.pending[id]++
			for _, e := range f.entries {
				if e.id == id {
					m.Entry = e.data
				}
			}
			list = append(list, m)
		}
		return nil
	})
	return list, err
}

func (f *fakeRemote) Pending(ctx context.Context, after string, most int) (list []Pending, err error) {
	err = f.call(ctx, "Pending", func() error {
		from := 0
		_, _ = fmt.Sscan(after, &from) // "" is the beginning
		for _, id := range slices.Sorted(maps.Keys(f.pending)) {
			if id > from && len(list) < most {
				list = append(list, Pending{fmt.Sprint(id), f.pending[id]})
			}
		}
		return nil
	})
	return list, err
}

func (f *fakeRemote) Done(ctx context.Context, ids []string) error {
	return f.call(ctx, "Done", func() error {
		done := map[int]bool{}
		for _, text := range ids {
			var id int
			if _, err := fmt.Sscan(text, &id); err != nil {
				return err
			}
			delete(f.pending, id)
			done[id] = true
		}
		keep := f.sent
		for id := range f.pending {
			keep = min(keep, id)
		}
		f.entries = slices.DeleteFunc(f.entries, func(e fakeEntry) bool { return e.id < keep || e.id > keep && done[e.id] })
		return nil
	})
}

func (f *fakeRemote) Excuse(ctx context.Context, not map[string]bool) error {
	return f.call(ctx, "Excuse", func() error {
		for id := range f.pending {
			if !not[fmt.Sprint(id)] {
				f.pending[id] = 0
			}
		}
		return nil
	})
}

func (f *fakeRemote) Flush(ctx context.Context) error {
	return f.call(ctx, "Flush", func() error { return nil }) // Done leaves nothing
}

func (f *fakeRemote) Tell(ctx context.Context, marks map[string]string) error {
	return f.call(ctx, "Tell", func() error {
		if f.isFull() {
			return errFull
		}
		maps.Copy(f.marks, marks)
		return nil
	})
}

func (f *fakeRemote) Told(ctx context.Context, spool string) (text string, err error) {
	err = f.call(ctx, "Told", func() error { text = f.marks[spool]; return nil })
	return text, err
}

func (f *fakeRemote) SetAside(ctx context.Context, m Message, _ string) error {
	return f.call(ctx, "SetAside", func() error {
		if f.isFull() {
			return errFull
		}
		if !slices.ContainsFunc(f.aside, func(kept Message) bool { return kept.ID == m.ID }) {
			f.aside = append(f.aside, m)
		}
		return nil
	})
}

func (f *fakeRemote) count() (entries, pending, aside int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.entries), len(f.pending), len(f.aside)
}
