package geo

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"log/slog"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestEmbedded(t *testing.T) {
	t.Parallel()
	db := Embedded()
	for _, tt := range []struct{ ip, want string }{
		{"8.8.8.8", "US"},
		{"193.0.6.139", "NL"},     // RIPE NCC
		{"133.11.0.1", "JP"},      // University of Tokyo
		{"141.20.1.1", "DE"},      // Humboldt University
		{"130.88.1.1", "GB"},      // University of Manchester
		{"200.160.2.3", "BR"},     // NIC.br
		{"196.216.2.1", "ZA"},     // AFRINIC
		{"2001:67c:2e8::1", "NL"}, // RIPE NCC
		{"2001:4860:4860::8888", "US"},
		{"::ffff:141.20.1.1", "DE"},
		{"127.0.0.1", ""}, {"10.1.2.3", ""}, {"192.168.1.1", ""}, {"172.16.0.9", ""}, {"169.254.1.1", ""},
		{"::1", ""}, {"fe80::1", ""}, {"fd00::1", ""}, {"0.0.0.0", ""}, {"224.0.0.1", ""}, {"255.255.255.255", ""}, {"::", ""},
	} {
		for range 2 { // decoded, then remembered
			if got := db.Country(addr(tt.ip)); got != tt.want {
				t.Errorf("%s: %q, want %q", tt.ip, got, tt.want)
			}
		}
		var p Place
		if db.Lookup(addr(tt.ip), &p); p != (Place{Country: tt.want}) {
			t.Errorf("%s: %+v", tt.ip, p)
		}
	}
	if db.Country(netip.Addr{}) != "" || db.HasPlaces() {
		t.Error("no address has no country")
	}
	if err := db.Reload(); err != nil {
		t.Error(err)
	}
}

// TestEmbeddedVerifies reads the whole file: a damaged one must not be released.
func TestEmbeddedVerifies(t *testing.T) {
	if testing.Short() {
		t.Skip("reads every record")
	}
	t.Parallel()
	if err := Embedded().country.verify(); err != nil {
		t.Fatal(err)
	}
	if err := Embedded().country.sane(); err != nil {
		t.Fatal(err)
	}
}

func TestLookupAllocs(t *testing.T) {
	db := Embedded()
	ips := []netip.Addr{addr("8.8.8.8"), addr("141.20.1.1"), addr("2001:67c:2e8::1"), addr("10.0.0.1")}
	var p Place
	run := func() {
		for _, ip := range ips {
			db.Country(ip)
			db.Lookup(ip, &p)
		}
	}
	run()
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

// write replaces a file as a careful updater does.
func write(t *testing.T, path string, data []byte, at time.Time) {
	t.Helper()
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(tmp, at, at); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
}

// TestBrokenReplacements replaces a good file by what goes wrong in practice,
// while lookups go on.
func TestBrokenReplacements(t *testing.T) {
	t.Parallel()
	good := smallDB("city", cityRecord("DE", "BE", "Berlin"))
	path := filepath.Join(t.TempDir(), "city.mmdb")
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	write(t, path, good, start)
	db, err := Open(Options{CityPath: path})
	if err != nil {
		t.Fatal(err)
	}
	check := func(name, city string) {
		t.Helper()
		var p Place
		if db.Lookup(addr("81.2.69.142"), &p); p.City != city || p.Country != "DE" || p.Region != "DE-BE" {
			t.Fatalf("%s: %+v", name, p)
		}
	}
	check("first", "Berlin")
	flipped := bytes.Clone(good)
	flipped[2] ^= 0x40 // a node that now points beyond the data
	for i, tt := range []struct {
		name string
		data []byte
	}{
		{"empty", nil},
		{"cut in the tree", good[:20]},
		{"cut in the metadata", good[:len(good)-10]},
		{"text", []byte("<html>Too many requests</html>")},
		{"zeros", make([]byte, 1000)},
		{"gzip", []byte("\x1f\x8b\x08\x00garbage")},
		{"flipped", flipped},
		{"another kind", smallDB("anonymous", map[string]any{"is_anonymous": "yes"})},
		{"nothing known", smallDB("city", cityRecord("", "", ""))},
	} {
		write(t, path, tt.data, start.Add(time.Duration(i+1)*time.Hour))
		if err := db.Reload(); err == nil {
			t.Errorf("%s: taken over", tt.name)
		}
		check(tt.name, "Berlin")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := db.Reload(); err == nil {
		t.Error("missing: no error")
	}
	check("missing", "Berlin")
	write(t, path, smallDB("city", cityRecord("DE", "BE", "Potsdam")), start.Add(100*time.Hour))
	if err := db.Reload(); err != nil {
		t.Fatal(err)
	}
	check("good again", "Potsdam")
	if _, err := Open(Options{CityPath: filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("a wrong path is not noticed at start")
	}
	if _, err := Open(Options{CityPath: path, MaxBytes: 10}); err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("too large: %v", err)
	}
}

func TestASNAndFallback(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	city, asn := filepath.Join(dir, "city"), filepath.Join(dir, "asn")
	now := time.Now()
	write(t, city, smallDB("city", map[string]any{"country_code": "FR", "state1": "Bretagne", "city": "Brest"}), now)
	write(t, asn, smallDB("asn", map[string]any{"autonomous_system_number": uint32(64500)}), now)
	db, err := Open(Options{CityPath: city, ASNPath: asn})
	if err != nil {
		t.Fatal(err)
	}
	var p Place
	if db.Lookup(addr("8.8.8.8"), &p); p != (Place{"FR", "Bretagne", "Brest", 64500}) {
		t.Errorf("%+v", p)
	}
	// Addresses from 128.0.0.0 are not in the small files.
	if db.Lookup(addr("193.0.6.139"), &p); p != (Place{Country: "NL"}) || db.Country(addr("193.0.6.139")) != "NL" {
		t.Errorf("%+v", p)
	}
	if db.Country(addr("8.8.8.8")) != "FR" || !db.HasPlaces() {
		t.Error("the operator's file does not count")
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "city")
	write(t, path, smallDB("city", cityRecord("DE", "BE", "Berlin")), time.Unix(1, 0))
	var logged bytes.Buffer
	db, err := Open(Options{CityPath: path, Log: slog.New(slog.NewTextHandler(&logged, nil))})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { db.Watch(ctx, time.Minute); close(done) }()
		write(t, path, []byte("broken"), time.Unix(2, 0))
		time.Sleep(5*time.Minute + time.Second)
		synctest.Wait()
		if n := strings.Count(logged.String(), "not taken over"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, &logged)
		}
		write(t, path, smallDB("city", cityRecord("DE", "BE", "Potsdam")), time.Unix(3, 0))
		time.Sleep(time.Minute)
		synctest.Wait()
		var p Place
		if db.Lookup(addr("8.8.8.8"), &p); p.City != "Potsdam" {
			t.Errorf("%+v", p)
		}
		cancel()
		<-done
	})
	Embedded().Watch(t.Context(), time.Minute) // returns: there is nothing to watch
}

func FuzzOpenBytes(f *testing.F) {
	good := smallDB("city", cityRecord("DE", "BE", "Berlin"))
	f.Add(good)
	f.Add(good[:30])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := newSource(data, 16)
		if err != nil || s.verify() != nil {
			return
		}
		for _, ip := range []string{"8.8.8.8", "2001:db8::1"} {
			if s.reader.Metadata.IPVersion == 4 && strings.Contains(ip, ":") {
				continue
			}
			s.lookup(addr(ip))
		}
	})
}

func BenchmarkCountry(b *testing.B) {
	db := Embedded()
	var ips [4096]netip.Addr
	x := uint32(12345)
	for i := range ips {
		x = x*1664525 + 1013904223
		ips[i] = netip.AddrFrom4([4]byte{byte(1 + x>>24%200), byte(x >> 16), byte(x >> 8), byte(x)})
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		db.Country(ips[i&4095])
	}
}

func BenchmarkEmbedded(b *testing.B) {
	for b.Loop() {
		Embedded()
	}
}
