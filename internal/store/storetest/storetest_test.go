package storetest_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"

	"go.uber.org/goleak"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/memstore"
	"github.com/terselink/terse/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mutantEnv names the mutant that a child process of TestMutants runs.
const mutantEnv = "STORETEST_MUTANT"

// TestMutants shows that the suite notices what it is there for: each mutant is
// memstore with one defect, and the topic that it is listed with must fail.
func TestMutants(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants {
		t.Run(m.topic+": "+m.name, func(t *testing.T) {
			t.Parallel()
			run := "^TestMutant$/^" + m.topic + "$"
			cmd := exec.CommandContext(t.Context(), exe, "-test.run="+run, "-test.short="+strconv.FormatBool(m.topic != "Model"), "-test.timeout=60s", "-rapid.nofailfile", "-rapid.shrinktime=1ms")
			cmd.Env = append(os.Environ(), mutantEnv+"="+m.topic+": "+m.name)
			out, err := cmd.CombinedOutput()
			if _, failed := errors.AsType[*exec.ExitError](err); !failed {
				t.Fatalf("the suite passes a store that %s: %v\n%s", m.name, err, out)
			}
			if !bytes.Contains(out, []byte("--- FAIL: TestMutant/"+m.topic+" ")) {
				t.Fatalf("the suite fails at another place:\n%s", out)
			}
		})
	}
}

// TestMutant runs the suite on one mutant. It fails by intent, so it only runs
// as a child of TestMutants.
func TestMutant(t *testing.T) {
	name := os.Getenv(mutantEnv)
	if name == "" {
		t.Skip("only runs as a child of TestMutants")
	}
	i := slices.IndexFunc(mutants, func(m mutant) bool { return m.topic+": "+m.name == name })
	o := storetest.Opts{New: func(testing.TB) terse.Store { return mutants[i].make(memstore.New(nil)) }}
	if mutants[i].topic == "Reopen" {
		o.Reopen = func(_ testing.TB, s terse.Store) terse.Store { return s.(interface{ Reopen() terse.Store }).Reopen() }
	}
	if mutants[i].topic == "Forget" {
		o.Forget = func(_ testing.TB, s terse.Store) { s.(interface{ ForgetChanges() }).ForgetChanges() }
	}
	if mutants[i].topic == "Model" {
		t.Run("Model", func(t *testing.T) { storetest.RunModel(t, o) })
		return
	}
	storetest.Run(t, o)
}

// mutant is a store with a defect.
type mutant struct {
	name  string // completes "a store that …"
	topic string // of Run, or Model
	make  func(*memstore.Store) terse.Store
}

var mutants = []mutant{
	{"leases an index twice", "Leases", func(s *memstore.Store) terse.Store { return &overlap{Store: s} }},
	{"forgets reservations in leases", "Leases", func(s *memstore.Store) terse.Store { return noReserved{s} }},
	{"leases reserved indexes in a race", "Alias", func(s *memstore.Store) terse.Store { return noReserved{s} }},
	{"passes the cap", "Leases", func(s *memstore.Store) terse.Store { return noCap{s} }},
	{"inserts link by link", "Insert", func(s *memstore.Store) terse.Store { return piecemeal{s} }},
	{"inserts link by link", "Chunks", func(s *memstore.Store) terse.Store { return piecemeal{s} }},
	{"writes documents after links", "Chunks", func(s *memstore.Store) terse.Store { return torn{s} }},
	{"names only the first conflict", "Insert", func(s *memstore.Store) terse.Store { return firstRow{s} }},
	{"keeps no documents of a chunk", "Insert", func(s *memstore.Store) terse.Store { return noChunkDocs{s} }},
	{"folds the case of aliases", "Text", func(s *memstore.Store) terse.Store { return foldCase{s} }},
	{"trims external ids", "Text", func(s *memstore.Store) terse.Store { return trimIDs{s} }},
	{"gives an alias to everybody in a race", "Alias", func(s *memstore.Store) terse.Store { return manyWinners{s} }},
	{"purges the whole workspace", "Purge", func(s *memstore.Store) terse.Store { return purgeAll{s} }},
	{"purges nothing", "Purge", func(s *memstore.Store) terse.Store { return purgeNothing{s} }},
	{"ignores versions", "Versions", func(s *memstore.Store) terse.Store { return noVersions{s} }},
	{"checks versions before it locks", "Versions", func(s *memstore.Store) terse.Store { return checkThenAct{s} }},
	{"lists by offset", "List", func(s *memstore.Store) terse.Store { return offsets{s} }},
	{"ends listings early", "List", func(s *memstore.Store) terse.Store { return onePage{s} }},
	{"lists oldest first", "List", func(s *memstore.Store) terse.Store { return oldestFirst{s} }},
	{"ignores a filter", "List", func(s *memstore.Store) terse.Store { return noTagFilter{s} }},
	{"finds plain links late", "Plain", func(s *memstore.Store) terse.Store { return &late{Store: s} }},
	{"finds what has ended", "Plain", func(s *memstore.Store) terse.Store { return undead{s} }},
	{"orders documents by lower case", "Documents", func(s *memstore.Store) terse.Store { return collated{s} }},
	{"loses changes", "Changes", func(s *memstore.Store) terse.Store { return lossyFeed{s} }},
	{"forgets changes in silence", "Forget", func(s *memstore.Store) terse.Store { return hush{s} }},
	{"takes the last change for a forgotten one", "Forget", func(s *memstore.Store) terse.Store { return alarmist{s} }},
	{"ignores contexts", "Context", func(s *memstore.Store) terse.Store { return deaf{s} }},
	{"panics after Close", "Lifecycle", func(s *memstore.Store) terse.Store { return &panics{Store: s} }},
	{"dumps no reservations", "Portable", func(s *memstore.Store) terse.Store { return noReservedDump{s} }},
	{"loads first versions", "Portable", func(s *memstore.Store) terse.Store { return firstVersions{s} }},
	{"dumps the newest links first", "Portable", func(s *memstore.Store) terse.Store { return backwards{s} }},
	{"forgets everything at a restart", "Reopen", func(s *memstore.Store) terse.Store { return amnesiac{s} }},
	{"lags behind without saying so", "List", func(s *memstore.Store) terse.Store { return newLiberal(s, 0) }},
	{"lags behind without saying so", "Changes", func(s *memstore.Store) terse.Store { return newLiberal(s, 0) }},
	{"lags behind without saying so", "Model", func(s *memstore.Store) terse.Store { return newLiberal(s, 0) }},
	{"inserts a deleted link again", "Retry", func(s *memstore.Store) terse.Store { return &riser{Store: s} }},
	{"ignores versions", "Model", func(s *memstore.Store) terse.Store { return noVersions{s} }},
	{"forgets reservations in leases", "Model", func(s *memstore.Store) terse.Store { return noReserved{s} }},
	{"inserts link by link", "Model", func(s *memstore.Store) terse.Store { return piecemeal{s} }},
	{"loses changes", "Model", func(s *memstore.Store) terse.Store { return lossyFeed{s} }},
	{"lists oldest first", "Model", func(s *memstore.Store) terse.Store { return oldestFirst{s} }},
}
