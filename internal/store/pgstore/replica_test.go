package pgstore

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/sleep"
	"github.com/terselink/terse/internal/testengine"
)

// follower is a store that reads from a streaming standby.
type follower struct {
	t       *testing.T
	s       *Store
	r       *Replica
	standby *testengine.PostgresServer
	// link is between the primary and the standby, reads between the store and the standby.
	link, reads *testengine.Proxy
}

func newFollower(t *testing.T) *follower {
	t.Helper()
	primary := testengine.NewPostgres(t)
	f := &follower{t: t}
	var through, readURL string
	f.link, through = testengine.NewProxy(t, primary.URL)
	f.standby = primary.NewStandby(t, through)
	f.reads, readURL = testengine.NewProxy(t, f.standby.URL)
	f.s = open(t, Options{URL: primary.URL, ReplicaURL: readURL})
	f.r = f.s.Replica()
	return f
}

// links inserts n links that the standby has, and an alias.
func (f *follower) links(n int) []terse.Link {
	f.t.Helper()
	c := chunkOf(f.t, f.s, 1, n)
	if err := f.s.InsertLinks(f.t.Context(), c); err != nil {
		f.t.Fatal(err)
	}
	for i := range c.Links {
		f.eventually("the standby has a link", func() bool {
			before := f.r.served.Load()
			return f.get(c.Links[i]).Number != 0 && f.r.served.Load() > before
		})
	}
	return c.Links
}

// get reads a link as a redirect does, in as much time.
func (f *follower) get(l terse.Link) terse.Link {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 5*time.Second)
	defer cancel()
	dst := make([]terse.Link, 1)
	if err := f.r.GetLinks(ctx, []terse.LinkKey{{Number: l.Number}}, dst); err != nil {
		f.t.Fatalf("GetLinks: %v", err)
	}
	return dst[0]
}

// change changes a link on the primary, and tells the replica of it if tell says so.
func (f *follower) change(l terse.Link, tell bool) {
	f.t.Helper()
	l.Version++
	l.Destination = "https://example.com/changed"
	if err := f.s.UpdateLink(f.t.Context(), &l, l.Version-1); err != nil {
		f.t.Fatal(err)
	}
	if tell {
		f.r.Saw(l.Number, l.Version, false)
	}
}

func (f *follower) usable() bool { return f.r.usable(time.Now()) }

// eventually waits for a condition, at most a minute.
func (f *follower) eventually(what string, holds func() bool) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	for !holds() {
		if sleep.For(ctx, 20*time.Millisecond) != nil {
			f.t.Fatalf("never: %s", what)
		}
	}
}

// ask asks the standby itself.
func (f *follower) ask(sql string) (answer bool) {
	f.t.Helper()
	conn, err := pgx.Connect(f.t.Context(), f.standby.URL)
	if err != nil {
		f.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(f.t.Context(), sql).Scan(&answer); err != nil {
		f.t.Fatalf("%s: %v", sql, err)
	}
	return answer
}

// examined returns what is said to an administrator of the standby.
func (f *follower) examined() string {
	f.t.Helper()
	for _, finding := range Examine(f.t.Context(), f.s.o) {
		if finding.What == "replica" {
			return finding.Text
		}
	}
	f.t.Fatal("nothing is said of the replica")
	return ""
}

// pause lets the standby receive and not replay, until resume.
func (f *follower) pause() {
	f.t.Helper()
	exec(f.t, f.standby.URL, "select pg_wal_replay_pause()")
	f.eventually("the standby has stopped to replay", func() bool { return f.ask("select pg_get_wal_replay_pause_state() = 'paused'") })
}

func (f *follower) resume() {
	f.t.Helper()
	exec(f.t, f.standby.URL, "select pg_wal_replay_resume()")
	f.eventually("the standby is read again", f.usable)
}

// TestStandby reads from a streaming standby that is well, and from one that suffers from one thing after the other.
func TestStandby(t *testing.T) {
	f := newFollower(t)
	links := f.links(12)
	alias := links[len(links)-1]

	t.Run("reads", func(t *testing.T) {
		f.t = t
		f.eventually("the standby answers for an alias", func() bool {
			before := f.r.served.Load()
			if l, err := f.r.GetAlias(t.Context(), 1, alias.Code); err != nil || l.Destination != alias.Destination {
				t.Fatalf("GetAlias: %+v, %v", l, err)
			}
			return f.r.served.Load() > before
		})
		f.eventually("that a code does not exist is an answer", func() bool {
			before := f.r.unanswered.Load()
			if _, err := f.r.GetAlias(t.Context(), 1, "nobody"); !errors.Is(err, terse.ErrNotFound) {
				t.Fatalf("GetAlias of what does not exist: %v", err)
			}
			return f.r.unanswered.Load() == before
		})
		if text := f.examined(); text != "" {
			t.Errorf("of a standby that is well: %s", text)
		}
	})

	t.Run("lag", func(t *testing.T) {
		f.t = t
		f.pause()
		f.change(links[1], true)
		if err := f.s.DeleteLink(t.Context(), terse.LinkKey{Number: links[2].Number}, 0); err != nil {
			t.Fatal(err)
		}
		f.r.Saw(links[2].Number, 1, true)
		before := f.r.served.Load()
		if l := f.get(links[1]); l.Version != 2 {
			t.Errorf("a changed link: %+v", l)
		}
		if l := f.get(links[2]); l.Number != 0 {
			t.Errorf("a deleted link: %+v", l)
		}
		if n := f.r.served.Load() - before; n != 0 {
			t.Errorf("the standby counts as the source of %d of 2 links that it has in older versions", n)
		}
		f.eventually("a link that did not change is read from the standby, which is not far behind", func() bool {
			if !f.usable() { // this test stood still for so long that it is
				f.resume()
				f.pause()
			}
			return f.get(links[3]).Number != 0 && f.r.served.Load() > before
		})
		f.resume()
		f.eventually("the standby returns the changed link", func() bool {
			before := f.r.served.Load()
			return f.get(links[1]).Version == 2 && f.r.served.Load() > before
		})
	})

	t.Run("more changes than are remembered", func(t *testing.T) {
		f.t = t
		f.pause()
		for i := range maxVersions {
			f.r.Saw(terse.NewLinkNumber(2, 7, uint64(i)), 1, false)
		}
		f.change(links[4], true)
		// Long after, the standby is still where it was.
		for round := range 4 {
			if l := f.get(links[4]); l.Version != 2 {
				t.Fatalf("round %d: a change that was not remembered: %+v", round, l)
			}
			f.r.measure(t.Context())
			f.r.forget(time.Now().Add(time.Duration(round+1) * 2 * changeLife))
		}
		f.resume()
		f.eventually("the standby is read again when it has the change", func() bool {
			before := f.r.served.Load()
			return f.get(links[4]).Version == 2 && f.r.served.Load() > before
		})
	})

	t.Run("changes nobody told of", func(t *testing.T) {
		f.t = t
		f.pause()
		f.change(links[5], false)
		f.r.Missed()
		f.r.measure(t.Context())
		if l := f.get(links[5]); l.Version != 2 {
			t.Errorf("got %+v", l)
		}
		f.resume()
	})

	t.Run("slow", func(t *testing.T) {
		f.t = t
		f.reads.Delay(1600 * time.Millisecond)
		before := f.r.unanswered.Load()
		for i := range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond) // less than the standby takes
			dst := make([]terse.Link, 1)
			if err := f.r.GetLinks(ctx, []terse.LinkKey{{Number: links[i%10].Number}}, dst); err != nil {
				t.Errorf("read %d: %v", i, err)
			}
			if _, err := f.r.GetAlias(ctx, 1, alias.Code); err != nil {
				t.Errorf("alias %d: %v", i, err)
			}
			cancel()
			if i == 0 && f.usable() {
				t.Error("the standby is asked again after two reads without an answer")
			}
		}
		if n := f.r.unanswered.Load() - before; n < maxMisses || n > 8 {
			t.Errorf("%d reads waited for the standby in vain, want about %d of 40", n, maxMisses)
		}
		f.reads.Delay(0)
		f.eventually("the standby is read again after its rest", func() bool {
			f.r.mu.Lock()
			f.r.restUntil = f.r.restUntil.Add(-replicaRest)
			f.r.mu.Unlock()
			before := f.r.served.Load()
			f.get(links[0])
			return f.r.served.Load() > before && f.usable()
		})
	})

	t.Run("cut off", func(t *testing.T) {
		f.t = t
		f.eventually("the standby is read", f.usable)
		f.link.Hold()
		f.change(links[6], false) // by a node whose message is late
		f.change(links[7], true)
		changed := time.Now()
		for f.usable() {
			began := time.Now()
			if l := f.get(links[6]); l.Version != 2 && began.Sub(changed) > maxLag {
				t.Fatalf("%v after a change the standby is believed: %+v", began.Sub(changed), l)
			}
			if l := f.get(links[7]); l.Version != 2 {
				t.Fatalf("a change that is known: %+v", l)
			}
			if time.Since(changed) > time.Minute {
				t.Fatal("the standby is believed for ever")
			}
			_ = sleep.For(t.Context(), 20*time.Millisecond)
		}
		if !f.ask("select exists (select from pg_stat_wal_receiver) and pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()") {
			t.Error("the standby knows that it is cut off: this tests nothing")
		}
		for i := range 10 { // however long it lasts
			f.r.forget(time.Now().Add(time.Duration(i) * 2 * changeLife))
		}
		for _, l := range links[6:8] {
			if l := f.get(l); l.Version != 2 {
				t.Errorf("with a standby that is cut off: %+v", l)
			}
		}
		if text := f.examined(); !strings.Contains(text, "did not reach") {
			t.Errorf("of a standby that is cut off: %q", text)
		}
		f.link.Pass()
		f.eventually("the standby has caught up", f.usable)
	})

	t.Run("promoted", func(t *testing.T) {
		f.t = t
		f.standby.Promote() // beside its primary, which goes on
		// Its log is ahead of the primary's, and of something else.
		exec(t, f.standby.URL, "create table diverged as select generate_series(1, 200000)")
		f.eventually("a server of another history is not read", func() bool { return !f.usable() })
		f.change(links[8], false)
		f.r.measure(t.Context())
		if l := f.get(links[8]); l.Version != 2 || f.usable() {
			t.Errorf("got %+v, usable %t", l, f.usable())
		}
		if text := f.examined(); !strings.Contains(text, "another history") {
			t.Errorf("of a promoted standby: %q", text)
		}
	})
	f.t = t
}

// TestProgress checks what is concluded from where the primary and a replica are.
func TestProgress(t *testing.T) {
	base := time.Now()
	at := func(second int) time.Time { return base.Add(time.Duration(second) * time.Second) }
	var p progress
	want := func(second int) {
		t.Helper()
		if second < 0 && !p.has.IsZero() || second >= 0 && !p.has.Equal(at(second)) {
			t.Fatalf("it has everything before %v, want second %d", p.has.Sub(base), second)
		}
	}
	p.reached(100, "a")
	want(-1)
	for i := range 5 {
		p.marked(mark{at(i), int64(10 * i), "a"})
	}
	p.reached(5, "a")
	want(0)
	p.reached(5, "a")
	want(0)
	p.reached(30, "a")
	want(3)
	p.reached(39, "")
	want(3)
	p.reached(40, "a")
	want(4)
	p.marked(mark{at(5), 40, "a"}) // nothing is written
	p.reached(40, "a")
	want(5)
	p.reached(1000, "b") // a replica of somebody else
	want(-1)
	p.reached(40, "a")
	want(5)
	p.marked(mark{at(6), 20, "a"}) // the primary lost its end
	want(-1)
	p.reached(15, "a")
	want(-1)
	p.marked(mark{at(7), 50, "c"}) // and is another
	p.reached(60, "a")
	want(-1)
	p.reached(60, "c")
	want(7)
	for i := range 2 * maxMarks { // it stands still
		p.marked(mark{at(8 + i), int64(100 + i), "c"})
		p.reached(60, "c")
	}
	want(7)
	if len(p.marks) > maxMarks {
		t.Fatalf("%d marks", len(p.marks))
	}
	p.reached(10_000, "c")
	last := 7 + 2*maxMarks
	want(last)
	p.marked(mark{at(last + 1), 20_000, "c"})
	p.reached(500, "c") // it goes back, to before what it had
	want(-1)
	p.reached(600, "c")
	want(-1)
	p.reached(20_500, "c")
	want(last + 1)
	p.reached(20_000, "c") // and to where it still has that
	want(last + 1)
	p.reached(19_999, "c")
	want(-1)
	p.reached(20_000, "c")
	want(last + 1)
}
