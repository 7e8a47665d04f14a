package jobs

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse"
)

func TestUploadOwner(t *testing.T) {
	t.Parallel()
	for _, node := range []string{"", "box-1", "a.example.com-x7", "_", "~", "ü", "a/b", "..", "a b", strings.Repeat("n", maxOwnerID)} {
		id := newUploadID(node, 1_700_000_000_000)
		if got := UploadOwner(id); got != node {
			t.Errorf("%s names %q, want %q", id, got, node)
		}
		if strings.ContainsAny(id, "/%?# ") {
			t.Errorf("%s is not fit for a URL", id)
		}
	}
	head := newID(UploadPrefix, 1)
	for _, id := range []string{
		"", "upl_", head, head + "_", head + "-box", head + "_a/b", head + "_~", head + "_~zz", head + "_~00", head + "_~62", head + "_~C3BC", head + "_~ff",
		head + "_" + strings.Repeat("n", maxOwnerID+1), "job" + head[3:] + "_box", head[:len(head)-1] + "u_box",
	} {
		if got := UploadOwner(id); got != "" {
			t.Errorf("%q names %q", id, got)
		}
	}
}

// TestUploadMayBe: nobody waits for an upload that is from the future, or as old as no upload gets.
func TestUploadMayBe(t *testing.T) {
	t.Parallel()
	const hour, now = 60 * 60 * 1000, 1_700_000_000_000
	for at, want := range map[terse.Millis]bool{
		now: true, now - 8*24*hour: true, now - 29*24*hour: true, now - 31*24*hour: false, 0: false, now + hour: true, now + 25*hour: false, 1<<48 - 1: false,
	} {
		if got := UploadMayBe(newUploadID("box", at), now); got != want {
			t.Errorf("an upload of %d at %d: %t, want %t", at, now, got, want)
		}
	}
	for _, id := range []string{"", "upl_", "job_00000000000000000000000000", "x"} {
		if UploadMayBe(id, now) {
			t.Errorf("%q is no upload", id)
		}
	}
}

// FuzzUploadOwner: an id names a node in one way, and nothing that a store must not be asked for.
func FuzzUploadOwner(f *testing.F) {
	head := newID(UploadPrefix, 1)
	for _, id := range []string{head, head + "_box", head + "_~c3bc", head + "_~00", "x"} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		node := UploadOwner(id)
		if node == "" {
			return
		}
		if strings.ContainsRune(node, 0) || len(node) > maxOwnerID {
			t.Fatalf("%q names %q", id, node)
		}
		if again := newUploadID(node, 1); again[len(head):] != id[len(head):] {
			t.Fatalf("%q names %q, which is written %q", id, node, again)
		}
	})
}

// countedLister counts what is read.
type countedLister struct {
	ids  []string // ascending
	read int
}

func (l *countedLister) ListDocuments(_ context.Context, _ terse.WorkspaceID, _ terse.Kind, after string, limit int) ([]terse.Document, error) {
	var out []terse.Document
	for _, id := range l.ids {
		if id > after && len(out) < limit {
			out = append(out, terse.Document{ID: id, Data: []byte(`{"id":"` + id + `","state":"running","reached":0.5}`)})
		}
	}
	l.read += len(out)
	return out, nil
}

// TestListStored: pages have every job once, the newest first, and the newest are found without reading all.
func TestListStored(t *testing.T) {
	t.Parallel()
	now := terse.MillisOf(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	const day = terse.Millis(24 * 60 * 60 * 1000)
	l := &countedLister{}
	for i := range terse.Millis(3000) { // 25 a day, 120 days back
		l.ids = append(l.ids, newID(Prefix, now-(3000-i)*day/25))
	}
	for _, id := range l.ids {
		if at := idTime(Prefix, id, 0); firstID(Prefix, at) > id || firstID(Prefix, at+1) <= id {
			t.Fatalf("%s is not between %s and %s", id, firstID(Prefix, at), firstID(Prefix, at+1))
		}
	}
	var got []string
	for before := ""; ; {
		list, err := ListStored(t.Context(), l, 1, before, 20, now)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range list {
			if s.Part != 0.5 || s.State != Running {
				t.Fatalf("%+v", s)
			}
			got = append(got, s.ID)
		}
		if before == "" && l.read > 200 {
			t.Errorf("%d jobs were read for the first page", l.read)
		}
		if len(list) < 20 {
			break
		}
		before = list[len(list)-1].ID
	}
	if len(got) != len(l.ids) {
		t.Fatalf("%d jobs, want %d", len(got), len(l.ids))
	}
	for i, id := range got {
		if want := l.ids[len(l.ids)-1-i]; id != want {
			t.Fatalf("job %d is %s, want %s", i, id, want)
		}
	}
	if list, err := ListStored(t.Context(), l, 1, "job_none", 5, now); err != nil || len(list) != 5 || list[0].ID != l.ids[2999] {
		t.Errorf("with a cursor that is no id: %v, %v", err, list)
	}
	if list, err := ListStored(t.Context(), l, 1, l.ids[0], 5, now); err != nil || len(list) != 0 {
		t.Errorf("before the first: %v, %v", err, list)
	}
}
