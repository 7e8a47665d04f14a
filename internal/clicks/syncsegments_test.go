package clicks

import "testing"

// SyncSegments takes any part of a spool, also one that was deleted, and says when there is no spool.
func TestSyncSegments(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	from := r.Position()
	r.Capture(0, &Click{At: 1_800_000_000_000, Link: 1, Code: []byte("a")})
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for _, to := range []Position{{}, from, r.Position(), {Boot: "999999999999999-000000000000"}} {
		if err := SyncSegments(dir, from, to); err != nil {
			t.Errorf("to %v: %v", to, err)
		}
	}
	if err := SyncSegments(dir+"/none", from, r.Position()); err == nil {
		t.Error("no spool, no error")
	}
}
