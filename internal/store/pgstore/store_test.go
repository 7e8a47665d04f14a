package pgstore

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/storetest"
	"github.com/terselink/terse/internal/testengine"
)

// TestPooler runs the suite through PgBouncer in transaction mode, in a version without prepared statements.
func TestPooler(t *testing.T) {
	storetest.Run(t, opts(Options{Pooler: true}, testengine.Address(t, testengine.PgBouncer)))
}

// TestPlans holds the plans of listings and look-ups to their indexes: none of them sorts, and none reads a table from end to end.
func TestPlans(t *testing.T) {
	url := newDatabase(t, "")
	s := open(t, Options{URL: url})
	ctx := context.Background()
	for d := terse.DomainID(1); d <= 3; d++ {
		c := chunkOf(t, s, d, 2000)
		for i := range c.Links {
			l := &c.Links[i]
			l.Workspace = terse.WorkspaceID(1 + i%150)
			l.Settings = &terse.LinkSettings{Tags: []string{fmt.Sprint("tag", i%7)}}
			l.ExternalID, l.Campaign = fmt.Sprint("e", i%50), terse.CampaignID(i%5)
		}
		if err := s.InsertLinks(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	exec(t, url, "analyze")
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	from := place{1 << 50, 1 << 50}
	listing := func(q terse.ListQuery) (string, []any) {
		q.Limit = 100
		if q.ExternalID != "" || q.Tag != "" || q.Campaign != 0 {
			return indexedQuery(1, &q, from)
		}
		return insertsQuery(1, &q, from, 100)
	}
	type plan struct {
		name, index string
		sql         string
		args        []any
	}
	var plans []plan
	for name, q := range map[string]terse.ListQuery{
		"inserts_workspace": {}, "inserts_workspace ": {Domain: 2, CreatedFrom: 1, CreatedTo: 2},
		"links_external_id": {ExternalID: "e1"}, "links_external_id ": {ExternalID: "e1", Tag: "tag1", Domain: 1},
		"link_tags_pkey": {Tag: "tag1"}, "links_campaign": {Campaign: 1},
	} {
		sql, args := listing(q)
		plans = append(plans, plan{fmt.Sprintf("list %+v", q), strings.TrimSpace(name), sql, args})
	}
	plans = append(plans,
		plan{"get", "links_pkey", "select " + columns + " from terse.links l where number = $1 and deleted_at is null", []any{int64(5)}},
		plan{"get many", "links_pkey", "select " + columns + " from terse.links l where number = any($1::bigint[]) and deleted_at is null", []any{[]int64{5, 6}}},
		plan{"alias", "aliases_pkey", "select " + columns + " from terse.aliases a join terse.links l using (number) where a.domain_id = $1 and a.code = $2 and l.deleted_at is null", []any{int32(1), "x"}},
		plan{"documents", "documents_pkey", "select id, version, data from terse.documents where workspace_id = $1 and kind = $2 and id > $3 order by id limit $4", []any{int32(1), "job", "", int64(10)}},
		plan{"feed", "inserts_pkey", changesQuery, []any{int64(0), int64(10)}},
		plan{"feed", "changes_pkey", changesQuery, []any{int64(0), int64(10)}},
	)
	for _, p := range plans {
		t.Run(p.name, func(t *testing.T) {
			tx, err := conn.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback(ctx) }()
			// Tables of a test fit in a few pages, where reading all of them and sorting is right.
			for _, method := range []string{"seqscan", "bitmapscan", "sort"} {
				if _, err := tx.Exec(ctx, "set local enable_"+method+" = off"); err != nil {
					t.Fatal(err)
				}
			}
			rows, err := tx.Query(ctx, "explain "+p.sql, p.args...)
			if err != nil {
				t.Fatal(err)
			}
			lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatal(err)
			}
			text := strings.Join(lines, "\n")
			if !strings.Contains(text, p.index) {
				t.Errorf("the plan does not use %s:\n%s", p.index, text)
			}
			if p.sql == changesQuery { // merges two sorted parts of at most the limit
				text = strings.ReplaceAll(text, "Sort ", "")
			}
			if m := regexp.MustCompile(`(?m)^.*(Sort |Seq Scan on (links|link_tags|inserts|aliases|documents|changes)).*$`).FindString(text); m != "" {
				t.Errorf("%s in the plan:\n%s", strings.TrimSpace(m), text)
			}
		})
	}
}

// TestOpenTogether opens an empty database from several nodes at once.
func TestOpenTogether(t *testing.T) {
	url := newDatabase(t, "")
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			s, err := Open(context.Background(), Options{URL: url, MaxConns: 4})
			if err != nil {
				t.Errorf("Open: %v", err)
				return
			}
			if _, err := s.Lease(context.Background(), terse.LeaseRequest{Domain: 1, Space: 7, Count: 1}); err != nil {
				t.Errorf("Lease: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
	wg.Wait()
	if next, err := open(t, Options{URL: url}).Next(context.Background(), 1, 7); next != 6 || err != nil {
		t.Fatalf("Next: %d, %v; want 6", next, err)
	}
}

// TestOpenRefuses checks what Open says of addresses that cannot work, and that it shows no password.
func TestOpenRefuses(t *testing.T) {
	good := newDatabase(t, "")
	newer := newDatabase(t, "")
	open(t, Options{URL: newer})
	exec(t, newer, "insert into terse.migrations (version_id, is_applied) values (999, true)")
	for _, c := range []struct{ name, url, want string }{
		{"no address", "postgres://u:hunter2@127.0.0.1:badport/x", "not an address"},
		{"nobody listens", "postgres://u:hunter2@127.0.0.1:1/x", "temporarily unavailable"},
		{"wrong password", regexp.MustCompile(`:[0-9a-z]+@`).ReplaceAllString(good, ":hunter2@"), "refuses"},
		{"no such database", strings.Replace(good, "/terse_test_", "/hunter2_", 1), "refuses"},
		{"newer tables", newer, "older than the one that made them"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Open(context.Background(), Options{URL: c.url, ConnectTimeout: time.Second})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("Open: got error %v, want one about %q", err, c.want)
			}
			if strings.Contains(err.Error(), ":hunter2@") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
}

// TestClaim checks that one process at a time has the database for itself.
func TestClaim(t *testing.T) {
	url := newDatabase(t, "")
	first, second := open(t, Options{URL: url}), open(t, Options{URL: url})
	ctx := context.Background()
	if err := first.Claim(ctx, ClaimOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := second.Claim(ctx, ClaimOptions{}); terse.ErrorCode(err) != terse.CodeConflict {
		t.Fatalf("Claim of a second node: got error %v, want a conflict", err)
	}
	// The claim is taken again after its connection was lost.
	exec(t, url, "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())")
	deadline := time.Now().Add(time.Minute)
	for held := false; !held; {
		if time.Now().After(deadline) {
			t.Fatal("the claim is not taken again")
		}
		if err := first.query(ctx, "test", func(r pgx.Rows) error { return r.Scan(&held) },
			"select exists (select from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database()))"); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := second.Claim(ctx, ClaimOptions{Wait: time.Minute}); err != nil {
		t.Fatalf("Claim after the first node has gone: %v", err)
	}
}

// TestReplica reads from a server that is behind: nothing that it says may be older than what is known.
func TestReplica(t *testing.T) {
	primary, stale := newDatabase(t, ""), newDatabase(t, "")
	s := open(t, Options{URL: primary, ReplicaURL: stale})
	behind := open(t, Options{URL: stale})
	ctx := context.Background()
	c := chunkOf(t, s, 1, 10)
	if err := s.InsertLinks(ctx, c); err != nil {
		t.Fatal(err)
	}
	half := terse.Chunk{Links: append([]terse.Link(nil), c.Links[5:]...)} // the replica has a part
	for i := range half.Links {
		half.Links[i].Destination = "https://replica.example/"
	}
	if err := behind.InsertLinks(ctx, &half); err != nil {
		t.Fatal(err)
	}
	r := s.Replica()
	get := func(i int) terse.Link {
		t.Helper()
		dst := make([]terse.Link, 1)
		if err := r.GetLinks(ctx, []terse.LinkKey{{Number: c.Links[i].Number}}, dst); err != nil {
			t.Fatal(err)
		}
		return dst[0]
	}
	if l := get(7); l.Destination != "https://replica.example/" {
		t.Fatalf("the replica is not read: %+v", l)
	}
	if l := get(2); l.Destination != c.Links[2].Destination {
		t.Fatalf("what the replica does not have is not read from the primary: %+v", l)
	}
	changed := c.Links[7]
	changed.Version = 2
	changed.Destination = "https://example.com/changed"
	if err := s.UpdateLink(ctx, &changed, 1); err != nil {
		t.Fatal(err)
	}
	r.Saw(changed.Number, 2, false)
	if l := get(7); l.Version != 2 {
		t.Fatalf("an older version than the known one was returned: %+v", l)
	}
	if err := s.DeleteLink(ctx, terse.LinkKey{Number: c.Links[8].Number}, 0); err != nil {
		t.Fatal(err)
	}
	r.Saw(c.Links[8].Number, 1, true)
	if l := get(8); l.Number != 0 {
		t.Fatalf("a deleted link was returned: %+v", l)
	}
	alias := c.Links[10]
	if l, err := r.GetAlias(ctx, 1, alias.Code); err != nil || l.Destination != "https://replica.example/" {
		t.Fatalf("GetAlias: %+v, %v", l, err)
	}
	if _, err := r.GetAlias(ctx, 1, "nobody"); !errors.Is(err, terse.ErrNotFound) {
		t.Fatalf("GetAlias of what does not exist: %v", err)
	}
	// More changes than are remembered: the primary is asked.
	for i := range maxVersions + 1 {
		r.Saw(terse.NewLinkNumber(2, 7, uint64(i)), 1, false)
	}
	if l := get(9); l.Destination != c.Links[9].Destination {
		t.Fatalf("the replica is read although not every change is known: %+v", l)
	}
	if err := behind.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestTrim(t *testing.T) {
	url := newDatabase(t, "")
	s := open(t, Options{URL: url})
	ctx := context.Background()
	for i := range 30 {
		if err := s.PutDocument(ctx, terse.Document{Kind: terse.KindMeta, ID: fmt.Sprint(i), Version: 1, Data: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	exec(t, url, "update terse.changes set at = at - interval '25 hours' where seq in (select seq from terse.changes order by seq limit 20)")
	if err := s.trim(ctx); err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := s.query(ctx, "test", func(r pgx.Rows) error { return r.Scan(&n) }, "select count(*) from terse.changes"); err != nil || n != 10 {
		t.Fatalf("%d changes are left (%v), want 10", n, err)
	}
	// A database of a version that did not note what it had forgotten.
	exec(t, url, "drop table terse.feed_floor", "delete from terse.migrations where version_id = 2")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, Options{URL: url})
	_, err := s.Changes(ctx, 0, 100)
	e, ok := errors.AsType[*terse.ForgottenError](err)
	if !ok {
		t.Fatalf("changes from the beginning: %v, want that some were forgotten", err)
	}
	for attempt := 0; ; attempt++ { // the feed waits for transactions of the whole server
		list, err := s.Changes(ctx, e.Floor, 100)
		if err != nil || len(list) > 10 {
			t.Fatalf("%d changes after the floor, %v", len(list), err)
		}
		if len(list) == 10 {
			break
		}
		if attempt == 1200 {
			t.Fatalf("%d changes after the floor, want 10", len(list))
		}
		<-time.After(50 * time.Millisecond)
	}
}

// TestExamine checks what is said of databases with one thing wrong each.
func TestExamine(t *testing.T) {
	url := newDatabase(t, "")
	find := func(o Options, what string) Finding {
		t.Helper()
		for _, f := range Examine(context.Background(), o) {
			if f.What == what {
				return f
			}
		}
		return Finding{Text: "nothing is said of " + what}
	}
	for _, f := range Examine(context.Background(), Options{URL: url}) {
		if f.Bad {
			t.Errorf("of a new database: %+v", f)
		}
	}
	open(t, Options{URL: url})
	for _, f := range Examine(context.Background(), Options{URL: url, ReplicaURL: url}) {
		if f.Bad {
			t.Errorf("of a database in use: %+v", f)
		}
	}
	if f := find(Options{URL: url, MaxConns: 900}, "connections"); !f.Bad || !strings.Contains(f.Text, "max_conns is 900") {
		t.Errorf("more connections than the server has: %+v", f)
	}
	if f := find(Options{URL: url, ReplicaURL: "postgres://127.0.0.1:1/x"}, "replica"); f.Bad || !strings.Contains(f.Text, "does not answer") {
		t.Errorf("a replica that does not answer: %+v", f)
	}
	exec(t, url, "alter database "+regexp.MustCompile(`terse_test_\w+`).FindString(url)+" set synchronous_commit = off")
	if f := find(Options{URL: url}, "durability"); !f.Bad || !strings.Contains(f.Text, "can be lost") {
		t.Errorf("without synchronous commits: %+v", f)
	}
	exec(t, url, "drop table terse.migrations cascade")
	if f := find(Options{URL: url}, "tables"); !f.Bad || !strings.Contains(f.Text, "cannot be read") {
		t.Errorf("with tables that are broken: %+v", f)
	}
}

// TestClaimShared checks that processes which tell each other what they write have the database together, and never beside one
// that has it for itself.
func TestClaimShared(t *testing.T) {
	url := newDatabase(t, "")
	a, b, alone := open(t, Options{URL: url}), open(t, Options{URL: url}), open(t, Options{URL: url})
	ctx := context.Background()
	for _, s := range []*Store{a, b} {
		if err := s.Claim(ctx, ClaimOptions{Shared: true}); err != nil {
			t.Fatal(err)
		}
	}
	if err := alone.Claim(ctx, ClaimOptions{}); terse.ErrorCode(err) != terse.CodeConflict {
		t.Fatalf("Claim of a node that shares nothing: got error %v, want a conflict", err)
	}
	if err := errors.Join(a.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}
	if err := alone.Claim(ctx, ClaimOptions{Wait: 30 * time.Second}); err != nil {
		t.Fatal(err)
	}
	late := open(t, Options{URL: url})
	if err := late.Claim(ctx, ClaimOptions{Shared: true}); terse.ErrorCode(err) != terse.CodeConflict {
		t.Fatalf("Claim together with a node that shares nothing: got error %v, want a conflict", err)
	}
}

// TestFeedHead: whoever begins at the head misses no change that it does not show.
func TestFeedHead(t *testing.T) {
	s := open(t, Options{URL: newDatabase(t, "")})
	ctx := context.Background()
	put := func(id string) {
		t.Helper()
		if err := s.PutDocument(ctx, terse.Document{Workspace: 1, Kind: terse.KindCampaign, ID: id, Version: 1, Data: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		put(fmt.Sprint("before-", i))
		head, err := s.FeedHead(ctx)
		if err != nil {
			t.Fatal(err)
		}
		put(fmt.Sprint("after-", i))
		found := false
		for deadline := time.Now().Add(time.Minute); !found; { // other transactions of the server may hold it up
			if time.Now().After(deadline) {
				t.Fatalf("the change after the head %d is not found", head)
			}
			list, err := s.Changes(ctx, head, 100)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range list {
				found = found || c.DocID == fmt.Sprint("after-", i)
			}
		}
	}
}
