package pebblestore

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/atomicfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/go-cmp/cmp"
)

// TestMarkerOrder checks what Pebble 2.1.7 leaves out: the directory is synced before a marker is
// made, and the marker before it is used.
func TestMarkerOrder(t *testing.T) {
	t.Parallel()
	var ops []string
	names := map[errorfs.OpKind]string{
		errorfs.OpOpenDir: "open directory", errorfs.OpFileSync: "sync", errorfs.OpCreate: "create",
	}
	fsys := &storeFS{
		FS: errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
			if name, ok := names[op.Kind]; ok {
				ops = append(ops, name+" "+op.Path)
			}
			return nil
		})),
		fail: func(err error) { t.Error(err) },
	}
	if err := fsys.MkdirAll("d", 0o700); err != nil {
		t.Fatal(err)
	}
	m, _, err := atomicfs.LocateMarker(fsys, "d", "manifest")
	if err != nil {
		t.Fatal(err)
	}
	ops = nil
	if err := m.Move("MANIFEST-000001"); err != nil {
		t.Fatal(err)
	}
	const marker = "d/marker.manifest.000001.MANIFEST-000001"
	want := []string{
		"open directory d", "sync d", // ours: what the marker will name is in the directory
		"create " + marker,
		"sync " + marker, // ours
		"sync d",
	}
	if diff := cmp.Diff(want, ops); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestMakeDirSyncsParents checks that a directory made on the way survives a power cut.
func TestMakeDirSyncsParents(t *testing.T) {
	t.Parallel()
	mem := vfs.NewCrashableMem()
	if err := makeDir(mem, "a/b/c"); err != nil {
		t.Fatal(err)
	}
	after := mem.CrashClone(vfs.CrashCloneCfg{})
	if _, err := after.Stat("a/b/c"); err != nil {
		t.Errorf("after a power cut: %v", err)
	}
}
