package duckdb

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
)

const (
	mirrorFile  = "mirror.json"       // in the folder of the record: what the store has
	ownerObject = "terse-record.json" // in the store: whose record it is
)

// ownership says which record a store holds, so that two servers never mix theirs, and which folder it is
// made from: every start raises the epoch, so that a server that was replaced, a clone and an older copy of
// the folder change nothing any more.
type ownership struct {
	Record string `json:"record"` // random
	Epoch  int64  `json:"epoch"`
	Token  string `json:"token"` // random, of the start: two that raise the epoch at once do not look alike
}

// raised returns the ownership of another start.
func (o ownership) raised() ownership {
	return ownership{Record: o.Record, Epoch: o.Epoch + 1, Token: rand.Text()}
}

// mirrorState is what the folder knows of the store.
type mirrorState struct {
	Store  string           `json:"store"`  // its name
	Owner  ownership        `json:"owner"`  // as the store has it; epoch 0: it was never claimed
	Next   ownership        `json:"next"`   // the store has this one if the answer to the last change got lost
	Taking bool             `json:"taking"` // files are being fetched: the folder is not whole
	Files  map[string]stamp `json:"files"`  // as they were when they were sent; -1 byte: on their way
}

func newMirror(d *DB, store RecordStore) *mirror {
	return &mirror{d: d, store: store, wake: make(chan struct{}, 1), status: MirrorStatus{Store: store.Name()}}
}

func (m *mirror) path() string { return filepath.Join(m.d.o.Record, mirrorFile) }

// load reads the state. One that cannot be read is as good as none, but for readopt.
func (m *mirror) load() error {
	data, err := os.ReadFile(m.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	s := &mirrorState{}
	if err := json.Unmarshal(data, s); err != nil || s.Owner.Record == "" {
		m.d.o.Log.Error("what is known of the record store cannot be read", "file", m.path(), "error", err)
		m.unreadable = true
		return nil
	}
	if s.Files == nil {
		s.Files = map[string]stamp{}
	}
	m.state = s
	return nil
}

// save writes the state, whole or not at all.
func (m *mirror) save() error {
	data, err := json.Marshal(m.state, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	tmp := m.path() + tmpSuffix
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	if err := syncFile(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, m.path()); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return syncDir(m.d.o.Record)
}

// open brings the folder to what the tables, or a new database, need of it. fresh: the database is new.
func (m *mirror) open(ctx context.Context, fresh bool) error {
	if err := m.load(); err != nil {
		return err
	}
	local, err := walkRecord(m.d.o.Record)
	if err != nil {
		return err
	}
	if m.state == nil && fresh && !hasClicks(local) || m.state != nil && m.state.Taking {
		if err := m.takeOver(ctx, local); err != nil {
			return fmt.Errorf("%w: %w", ErrRecordStore, err)
		}
		return nil
	}
	if m.state == nil {
		return nil // the first round claims the store
	}
	var missing []string
	for name := range m.state.Files {
		if _, here := local[name]; !here && (fresh || m.d.refersTo(name)) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if m.state.Store != m.store.Name() { // the record moves, or the place is called otherwise
		owner, _, err := m.readOwner(ctx)
		if errors.Is(err, terse.ErrNotFound) || err == nil && owner.Record != m.state.Owner.Record {
			m.d.o.Log.Error("files of the record are missing here, and the record store has another record or none", "files", len(missing), "store", m.store.Name(), "before", m.state.Store)
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrRecordStore, err)
		}
	}
	m.d.o.Log.Warn("files of the record are missing here and come from the record store", "files", len(missing), "store", m.store.Name())
	if err := errors.Join(m.fetch(ctx, missing), m.save()); err != nil {
		return fmt.Errorf("%w: %w", ErrRecordStore, err)
	}
	return nil
}

// takeOver fetches all that the store has into an empty folder. A store that holds no record is left alone. Cut off, it
// goes on at the next start.
func (m *mirror) takeOver(ctx context.Context, local map[string]stamp) error {
	owner, tag, err := m.readOwner(ctx)
	none := errors.Is(err, terse.ErrNotFound)
	if m.state != nil && (none || err == nil && owner.Record != m.state.Owner.Record) {
		return refusal("the folder of the record has a part of what is in %s, and %s does not have that record: set record.s3 back, or move the folder away", m.state.Store, m.store.Name())
	}
	if none {
		if err := os.Remove(m.path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("record: %w", err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	m.state = &mirrorState{Store: m.store.Name(), Owner: owner, Taking: true, Files: map[string]stamp{}}
	if err := m.raise(ctx, tag); err != nil {
		return err
	}
	// The server before may be in a round, and knows of this one only in the next: look again until nothing is new.
	for {
		var names []string
		var size int64
		if err := m.store.List(ctx, "", func(name string, bytes int64) error {
			if !isRecordName(name) {
				return nil
			}
			if s, there := m.state.Files[name]; there && s.Bytes == bytes {
				return nil
			}
			if local[name].Bytes == bytes && bytes != 0 {
				m.state.Files[name] = local[name]
				return nil
			}
			names = append(names, name)
			size += bytes
			return nil
		}); err != nil {
			return err
		}
		if len(names) == 0 {
			break
		}
		m.d.o.Log.Info("the record is fetched from the record store", "store", m.store.Name(), "files", len(names), "bytes", size)
		if err := m.fetch(ctx, names); err != nil {
			return err
		}
	}
	m.state.Taking = false
	return m.save()
}

// restore fetches one file again whose copy here cannot be read. false: the store does not have it.
func (m *mirror) restore(ctx context.Context, name string) (bool, error) {
	if m == nil || m.state == nil {
		return false, nil
	}
	if _, there := m.state.Files[name]; !there {
		return false, nil
	}
	if err := errors.Join(m.fetch(ctx, []string{name}), m.save()); err != nil {
		return false, fmt.Errorf("%w: %w", ErrRecordStore, err)
	}
	_, there := m.state.Files[name]
	return there, nil
}

// own makes sure that the store holds this record and no other, and that no other server has taken it over.
func (m *mirror) own(ctx context.Context) error {
	owner, tag, err := m.readOwner(ctx)
	switch {
	case errors.Is(err, terse.ErrNotFound):
		return m.claim(ctx)
	case err != nil:
		return err
	case m.state == nil && m.unreadable:
		if err := m.readopt(ctx, owner); err != nil {
			return err
		}
	case m.state == nil || owner.Record != m.state.Owner.Record:
		return refusal("%s holds the record of another server: choose another record.s3.prefix; a server takes a record over if its own data folder has none", m.store.Name())
	case owner == m.state.Owner:
	case owner == m.state.Next: // the answer got lost
		m.state.Owner = owner
	default:
		return m.takenOver()
	}
	if m.raised {
		return nil
	}
	return m.raise(ctx, tag)
}

// takenOver is the refusal of a folder that the store goes on without.
func (m *mirror) takenOver() error {
	return refusal("another server has taken over the record in %s, or this data folder is an older copy; this server changes nothing there any more. To begin again with what is there, "+
		"stop the server and move its folder %s away", m.store.Name(), m.d.o.Dir)
}

// stillOwn makes sure that nobody has taken the record over since own.
func (m *mirror) stillOwn(ctx context.Context) error {
	owner, _, err := m.readOwner(ctx)
	if err == nil && owner != m.state.Owner {
		err = m.takenOver()
	}
	return err
}

// raise writes the ownership of this start to the store, where the version tag of the one before is: "" for none.
func (m *mirror) raise(ctx context.Context, tag string) error {
	m.state.Next = m.state.Owner.raised()
	if err := m.save(); err != nil {
		return err
	}
	if err := m.writeOwner(ctx, tag, m.state.Next); err != nil {
		return err
	}
	m.state.Store, m.state.Owner, m.state.Next, m.raised = m.store.Name(), m.state.Next, ownership{}, true
	return m.save()
}

// readopt takes the ownership from the store when the state could not be read, if the store has the clicks of the folder.
func (m *mirror) readopt(ctx context.Context, owner ownership) error {
	local, err := walkRecord(m.d.o.Record)
	if err != nil {
		return err
	}
	files, same := map[string]stamp{}, 0
	if err := m.store.List(ctx, "", func(name string, bytes int64) error {
		if s, here := local[name]; here && s.Bytes == bytes {
			files[name] = s
			if strings.HasPrefix(name, clicksFolder+"/") {
				same++
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if same == 0 {
		return refusal("%s cannot be read, and %s has no clicks of this folder: choose another record.s3.prefix", m.path(), m.store.Name())
	}
	m.state = &mirrorState{Store: m.store.Name(), Owner: owner, Files: files}
	return nil
}

// claim makes an empty store that of this record.
func (m *mirror) claim(ctx context.Context) error {
	if err := m.store.List(ctx, "", func(name string, _ int64) error {
		if isRecordName(name) && (m.state == nil || m.state.Owner.Epoch == 0 || m.state.Store != m.store.Name()) {
			return refusal("%s holds files of a record and no %s that says whose: choose an empty record.s3.prefix", m.store.Name(), ownerObject)
		}
		return nil
	}); err != nil {
		return err
	}
	if m.state == nil {
		m.state = &mirrorState{Owner: ownership{Record: rand.Text()}}
	}
	// What a store had that is empty now is sent again.
	m.state.Files = map[string]stamp{}
	m.audited = m.d.o.Clock().Add(-2 * mirrorAudit)
	return m.raise(ctx, "")
}

// audit lists the store: what it lost is sent again. What it has and this folder never sent stays: it is of a folder that
// knows more than this one, such as the one that this is an older copy of.
func (m *mirror) audit(ctx context.Context) error {
	files, strange, first := map[string]stamp{}, 0, ""
	notes, err := stampOf(filepath.Join(m.d.o.Record, erasuresFile))
	here := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("audit record store: %w", err) // unread notes must not pass for none
	}
	err = m.store.List(ctx, "", func(name string, bytes int64) error {
		s, known := m.state.Files[name]
		switch {
		case !isRecordName(name):
		case name == erasuresFile && here && bytes > notes.Bytes: // it only grows
			return m.takenOver()
		case !known:
			strange++
			first = name
		case s.Bytes != bytes:
			files[name] = stamp{Bytes: -1}
		default:
			files[name] = s
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("audit record store: %w", err)
	}
	if strange > 0 {
		m.d.o.Log.Error("the record store has files that this folder did not send; they stay there", "store", m.store.Name(), "files", strange, "one", first)
	}
	if !maps.Equal(files, m.state.Files) {
		m.state.Files = files
		return m.save()
	}
	return nil
}

func (m *mirror) readOwner(ctx context.Context) (o ownership, tag string, err error) {
	data, tag, err := m.store.Read(ctx, ownerObject)
	if err != nil {
		return o, "", err
	}
	if err := json.Unmarshal(bytes.TrimSpace(data), &o); err != nil || o.Record == "" {
		return o, "", refusal("%s in %s cannot be read", ownerObject, m.store.Name())
	}
	return o, tag, nil
}

func (m *mirror) writeOwner(ctx context.Context, tag string, o ownership) error {
	data, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return m.store.Replace(ctx, ownerObject, tag, append(data, '\n'))
}

// refusal is an error that somebody has to mend.
func refusal(format string, args ...any) error {
	return &terse.Error{Code: terse.CodePrecondition, Reason: "record_store_refused", Message: fmt.Sprintf(format, args...)}
}
