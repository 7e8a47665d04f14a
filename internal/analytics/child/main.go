package child

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse/internal/analytics/duckdb"
	"github.com/terselink/terse/internal/bucket"
	"github.com/terselink/terse/internal/clicks"
)

// Subcommand is the hidden argument with which the parent starts the child.
const Subcommand = "analytics-child"

// Main is the body of the hidden subcommand: it runs the child until stdin ends and returns the
// exit code. It changes the umask and the signal handling of the process and is for no other use.
func Main(stdin io.Reader, stdout, stderr io.Writer) int {
	return run(stdin, stdout, stderr, openSpool)
}

// spool is a Source that has files open.
type spool interface {
	duckdb.Source
	io.Closer
	// Quarantined returns how many damaged places were met.
	Quarantined() int64
}

func run(stdin io.Reader, stdout, stderr io.Writer, open func(c config, from clicks.Position) (spool, error)) int {
	log := slog.New(slog.NewJSONHandler(stderr, nil))
	err := serve(stdin, stdout, log, open)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, error(duckdb.ErrLocked)):
		log.Warn("analytics file is locked", "error", err)
		return exitLocked
	case errors.Is(err, duckdb.ErrRecordStore):
		log.Error("analytics cannot begin", "error", err)
		return exitStore
	case errors.Is(err, duckdb.ErrDamaged):
		log.Error("analytics file is damaged", "error", err)
		return exitDamaged
	case errors.Is(err, duckdb.ErrUnusable):
		log.Error("analytics file cannot be opened", "error", err)
		return exitUnusable
	}
	log.Error("analytics ended", "error", err)
	return exitFailed
}

// serve runs until stdin ends (nil) or something fails.
func serve(stdin io.Reader, stdout io.Writer, log *slog.Logger, open func(config, clicks.Position) (spool, error)) (err error) {
	syscall.Umask(0o077) // files and the socket are the owner's alone
	// A terminal and a service manager signal the whole group. The parent decides
	// when the child ends, by closing its input.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	in := bufio.NewReader(stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	var c config
	if err := json.Unmarshal(line, &c); err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // lives as long as the process
		_, _ = io.Copy(io.Discard, in)
		cancel()
		// A database call that hangs must not keep the file locked.
		time.AfterFunc(10*time.Second, func() { os.Exit(exitFailed) })
	}()

	if c.SetAside {
		if err := duckdb.SetAside(c.Dir, time.Now()); err != nil {
			return err
		}
	}
	var store duckdb.RecordStore
	if c.Store != nil {
		if store, err = bucket.Open(ctx, *c.Store); err != nil {
			return err
		}
	}
	db, err := duckdb.Open(ctx, duckdb.Options{Store: store, Dir: c.Dir, Record: c.RecordDir, MemoryLimit: c.MemoryLimit, Threads: c.Threads, WALBytes: c.WALBytes, SweepLinks: c.SweepLinks, Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()

	db.SetRetention(c.Retention)
	src, err := open(c, db.Position())
	if err != nil {
		return fmt.Errorf("open spool: %w", err)
	}
	defer func() { err = errors.Join(err, src.Close()) }()

	stop, err := listen(c.Socket, handler(db, func(s *wireStatus) {
		s.Stored, s.Mirror = db.Stored(), db.Mirrored()
		s.Rejected, s.Quarantined, s.Recorded, s.RecordErrors, s.Sweeps = db.Rejected(), src.Quarantined(), db.Recorded(), db.RecordErrors(), db.Sweeps()
	}))
	if err != nil {
		return err
	}
	defer stop()
	if _, err := fmt.Fprintln(stdout, opened); err != nil {
		return fmt.Errorf("tell the parent: %w", err)
	}
	maintained := make(chan error, 1)
	go func() {
		err := db.Maintain(ctx)
		if err != nil {
			cancel() // Ingest cannot go on either
		}
		maintained <- err
	}()
	mirrored := make(chan error, 1)
	go func() { mirrored <- db.Mirror(ctx) }()
	err = db.Ingest(ctx, src)
	cancel()
	return errors.Join(err, <-maintained, <-mirrored)
}

// listen serves h on a socket. The caller holds the lock of the database, so a socket that is
// there already belongs to a process that has died.
func listen(path string, h http.Handler) (stop func(), err error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for queries: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect socket: %w", err), l.Close())
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l) // returns when closed
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if s.Shutdown(ctx) != nil {
			_ = s.Close()
		}
		<-done
	}, nil
}
