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
