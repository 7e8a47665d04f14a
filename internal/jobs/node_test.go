package jobs

import (
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
			if s, err := b.Get(ws, j); terse.ErrorCode(err) != terse.CodeNotFound {
				t.Errorf("the other node has job %s: %+v, %v", j, s, err)
			}
		}
		b.stop()

		b.o = first
		b.start()
		b.want(ws, old, Done)
		b.want(ws, id, Done)
	})
}
