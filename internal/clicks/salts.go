package clicks

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

// FileSalts keeps the daily salts of one machine in a file of mode 0600. The
// salt of a day is made at noon of the day before, or when it is needed, and
// deleted an hour after its day: it exists for at most 37 hours. A file of a
// machine that was off for longer is cleaned when it is opened.
type FileSalts struct {
	path  string
	clock func() time.Time

	changing sync.Mutex // one change of the file at a time, and adopted; before mu
	mu       sync.Mutex
	salts    map[int64][16]byte
	adopted  map[int64]bool // days whose salt is another machine's
}

var _ SaltSource = (*FileSalts)(nil)

const (
	nextSaltFrom = 12 * time.Hour // of the day before
	saltGrace    = time.Hour      // after its day, for clicks of its last moments
)

type saltFile struct {
	Version int               `json:"version"`
	Salts   map[string]string `json:"salts"`             // 2026-11-23 -> 32 hexadecimal digits
	Adopted []string          `json:"adopted,omitempty"` // days
}

// OpenSalts reads the file at path, or makes it. A damaged file is replaced:
// visitors of today then count once more, which is better than none for ever.
// clock nil means time.Now.
func OpenSalts(path string, clock func() time.Time) (*FileSalts, error) {
	if clock == nil {
		clock = time.Now
	}
	s := &FileSalts{path: path, clock: clock, salts: map[int64][16]byte{}, adopted: map[int64]bool{}}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open salts: %w", err)
	}
	var f saltFile
	if err == nil && json.Unmarshal(data, &f) == nil && f.Version == 1 {
		for day, text := range f.Salts {
			t, err1 := time.Parse(time.DateOnly, day)
			b, err2 := hex.DecodeString(text)
			if err1 == nil && err2 == nil && len(b) == 16 {
				s.salts[dayOf(t)] = [16]byte(b)
				if slices.Contains(f.Adopted, day) {
					s.adopted[dayOf(t)] = true
				}
			}
		}
	}
	return s, s.Maintain()
}

func dayOf(t time.Time) int64 { return t.UnixMilli() / dayMillis }

// Salt implements SaltSource.
func (s *FileSalts) Salt(day int64) ([16]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	salt, ok := s.salts[day]
	return salt, ok
}

// Maintain implements SaltSource. A salt is used only after it is on disk, so a
// restart within the day keeps its visitors.
func (s *FileSalts) Maintain() error {
	now := s.clock()
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	next := make(map[int64][16]byte, 3)
	for _, day := range []int64{dayOf(now.Add(-saltGrace)), dayOf(now), dayOf(now.Add(24*time.Hour - nextSaltFrom))} {
		salt, ok := s.salts[day]
		if !ok && day < dayOf(now) {
			continue // nothing can be told about a day that has no salt
		}
		if !ok {
			_, _ = rand.Read(salt[:]) // never fails, see crypto/rand
		}
		next[day] = salt
	}
	same := len(next) == len(s.salts)
	for day := range next {
		_, ok := s.salts[day]
		same = same && ok
	}
	// Deletion takes effect in memory even if the disk refuses.
	for day := range s.salts {
		if _, ok := next[day]; !ok {
			delete(s.salts, day)
		}
	}
	s.mu.Unlock()
	if same {
		return nil
	}
	return s.replace(next, s.adopted)
}

// replace uses other salts once they are on disk. It is called with changing locked.
func (s *FileSalts) replace(next map[int64][16]byte, adopted map[int64]bool) error {
	f := saltFile{Version: 1, Salts: make(map[string]string, len(next))}
	kept := map[int64]bool{}
	for day, salt := range next {
		f.Salts[dayName(day)] = hex.EncodeToString(salt[:])
		if adopted[day] {
			f.Adopted, kept[day] = append(f.Adopted, dayName(day)), true
		}
	}
	slices.Sort(f.Adopted)
	if err := writeSalts(s.path, f); err != nil {
		return fmt.Errorf("write salts: %w", err)
	}
	s.mu.Lock()
	s.salts = next
	s.mu.Unlock()
	s.adopted = kept
	return nil
}

func dayName(day int64) string { return time.UnixMilli(day * dayMillis).UTC().Format(time.DateOnly) }

// Days returns the salts that there are, by day (2026-11-23), for the machines that are to know the same visitors.
func (s *FileSalts) Days() map[string][16]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	days := make(map[string][16]byte, len(s.salts))
	for day, salt := range s.salts {
		days[dayName(day)] = salt
	}
	return days
}

// Adopt uses the salts of another machine (Days) for the days that this one would have salts for. A visitor of a day whose
// salt changes counts twice on it: so what was adopted for a day stays, also if several machines answer in turn.
func (s *FileSalts) Adopt(days map[string][16]byte) error {
	now := s.clock()
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	next := maps.Clone(s.salts)
	s.mu.Unlock()
	adopted := maps.Clone(s.adopted)
	for name, salt := range days {
		t, err := time.Parse(time.DateOnly, name)
		if err == nil && !adopted[dayOf(t)] && dayOf(t) >= dayOf(now.Add(-saltGrace)) && dayOf(t) <= dayOf(now.Add(24*time.Hour-nextSaltFrom)) {
			next[dayOf(t)], adopted[dayOf(t)] = salt, true
		}
	}
	if maps.Equal(adopted, s.adopted) {
		return nil
	}
	return s.replace(next, adopted)
}

// writeSalts replaces the file in one step.
func writeSalts(path string, f saltFile) error {
	data, err := json.Marshal(f, json.Deterministic(true))
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".salts-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(append(data, '\n'))
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}
