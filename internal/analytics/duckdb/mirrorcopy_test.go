package duckdb

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics/enginetest"
	objects "github.com/terselink/terse/internal/bucket"
	"github.com/terselink/terse/internal/bucket/buckettest"
	"github.com/terselink/terse/internal/clicks"
)

// hooked is a record store with another name, in which something happens once: after a file was sent, or before one is fetched.
type hooked struct {
	RecordStore
	name     string
	once     sync.Once
	put, get func()
}

func (h *hooked) Name() string {
	if h.name != "" {
		return h.name
	}
	return h.RecordStore.Name()
}

func (h *hooked) Put(ctx context.Context, name, path string) error {
	err := h.RecordStore.Put(ctx, name, path)
	if h.put != nil {
		h.once.Do(h.put)
	}
	return err
}

func (h *hooked) Get(ctx context.Context, name, path string) error {
	if h.get != nil {
		h.once.Do(h.get)
	}
	return h.RecordStore.Get(ctx, name, path)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// copyOf copies the folders of a database that is closed.
func copyOf(t *testing.T, o Options) Options {
	t.Helper()
	from := []string{o.Dir, o.Record}
	o.Dir, o.Record = t.TempDir(), t.TempDir()
	must(t, os.CopyFS(o.Dir, os.DirFS(from[0])))
	must(t, os.CopyFS(o.Record, os.DirFS(from[1])))
	return o
}

// grown opens a database, gives it the events that it does not have, sends them and closes it. It returns what the store has then.
func grown(t *testing.T, o Options, b *objects.Bucket, events []clicks.Event) []string {
	t.Helper()
	d, err := Open(t.Context(), o)
	must(t, err)
	late(t, d, events)
	maintain(t, d)
	pass(t, d)
	names := equal(t, d, b)
	must(t, d.Close())
	return names
}

func (s *mirrorState) write(t *testing.T, folder string) {
	t.Helper()
	data, err := json.Marshal(s)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(folder, mirrorFile), data, 0o600))
}

func stateIn(t *testing.T, folder string) *mirrorState {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(folder, mirrorFile))
	must(t, err)
	s := &mirrorState{}
	must(t, json.Unmarshal(data, s))
	return s
}

// TestMirrorOlderCopy: a folder that was copied earlier, which is put back or runs beside the one that went on, deletes
// nothing in the store.
func TestMirrorOlderCopy(t *testing.T) {
	b := buckettest.Open(t, buckettest.New(t))
	events := threeDays()
	at := Options{Dir: t.TempDir(), Record: t.TempDir(), Store: b, Clock: leapsFrom(inSpan), scopeRows: 20, MemoryLimit: 512 << 20}
	grown(t, at, b, events[:len(events)/2])
	older, during := copyOf(t, at), copyOf(t, at)
	names := grown(t, at, b, events)

	d := open(t, older)
	for range 2 {
		if err := d.mirror.pass(t.Context()); terse.ErrorCode(err) != terse.CodePrecondition {
			t.Errorf("an older copy: %v", err)
		}
	}
	if !d.Mirrored().Refused {
		t.Error("the status does not say that it stays so")
	}
	left := func(what string) {
		t.Helper()
		there := buckettest.Names(t, b)
		for _, name := range names {
			if !slices.Contains(there, name) {
				t.Errorf("%s: %s was deleted", what, name)
			}
		}
	}
	left("an older copy")

	// One of a moment after the last start looks like the folder itself.
	s := stateIn(t, during.Record)
	s.Owner = stateIn(t, at.Record).Owner
	s.write(t, during.Record)
	d = open(t, during)
	pass(t, d)
	left("a copy of a moment before")

	// The notes of erasures only grow: a folder with fewer is older, and does not replace them.
	notes := filepath.Join(t.TempDir(), "notes")
	must(t, os.WriteFile(notes, []byte("{}\n{}\n"), 0o600))
	must(t, b.Put(t.Context(), erasuresFile, notes))
	must(t, os.WriteFile(filepath.Join(d.o.Record, erasuresFile), []byte("{}\n"), 0o600))
	d.mirror.audited = time.Time{}
	if err := d.mirror.pass(t.Context()); terse.ErrorCode(err) != terse.CodePrecondition {
		t.Errorf("fewer erasures than in the store: %v", err)
	}
}

// TestMirrorCutOff: what a round sent that was cut off before it was noted is not taken for somebody else's.
func TestMirrorCutOff(t *testing.T) {
	b := buckettest.Open(t, buckettest.New(t))
	at := Options{Dir: t.TempDir(), Record: t.TempDir(), Clock: leapsFrom(inSpan), scopeRows: 20, MemoryLimit: 512 << 20}
	events := threeDays()
	var sent *mirrorState
	at.Store = &hooked{RecordStore: b, put: func() { sent = stateIn(t, at.Record) }}
	names := grown(t, at, b, events[:len(events)/2])
	if len(sent.Files) != len(names) {
		t.Errorf("%d files were noted before they were sent, want %d", len(sent.Files), len(names))
	}
	sent.write(t, at.Record) // the process died there
	at.Store = b
	grown(t, at, b, events) // all of the store is known
}

// TestMirrorRenamed: the same place under another name is the same place, also for a folder that is not whole.
func TestMirrorRenamed(t *testing.T) {
	good := buckettest.New(t)
	proxy, o := buckettest.Behind(t, good)
	o.Attempts = 1
	b, plain := buckettest.Open(t, o), buckettest.Open(t, good)
	events := threeDays()
	at := Options{Dir: t.TempDir(), Record: t.TempDir(), Store: b, Clock: leapsFrom(inSpan), scopeRows: 20, MemoryLimit: 512 << 20}
	names := grown(t, at, plain, events)

	at.Store = &hooked{RecordStore: b, name: "s3://called/otherwise"}
	d, err := Open(t.Context(), at)
	must(t, err)
	pass(t, d)
	if st := d.Mirrored(); st.Uploads != 0 || st.Deletes != 0 || stateIn(t, at.Record).Store != "s3://called/otherwise" {
		t.Errorf("a whole folder: %+v", st)
	}
	must(t, d.Close())

	at.Dir, at.Record = t.TempDir(), t.TempDir()
	proxy.Cut("/rday.parquet", false)
	if _, err := Open(t.Context(), at); !errors.Is(err, ErrRecordStore) {
		t.Fatalf("a store that goes away in the middle: %v", err)
	}
	other := at
	other.Store = buckettest.Open(t, buckettest.New(t))
	if _, err := Open(t.Context(), other); !errors.Is(err, ErrRecordStore) {
		t.Fatalf("a part of a record before an empty store: %v", err)
	}
	at.Store = b
	d, err = Open(t.Context(), at)
	must(t, err)
	ingest(t, d, &sliceSource{events: events})
	maintain(t, d)
	pass(t, d)
	if got := equal(t, d, plain); len(got) != len(names) {
		t.Errorf("%d files, before %d", len(got), len(names))
	}
	must(t, d.Close())

	// To another place the record moves whole.
	moved := buckettest.Open(t, buckettest.New(t))
	at.Store = moved
	grown(t, at, moved, events)
}

// TestMirrorTakeOverInRound: the server before is in the middle of a round: nothing of it is missed, and it deletes nothing any more.
func TestMirrorTakeOverInRound(t *testing.T) {
	b := buckettest.Open(t, buckettest.New(t))
	events := threeDays()
	before := closed(t, Options{Store: b}, events[:len(events)/2])
	pass(t, before)
	second := Options{Dir: t.TempDir(), Record: t.TempDir(), Clock: leapsFrom(inSpan), scopeRows: 20, MemoryLimit: 512 << 20}
	second.Store = &hooked{RecordStore: b, get: func() {
		late(t, before, events)
		maintain(t, before)
		local, err := walkRecord(before.o.Record)
		must(t, err)
		for name := range local {
			must(t, b.Put(t.Context(), name, filepath.Join(before.o.Record, filepath.FromSlash(name))))
		}
	}}
	d := open(t, second)
	here, err := walkRecord(d.o.Record)
	must(t, err)
	there, err := walkRecord(before.o.Record)
	must(t, err)
	for name := range there {
		if _, ok := here[name]; !ok {
			t.Errorf("%s was missed", name)
		}
	}
	pass(t, d)

	deletes := d.Mirrored().Deletes
	d.mirror.store = &hooked{RecordStore: b, put: func() {
		_, tag, err := b.Read(t.Context(), ownerObject)
		must(t, err)
		must(t, b.Replace(t.Context(), ownerObject, tag, []byte(`{"record":"another"}`)))
	}}
	ingest(t, d, &sliceSource{events: events})
	maintain(t, d)
	d.mirror.state.Files["clicks/of/a/round/before.parquet"] = stamp{Bytes: 1}
	must(t, os.WriteFile(filepath.Join(d.o.Record, "notes.jsonl"), nil, 0o600)) // there is something to send
	if err := d.mirror.pass(t.Context()); terse.ErrorCode(err) != terse.CodePrecondition {
		t.Errorf("a round in which another takes over: %v", err)
	}
	if st := d.Mirrored(); st.Deletes != deletes {
		t.Errorf("deleted: %+v", st)
	}
}

// TestMirrorUnreadable: a state that cannot be read is made again from the store.
func TestMirrorUnreadable(t *testing.T) {
	b := buckettest.Open(t, buckettest.New(t))
	events := threeDays()
	at := Options{Dir: t.TempDir(), Record: t.TempDir(), Store: b, Clock: leapsFrom(inSpan), scopeRows: 20, MemoryLimit: 512 << 20}
	grown(t, at, b, events[:len(events)/2])
	must(t, os.WriteFile(filepath.Join(at.Record, mirrorFile), []byte("{"), 0o600))
	grown(t, at, b, events[:len(events)/2])
	grown(t, at, b, events)

	// In front of a store that has no click of it, it is not.
	must(t, os.WriteFile(filepath.Join(at.Record, mirrorFile), []byte("{"), 0o600))
	empty := buckettest.Open(t, buckettest.New(t))
	must(t, empty.Replace(t.Context(), ownerObject, "", []byte(`{"record":"another"}`)))
	at.Store = empty
	d := open(t, at)
	if err := d.mirror.pass(t.Context()); terse.ErrorCode(err) != terse.CodePrecondition {
		t.Errorf("another's store: %v", err)
	}
}

// TestEraseDoesNotHoldUp: while an erasure reaches the store, clicks are moved on.
func TestEraseDoesNotHoldUp(t *testing.T) {
	b := buckettest.Open(t, buckettest.New(t))
	events := threeDays()
	store := &hooked{RecordStore: b}
	d := closed(t, Options{Store: store}, events)
	store.put = func() { maintain(t, d) }
	if n, err := d.Erase(t.Context(), Erasure{Workspace: enginetest.Workspace, Link: events[0].Link}); err != nil || n == 0 {
		t.Fatalf("%d erased, %v", n, err)
	}
}
