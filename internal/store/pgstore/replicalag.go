package pgstore

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// progress is how far a replica is. It is found out without asking the replica for its opinion, which it forms of what it has heard:
// one that is cut off has replayed all that it received. Instead the primary is asked where its log ends, and the replica whether it
// has replayed up to there. No clock but this process's is used. ADR 0029 says why.
type progress struct {
	// marks are places in the primary's log that the replica had not reached when it was asked last, oldest first.
	marks []mark
	// has: the replica has every change that was committed before it. Zero: that is not known of any time.
	has time.Time
	// last is where the replica was when it was asked last.
	last int64
}

// mark is where the primary's log ended.
type mark struct {
	at      time.Time // before the primary was asked
	lsn     int64
	lineage string // the history that it is in; "": the server does not say
}

// maxMarks bounds the marks; a replica that is so many seconds behind is judged when it reaches one of the last.
const maxMarks = 300

// marked takes in where the primary's log ended. A log of another history says nothing of marks before.
func (p *progress) marked(m mark) {
	if n := len(p.marks); n > 0 && (p.marks[n-1].lineage != m.lineage || p.marks[n-1].lsn > m.lsn) {
		p.marks, p.has = nil, time.Time{}
	}
	if len(p.marks) == maxMarks {
		p.marks = append(p.marks[:0], p.marks[1:]...)
	}
	p.marks = append(p.marks, m)
}

// reached takes in where the replica is. The last mark stays, to be compared with the next.
func (p *progress) reached(lsn int64, lineage string) {
	if lsn < p.last {
		p.has = time.Time{} // it crashed, or is another server: what was had need not be there
	}
	p.last = lsn
	n := len(p.marks)
	if n == 0 {
		return
	}
	if known := p.marks[n-1].lineage; known != "" && lineage != "" && known != lineage {
		p.has = time.Time{} // it goes on from another primary: what it has beyond that one's is not this one's
		return
	}
	past := 0
	for past < n && p.marks[past].lsn <= lsn {
		past++
	}
	if past == 0 {
		return
	}
	p.has = p.marks[past-1].at
	p.marks = append(p.marks[:0], p.marks[min(past, n-1):]...)
}

const (
	// markQuery asks the primary. A commit is seen and acknowledged after its record is durable, so none of those has its
	// record beyond this; without synchronous_commit one may for a moment.
	markQuery = "select (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint, terse.lineage()"
	// reachedQuery asks the replica, or a primary that is used as one.
	reachedQuery = `select case when pg_is_in_recovery() then (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint
		else (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint end, pg_is_in_recovery()`
	// standbyLineage is terse.lineage of a server that writes no log of its own. It follows the promotion of its primary with the
	// next restart point.
	standbyLineage = `select system_identifier::text || ':' || lpad(upper(to_hex(greatest(c.timeline_id, r.min_recovery_end_timeline))), 8, '0')
		from pg_control_system(), pg_control_checkpoint() c, pg_control_recovery() r`

	markWithin    = 3 * time.Second // the primary's connections may be in use
	reachedWithin = time.Second
)

// querier is a connection or a pool of them.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// markOf asks the primary where its log ends.
func markOf(ctx context.Context, primary querier) (mark, error) {
	m := mark{at: time.Now()}
	err := primary.QueryRow(ctx, markQuery).Scan(&m.lsn, &m.lineage)
	return m, err
}

// reachedBy asks a replica where it is.
func reachedBy(ctx context.Context, replica querier) (lsn int64, lineage string, err error) {
	var at *int64
	var standby bool
	if err := replica.QueryRow(ctx, reachedQuery).Scan(&at, &standby); err != nil {
		return 0, "", err
	}
	ask := "select terse.lineage()"
	if standby {
		ask = standbyLineage
	}
	if err := replica.QueryRow(ctx, ask).Scan(&lineage); err != nil && sqlState(err) == "" {
		return 0, "", err
	} // a server that refuses to say is taken for one that has not changed, as everywhere
	if at == nil {
		return 0, lineage, nil
	}
	return *at, lineage, nil
}

// measure asks the primary and the replica where they are.
func (r *Replica) measure(ctx context.Context) {
	m, errPrimary := r.mark(ctx)
	call, cancel := context.WithTimeout(ctx, reachedWithin)
	lsn, lineage, err := reachedBy(call, r.pool)
	cancel()
	now := time.Now()
	r.mu.Lock()
	if errPrimary == nil {
		r.marked(m)
	}
	if err == nil {
		r.reached(lsn, lineage)
	}
	was, has := r.told, r.has
	r.told = r.upToDateLocked(now)
	is := r.told
	r.mu.Unlock()
	if was != is && ctx.Err() == nil {
		behind := "unknown"
		if !has.IsZero() {
			behind = now.Sub(has).Round(time.Millisecond).String()
		}
		r.s.o.Log.Info("replica of the database", "usable", is, "behind", behind, "error", err, "error_of_primary", errPrimary)
	}
}

// mark asks the primary where its log ends. The wait for a connection does not make the mark older.
func (r *Replica) mark(ctx context.Context) (m mark, err error) {
	ctx, cancel := context.WithTimeout(ctx, markWithin)
	defer cancel()
	err = r.s.pool.AcquireFunc(ctx, func(c *pgxpool.Conn) error {
		m, err = markOf(ctx, c)
		return err
	})
	return m, err
}

// behind returns for how long the replica may not have what was committed; false: it is not known.
func (r *Replica) behind(now time.Time) (time.Duration, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return now.Sub(r.has), !r.has.IsZero()
}
