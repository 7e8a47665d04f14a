package jobs

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/terselink/terse"
)

// TestNodes: a node leaves the jobs of others alone, which have the uploads, and those from before there were several
// nodes go to the one that has the upload.
func TestNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		old := b.create(ws, "a.ndjson", `{"destination":"https://example.com/old"}`+"\n", Spec{})
		b.want(ws, old, Done)
		b.stop()
		first, second := b.o, b.o
		first.Node, second.Node, second.Dir = "first", "second", t.TempDir()
		b.o = first
		b.start()
		id := b.create(ws, "b.ndjson", `{"destination":"https://example.com/new"}`+"\n", Spec{})
		b.want(ws, id, Done)
		upload := b.upload(ws, "c.ndjson", "x")
		if UploadOwner(upload) != "first" {
			t.Errorf("the upload %s names no node", upload)
		}
		b.stop()

		b.o = second
		b.start()
		for _, j := range []string{old, id} {
			if s, err := b.Get(ws, j); err == nil {
				t.Errorf("the other node has job %s: %+v", j, s)
			}
		}
		_, err := b.Cancel(t.Context(), ws, id)
		if e, ok := errors.AsType[*terse.Error](err); !ok || e.Reason != "other_node" || !strings.Contains(e.Message, "first") {
			t.Errorf("a job of the other node: %v", err)
		}
		if there, ok := errors.AsType[*OtherNodeError](err); !ok || there.Node != "first" {
			t.Errorf("a job of the other node: %v", err)
		}
		if node, err := Owner(t.Context(), b.store, ws, id); err != nil || node != "first" {
			t.Errorf("the job is on %q, %v", node, err)
		}
		if _, err := Owner(t.Context(), b.store, ws+1, id); terse.ErrorCode(err) != terse.CodeNotFound {
			t.Errorf("for another workspace: %v", err)
		}
		if list, err := b.List(t.Context(), ws, "", 10); err != nil || len(list) != 2 || list[0].ID != max(id, old) || list[0].State != Done || list[0].Part != 1 || list[1].ID != min(id, old) {
			t.Errorf("jobs of all nodes: %v, %+v", err, list)
		}
		if list := b.Own(ws, "", 10); len(list) != 0 {
			t.Errorf("jobs of this node: %+v", list)
		}
		_, err = b.Uploads.Get(ws, upload)
		if there, ok := errors.AsType[*OtherNodeError](err); !ok || there.Node != "first" || terse.ErrorCode(err) != terse.CodeConflict {
			t.Errorf("an upload of the other node: %v", err)
		}
		if _, err := b.Create(t.Context(), ws, "k", Spec{Upload: upload, Format: "ndjson"}, nil, nil); terse.ErrorCode(err) != terse.CodeConflict {
			t.Errorf("a job of an upload of the other node: %v", err)
		}
		for _, none := range []string{strings.Repeat("0", 26), "\x00", "0"} {
			if _, err := b.Get(ws, Prefix+none); terse.ErrorCode(err) != terse.CodeNotFound {
				t.Errorf("job %q: %v", none, err)
			}
		}
		b.stop()

		b.o = first
		b.start()
		b.want(ws, old, Done)
		b.want(ws, id, Done)
	})
}
