package warm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/terselink/terse"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func content() *Content {
	yes := true
	return &Content{
		Generation: 7, Saved: 1_800_000_000_000, DefaultHost: "go.example.com",
		Domains:   []terse.Document{{Kind: terse.KindDomain, ID: "go.example.com", Version: 3, Data: []byte(`{"host":"go.example.com"}`)}},
		Campaigns: []terse.Document{{Workspace: 1, Kind: terse.KindCampaign, ID: "camp_1", Version: 2, Data: []byte(`{"name":"c"}`)}},
		Links: []terse.Link{
			{Number: terse.NewLinkNumber(1, 7, 5), Workspace: 1, Version: 1, CreatedAt: 10, UpdatedAt: 10, Code: "aB3dE5g", Destination: "https://example.com/"},
			{Number: terse.NewLinkNumber(1, terse.AliasSpace, 2), Workspace: 2, Campaign: 9, Version: 4, CreatedAt: 10, UpdatedAt: 20, ExpiresAt: 30, Code: "ümlaut",
				Values: "a\x1f\"b\"", ExternalID: "r-1", Status: terse.StatusDisabled, DefaultExpiry: true, RedirectStatus: 301,
				Settings: &terse.LinkSettings{Title: "t", ForwardQuery: &yes, Rules: []terse.Rule{{Destination: "https://r.example/"}}}},
			{Number: terse.NewLinkNumber(1, 22, 1), Workspace: 1, Version: 1, Code: "secretsecretsecretsecr", Destination: "https://s.example/", ByCode: true},
		},
	}
}

// TestRoundTrip also holds the bytes of the format (docs/format/warm.md).
func TestRoundTrip(t *testing.T) {
	b, err := Append(nil, content(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(content(), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	path := filepath.Join("testdata", "warm.hex")
	dump := hex.Dump(b)
	if *update {
		if err := os.WriteFile(path, []byte(dump), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), dump); diff != "" {
		t.Errorf("the format has changed; old files are set aside (-want +got):\n%s", diff)
	}
}

// TestDamage: whatever byte is wrong or missing, nothing of the file is used.
func TestDamage(t *testing.T) {
	t.Parallel()
	b, err := Append(nil, content(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1 << (i % 8)
		if _, err := Decode(bad); err == nil {
			t.Errorf("a flipped bit at %d is not noticed", i)
		}
		if _, err := Decode(b[:i]); err == nil {
			t.Errorf("a file cut at %d is taken for whole", i)
		}
	}
	if _, err := Decode(append(bytes.Clone(b), 0)); err == nil {
		t.Error("a byte too many is not noticed")
	}
}

// TestLimit: the hottest links go first, and the file stays below the limit.
func TestLimit(t *testing.T) {
	t.Parallel()
	c := content()
	whole, err := Append(nil, c, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for limit := range len(whole) + 1 {
		b, err := Append(nil, c, limit)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(b)
		if err != nil {
			t.Fatalf("limit %d: %v", limit, err)
		}
		if len(got.Links) > 0 && len(b) > limit || len(got.Domains) != 1 || len(got.Campaigns) != 1 {
			t.Fatalf("limit %d: %d bytes, %d links", limit, len(b), len(got.Links))
		}
		for i := range got.Links {
			if got.Links[i].Number != c.Links[i].Number {
				t.Fatalf("limit %d: link %d is another", limit, i)
			}
		}
	}
}

func TestSaveAndLoad(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), FileName)
	if got, err := Load(path); err != nil || len(got.Links) != 0 {
		t.Fatalf("without a file: %+v, error %v", got, err)
	}
	c := content()
	if _, err := Save(path, c, 1<<20); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
	// Older never replaces newer.
	old := content()
	old.Links = nil
	for _, g := range []uint64{0, 6, 7} {
		old.Generation = g
		if _, err := Save(path, old, 1<<20); !errors.Is(err, ErrOlder) {
			t.Errorf("generation %d over 7: error %v", g, err)
		}
	}
	got, err := Load(path)
	if diff := cmp.Diff(c, got); err != nil || diff != "" {
		t.Errorf("error %v (-want +got):\n%s", err, diff)
	}
	old.Generation = 8
	if _, err := Save(path, old, 1<<20); err != nil {
		t.Fatal(err)
	}

	// A damaged file is set aside, once, and the next one is written as if there were none.
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Load(path); terse.ErrorCode(err) != terse.CodeInternal || len(got.Domains) != 0 {
		t.Errorf("damaged: %+v, error %v", got, err)
	}
	if _, err := os.Stat(path + ".bad"); err != nil {
		t.Error(err)
	}
	if got, err := Load(path); err != nil || got.Generation != 0 {
		t.Errorf("after it was set aside: %+v, error %v", got, err)
	}
	c.Generation = 1
	if _, err := Save(path, c, 1<<20); err != nil {
		t.Error(err)
	}
	// Nothing is left behind where a file cannot be written.
	gone := filepath.Join(t.TempDir(), "no", FileName)
	if _, err := Save(gone, c, 1<<20); err == nil || strings.Contains(err.Error(), "panic") {
		t.Errorf("no folder: error %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	b, err := Append(nil, content(), 1<<20)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:headerBytes])
	empty, err := Append(nil, &Content{Generation: 1}, 1<<20)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(empty)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Append(nil, c, 1<<30)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if _, err := Decode(again); err != nil {
			t.Fatalf("what was written again cannot be read: %v", err)
		}
	})
}
