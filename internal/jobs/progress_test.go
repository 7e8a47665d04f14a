package jobs

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/terselink/terse/internal/links"
)

// TestReadMarks: the part of the file that is done never falls, is never ahead of the rows that are, and reaches the end with them.
func TestReadMarks(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	var m readMarks
	type read struct{ rows, file int64 }
	var reads []read
	var rows, file, done, last int64
	for range 2000 {
		n := r.Int64N(1000)
		if r.IntN(3) == 0 { // what is read from disk is more than one piece of rows
			file += r.Int64N(5000)
		}
		rows += n
		m.add(int(n), file)
		reads = append(reads, read{rows, file})
		done += r.Int64N(rows - done + 1)
		got := m.at(done)
		var most int64
		for _, v := range reads {
			if v.rows <= done {
				most = v.file
			}
		}
		if got < last || got > most {
			t.Fatalf("%d rows of %d: %d bytes of the file after %d, at most %d were needed for them", done, rows, got, last, most)
		}
		last = got
	}
	if got := m.at(rows); got != file {
		t.Errorf("at the end %d bytes of %d", got, file)
	}
}

// TestProgressNodesAtOnce: whoever looks while other nodes do the rows sees no more rows of this node than there are.
func TestProgressNodesAtOnce(t *testing.T) {
	t.Parallel()
	var p progress
	p.set(Counts{}, 1, 1)
	const batches = 100_000
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range uint64(batches) {
			p.rowsDone(&links.BulkProgress{BulkSummary: links.BulkSummary{Created: i + 1}, By: "other", ByRows: 1}, 1, 2)
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		if got := p.nodes(&Job{}, "home"); len(got) > 0 && got[0].Rows != 0 {
			t.Errorf("%+v", got)
			break
		}
	}
	<-done
}

// TestProgressNodes: a snapshot tells who did how much of the run that is under way, and keeps what was told of the last one.
func TestProgressNodes(t *testing.T) {
	t.Parallel()
	var p progress
	j := Job{Nodes: []NodeRows{{"home", 5}, {"before", 5}}}
	p.set(Counts{}, 0, 0)
	if got := p.nodes(&j, "home"); !reflect.DeepEqual(got, j.Nodes) {
		t.Errorf("before a run %+v", got)
	}
	p.set(Counts{}, 100, 1)
	if got := p.nodes(&j, "home"); got != nil {
		t.Errorf("at the beginning %+v", got)
	}
	for i, by := range []links.BulkProgress{{ByRows: 10}, {By: "b", ByRows: 20}, {By: "a", ByRows: 20}, {By: "c", ByRows: 30}} {
		by.BulkSummary = links.BulkSummary{Created: 70, Reused: 5, Failed: 12 + uint64(i)}
		p.rowsDone(&by, 90, 2)
	}
	want := []NodeRows{{"home", 20}, {"c", 30}, {"a", 20}, {"b", 20}}
	if got := p.nodes(&j, "home"); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	p.keep(&j, "home")
	p.set(j.Counts, 90, 3)
	if j.RollingBack = true; !reflect.DeepEqual(p.nodes(&j, "home"), want) {
		t.Errorf("in the rollback %+v", p.nodes(&j, "home"))
	}
}
