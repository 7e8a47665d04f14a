package pgstore

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/terselink/terse"
)

// dumpPlace is a place in a dump: a table, and the key of the last row of it that was looked at.
type dumpPlace struct {
	Table     int    `json:"t"`
	Workspace int32  `json:"w,omitzero"`
	Domain    int32  `json:"d,omitzero"`
	Kind      string `json:"k,omitzero"`
	Space     int16  `json:"s,omitzero"`
	Number    int64  `json:"n,omitzero"`
	ID        string `json:"i,omitzero"` // of a document, or a code
}

func (p dumpPlace) String() string {
	b, _ := json.Marshal(p) // never fails: plain fields
	return base64.RawURLEncoding.EncodeToString(b)
}

// parseDumpPlace accepts exactly what String makes, and "" for the start.
func parseDumpPlace(s string) (p dumpPlace, err error) {
	if s == "" {
		return dumpPlace{Domain: -1, Workspace: -1, Number: -1}, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err != nil || p.Table < 0 || p.Table >= len(dumpTables) || p.String() != s {
		return dumpPlace{}, terse.Invalid("after", "not a cursor of this store")
	}
	return p, nil
}

// dumpTable reads at most limit rows of a table after p into the part, and moves p to the last; more says that there
// may be others.
type dumpTable func(s *Store, ctx context.Context, op string, p *dumpPlace, part *terse.Part, limit int) (more bool, err error)

var dumpTables = []dumpTable{(*Store).dumpDocuments, (*Store).dumpCounters, (*Store).dumpReserved, (*Store).dumpRetired}

// Dump implements terse.Portable: one table after the other, each by its primary key.
func (s *Store) Dump(ctx context.Context, after string, limit int) (terse.Part, error) {
	const op = "dump"
	if limit < 1 || limit > maxPage {
		return terse.Part{}, terse.Invalid("limit", "must be 1 to %d", maxPage)
	}
	p, err := parseDumpPlace(after)
	if err != nil {
		return terse.Part{}, err
	}
	ctx, cancel, err := s.enter(ctx, op)
	if err != nil {
		return terse.Part{}, err
	}
	defer cancel()
	var part terse.Part
	more, err := dumpTables[p.Table](s, ctx, op, &p, &part, limit)
	if err != nil {
		return terse.Part{}, err
	}
	if !more {
		p = dumpPlace{Table: p.Table + 1, Domain: -1, Workspace: -1, Number: -1}
	}
	if p.Table < len(dumpTables) {
		part.Next = p.String()
	}
	return part, nil
}

// dumpDocumentLimit bounds the documents of a part, which may be large.
const dumpDocumentLimit = 1000

func (s *Store) dumpDocuments(ctx context.Context, op string, p *dumpPlace, part *terse.Part, limit int) (bool, error) {
	limit = min(limit, dumpDocumentLimit)
	err := s.query(ctx, op, func(r pgx.Rows) error {
		var d terse.Document
		var version int64
		var data string
		if err := r.Scan(&p.Workspace, &p.Kind, &d.ID, &version, &data); err != nil {
			return err
		}
		p.ID = d.ID
		d.Workspace, d.Kind, d.Version, d.Data = terse.WorkspaceID(p.Workspace), terse.Kind(p.Kind), uint64(version), []byte(data)
		part.Documents = append(part.Documents, d)
		return nil
	}, `select workspace_id, kind, id, version, data from terse.documents where (workspace_id, kind, id) > ($1, $2, $3)
		order by workspace_id, kind, id limit $4`, p.Workspace, p.Kind, p.ID, int64(limit))
	return len(part.Documents) == limit, err
}

func (s *Store) dumpCounters(ctx context.Context, op string, p *dumpPlace, part *terse.Part, limit int) (bool, error) {
	err := s.query(ctx, op, func(r pgx.Rows) error {
		var next int64
		if err := r.Scan(&p.Domain, &p.Space, &next); err != nil {
			return err
		}
		part.Counters = append(part.Counters, terse.Counter{Domain: terse.DomainID(p.Domain), Space: terse.SpaceID(p.Space), Next: uint64(next)})
		return nil
	}, `select domain_id, space, next from terse.spaces where (domain_id, space) > ($1, $2) and next > 0 order by domain_id, space limit $3`,
		p.Domain, p.Space, int64(limit))
	return len(part.Counters) == limit, err
}

func (s *Store) dumpReserved(ctx context.Context, op string, p *dumpPlace, part *terse.Part, limit int) (bool, error) {
	err := s.query(ctx, op, func(r pgx.Rows) error {
		if err := r.Scan(&p.Domain, &p.Space, &p.Number); err != nil {
			return err
		}
		part.Reserved = append(part.Reserved, terse.NewLinkNumber(terse.DomainID(p.Domain), terse.SpaceID(p.Space), uint64(p.Number)))
		return nil
	}, `select domain_id, space, idx from terse.reservations where (domain_id, space, idx) > ($1, $2, $3) order by domain_id, space, idx limit $4`,
		p.Domain, p.Space, p.Number, int64(limit))
	return len(part.Reserved) == limit, err
}

// dumpRetired looks at limit codes, most of which may lead to links.
func (s *Store) dumpRetired(ctx context.Context, op string, p *dumpPlace, part *terse.Part, limit int) (bool, error) {
	looked := 0
	err := s.query(ctx, op, func(r pgx.Rows) error {
		var number int64
		var live bool
		if err := r.Scan(&p.Domain, &p.ID, &number, &live); err != nil {
			return err
		}
		looked++
		if !live {
			part.Retired = append(part.Retired, terse.RetiredCode{Number: terse.LinkNumber(number), Code: p.ID})
		}
		return nil
	}, `select a.domain_id, a.code, a.number, l.number is not null
		from (select * from terse.aliases where (domain_id, code) > ($1, $2) order by domain_id, code limit $3) a
		left join terse.links l on l.number = a.number and l.deleted_at is null order by a.domain_id, a.code`,
		p.Domain, p.ID, int64(limit))
	return looked == limit, err
}

// DumpLinks implements terse.Portable: it walks the inserts of the workspace forwards. The cursor is the place of the last
// number that was looked at.
func (s *Store) DumpLinks(ctx context.Context, w terse.WorkspaceID, after string, limit int) (terse.LinkPage, error) {
	const op = "dump links"
	if limit < 1 || limit > maxPage {
		return terse.LinkPage{}, terse.Invalid("limit", "must be 1 to %d", maxPage)
	}
	from := place{}
	if after != "" {
		var err error
		if from, err = parseCursor(after); err != nil {
			return terse.LinkPage{}, err
		}
	}
	ctx, cancel, err := s.enter(ctx, op)
	if err != nil {
		return terse.LinkPage{}, err
	}
	defer cancel()
	var page terse.LinkPage
	numbers := make([]int64, 0, limit)
	at := make(map[int64]int, limit) // where in the page a number is
	last := from
	if err := s.query(ctx, op, func(r pgx.Rows) error {
		var seq, first, links int64
		if err := r.Scan(&seq, &first, &links); err != nil {
			return err
		}
		end := first + links // exclusive
		if seq == from.position {
			first = max(first, from.number+1)
		}
		for n := first; n < end; n++ {
			if len(numbers) == limit {
				page.Next = last.String()
				return nil
			}
			at[n] = len(numbers)
			numbers = append(numbers, n)
			last = place{seq, n}
		}
		return nil
	}, "select seq, first_number, links from terse.inserts where workspace_id = $1 and seq >= $2 order by seq limit $3", int32(w), from.position, int64(limit+2)); err != nil {
		return terse.LinkPage{}, err
	}
	if len(numbers) == 0 {
		return page, nil
	}
	// By their numbers one by one: before the first ANALYZE the planner takes a join with ranges for one with the whole table.
	found := make([]terse.Link, len(numbers))
	if err := s.query(ctx, op, func(r pgx.Rows) error {
		var l terse.Link
		err := scanLink(r, &l)
		found[at[int64(l.Number)]] = l
		return err
	}, "select "+columns+" from terse.links l where l.number = any($1::bigint[]) and l.workspace_id = $2 and l.deleted_at is null", numbers, int32(w)); err != nil {
		return terse.LinkPage{}, err
	}
	page.Links = slices.DeleteFunc(found, func(l terse.Link) bool { return l.Number == 0 })
	return page, nil
}

// Load implements terse.Portable: one transaction, so a part that does not fit writes nothing.
func (s *Store) Load(ctx context.Context, part *terse.Part) error {
	const op = "load"
	for i := range part.Documents {
		if err := checkDocument(&part.Documents[i]); err != nil {
			return err
		}
	}
	ctx, cancel, err := s.enter(ctx, op)
	if err != nil {
		return err
	}
	defer cancel()
	if len(part.Documents)+len(part.Reserved)+len(part.Retired) == 0 {
		return nil
	}
	return s.write(ctx, op, func(ctx context.Context, t *txn) error {
		b := begin(s)
		other := false
		queueLoad(b, part, &other)
		if err := t.run(ctx, b); err != nil {
			return err
		}
		if other {
			return terse.ErrExists
		}
		return t.commit(ctx, &pgx.Batch{})
	})
}

// queueLoad queues the writes of a part; other comes to say that something else is in their place.
func queueLoad(b *pgx.Batch, part *terse.Part, other *bool) {
	differs := func(r pgx.Row) error {
		var found bool
		err := r.Scan(&found)
		*other = *other || found
		return err
	}
	if n := len(part.Documents); n > 0 {
		workspaces, versions := make([]int32, n), make([]int64, n)
		kinds, ids, data := make([]string, n), make([]string, n), make([]string, n)
		for i := range part.Documents {
			d := &part.Documents[i]
			workspaces[i], kinds[i], ids[i], versions[i], data[i] = int32(d.Workspace), string(d.Kind), d.ID, int64(d.Version), string(d.Data)
		}
		b.Queue(`insert into terse.documents (workspace_id, kind, id, version, data)
			select * from unnest($1::int[], $2::text[], $3::text[], $4::bigint[], $5::text[]) on conflict do nothing`, workspaces, kinds, ids, versions, data)
		b.Queue(`select exists (select from terse.documents d join unnest($1::int[], $2::text[], $3::text[], $4::bigint[], $5::text[])
				as k (workspace_id, kind, id, version, data) using (workspace_id, kind, id) where d.version <> k.version or d.data <> k.data)`,
			workspaces, kinds, ids, versions, data).QueryRow(differs)
	}
	if len(part.Reserved) > 0 {
		d, sp, idx := splitNumbers(part.Reserved)
		b.Queue(`insert into terse.reservations (domain_id, space, idx)
			select * from unnest($1::int[], $2::smallint[], $3::bigint[]) on conflict do nothing`, d, sp, idx)
	}
	if n := len(part.Retired); n > 0 {
		domains, codes, numbers := make([]int32, n), make([]string, n), make([]int64, n)
		for i, r := range part.Retired {
			domains[i], codes[i], numbers[i] = int32(r.Number.Domain()), r.Code, int64(r.Number)
		}
		b.Queue(`insert into terse.aliases (domain_id, code, number)
			select * from unnest($1::int[], $2::text[], $3::bigint[]) on conflict do nothing`, domains, codes, numbers)
		b.Queue(`select exists (select from unnest($1::int[], $2::text[], $3::bigint[]) as k (domain_id, code, number)
				join terse.aliases a using (domain_id, code) left join terse.links l on l.number = a.number and l.deleted_at is null
				where a.number <> k.number or l.number is not null)`, domains, codes, numbers).QueryRow(differs)
	}
}

// latestMigration returns the version of the tables that this program makes.
func latestMigration() (int64, error) {
	files, err := migrations.ReadDir("migrations")
	if err != nil {
		return 0, fmt.Errorf("list migrations: %w", err)
	}
	latest := int64(0)
	for _, f := range files {
		number, _, _ := strings.Cut(f.Name(), "_")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("list migrations: %w", err)
		}
		latest = max(latest, n)
	}
	return latest, nil
}

// requireTables refuses tables that are not those of this program: a store that is opened read-only cannot bring them
// up to date.
func (s *Store) requireTables(ctx context.Context) error {
	const op = "look at the database"
	latest, err := latestMigration()
	if err != nil {
		return err
	}
	var have int64
	err = s.query(ctx, op, func(r pgx.Rows) error { return r.Scan(&have) }, "select coalesce(max(version_id), 0) from terse.migrations")
	switch state := sqlState(err); {
	case state == "42P01" || state == "3F000":
		return terse.Invalid("url", "the database holds no tables of Terse")
	case err != nil:
		return err
	case have != latest:
		return terse.Invalid("url", "the tables have version %d, this program has %d: start the server of the newer one on them first", have, latest)
	}
	return nil
}
