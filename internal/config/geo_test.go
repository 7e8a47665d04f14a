package config

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestPlacesToCome: the command that makes the files may be run before they are there, and no other.
func TestPlacesToCome(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	load := func(path string, toCome bool) error {
		l, err := Load(Sources{Flags: map[string]string{"geo.city_mmdb": path}, Environ: []string{"TERSE_GEO_CITY_URL=https://me:secret@geo.example.com/x"}, Memory: testMemory, PlacesToCome: toCome})
		if err == nil && (l.Config.Geo.CityMMDB != path || l.Config.Geo.CityURL.Reveal() != "https://me:secret@geo.example.com/x") {
			t.Errorf("geo is %+v", l.Config.Geo)
		}
		return err
	}
	missing := filepath.Join(dir, "city.mmdb")
	if err := load(missing, true); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		path   string
		toCome bool
		want   string
	}{{missing, false, "no such file"}, {dir, true, "not a regular file"}, {"", true, "wants geo.city_mmdb"}} {
		if err := load(c.path, c.toCome); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v, want %q", c.path, err, c.want)
		}
	}
}
