package config

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
)

var update = flag.Bool("update", false, "rewrite generated files")

const testMemory = int64(16 * GiB)

func TestDefaultIsValid(t *testing.T) {
	t.Parallel()
	for _, memory := range []int64{int64(GiB), int64(4 * GiB), testMemory, int64(2 * TiB)} {
		if problems := Default(memory).Validate(memory); problems != nil {
			t.Errorf("with %v of memory: %v", Bytes(memory), problems)
		}
	}
}

func TestLayers(t *testing.T) {
	t.Parallel()
	file := writeFile(t, "terse.yaml", `
redirect_addr: ":80"
control_addr: "127.0.0.1:9001"
cache: {bytes: 128MiB}
trusted_proxies: [10.0.0.0/8, "192.0.2.1"]
clicks:
  sync_every: 2s
  enabled: true
analytics:
  threads: 3
geo:
store: {}
`)
	l, err := Load(Sources{
		File:    file,
		Environ: []string{"TERSE_CONTROL_ADDR=127.0.0.1:9002", "TERSE_CACHE_BYTES=256MiB", "TERSE_ROLE=worker, control, redirect", "HOME=/root", "TERSE_KEY=k", "TERSE_PORT_80_TCP=tcp://10.0.0.1:80", "TERSE_SERVICE_HOST=10.0.0.1", "TERSE_DATA=", "TERSE_FUTURE="},
		Flags:   map[string]string{"cache.bytes": "1.5GiB", "clicks.enabled": "false"},
		Memory:  testMemory,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Default(testMemory)
	want.RedirectAddr = ":80"
	want.ControlAddr = "127.0.0.1:9002"
	want.Cache.Bytes = 1536 * MiB
	want.TrustedProxies = []string{"10.0.0.0/8", "192.0.2.1"}
	want.Clicks.SyncEvery = 2 * time.Second
	want.Clicks.Enabled = false
	want.Analytics.Threads = 3
	want.Role = []string{RoleWorker, RoleControl, RoleRedirect}
	if diff := cmp.Diff(want, l.Config); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	sources := map[string]string{}
	for _, v := range l.Values() {
		sources[v.Key] = v.Value + " from " + v.Source
	}
	for key, want := range map[string]string{
		"data":              "./data from default",
		"redirect_addr":     ":80 from file " + file,
		"control_addr":      "127.0.0.1:9002 from environment TERSE_CONTROL_ADDR",
		"cache.bytes":       "1536MiB from flag --cache-bytes",
		"role":              "worker,control,redirect from environment TERSE_ROLE",
		"trusted_proxies":   "10.0.0.0/8,192.0.2.1 from file " + file,
		"bootstrap_key":     " from default",
		"clicks.sync_every": "2s from file " + file,
	} {
		if sources[key] != want {
			t.Errorf("%s = %q, want %q", key, sources[key], want)
		}
	}
	if !l.Config.Has(RoleControl) || (&Config{Role: []string{RoleControl}}).Has(RoleWorker) {
		t.Errorf("Has disagrees with role %v", l.Config.Role)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := writeFile(t, "some.txt", "x")
	cases := []struct {
		name string
		env  string // "KEY=value" without prefix
		yaml string
		flag string // "key=value"
		key  string // field of the error
		want string // part of the message
	}{
		{name: "unknown key", yaml: "cahce: {bytes: 1GiB}", key: "cahce.bytes", want: `did you mean "cache.bytes"?`},
		{name: "unknown section", yaml: "postgres: {url: x}", key: "postgres.url", want: "there is no key"},
		{name: "unknown variable", env: "REDIRECT_ADR=:1", key: "TERSE_REDIRECT_ADR", want: `did you mean "TERSE_REDIRECT_ADDR"?`},
		{name: "unknown flag key", flag: "nope=1", key: "nope", want: "there is no key"},
		{name: "section given a value", yaml: "cache: 3", key: "cache", want: "is a section"},
		{name: "value given a section", yaml: "data: {x: 1}", key: "data.x", want: "there is no key"},
		{name: "scalar given a list", yaml: "data: [a, b]", key: "data", want: "not a list"},
		{name: "list of sections", yaml: "trusted_proxies: [{a: 1}]", key: "trusted_proxies", want: "not a section"},
		{name: "not YAML", yaml: "a: b: c", key: "config", want: "not a YAML file"},
		{name: "a list at the top", yaml: "- a", key: "config", want: "not a YAML file"},
		{name: "a key twice", yaml: "data: a\ndata: b", key: "config", want: "already defined"},
		{name: "no such file", key: "config", want: "no such file"},

		{name: "size without sense", env: "CACHE_BYTES=much", key: "cache.bytes", want: "not a size"},
		{name: "size of zero", env: "CACHE_BYTES=0", key: "cache.bytes", want: "too small"},
		{name: "negative size", env: "BULK_MAX_BYTES=-1GiB", key: "bulk.max_bytes", want: "too small"},
		{name: "absurd size", env: "BULK_MAX_BYTES=900TiB", key: "bulk.max_bytes", want: "too large"},
		{name: "overflow", env: "BULK_MAX_BYTES=9000000000GiB", key: "bulk.max_bytes", want: "too large"},
		{name: "duration without unit", env: "CLICKS_SYNC_EVERY=5", key: "clicks.sync_every", want: "not a duration"},
		{name: "proxy protocol of nobody", env: "REDIRECT_PROXY_PROTOCOL=true", key: "redirect.proxy_protocol", want: "trusted_proxies"},
		{name: "negative duration", env: "REDIRECT_DRAIN_WAIT=-1s", key: "redirect.drain_wait", want: "too small"},
		{name: "long duration", env: "CLICKS_SYNC_EVERY=1h", key: "clicks.sync_every", want: "the most is 1m"},
		{name: "not a number", env: "ANALYTICS_THREADS=two", key: "analytics.threads", want: "not a whole number"},
		{name: "no threads", env: "ANALYTICS_THREADS=0", key: "analytics.threads", want: "too small"},
		{name: "not a bool", env: "CLICKS_ENABLED=yes", key: "clicks.enabled", want: "not true or false"},
		{name: "country header of nobody", env: "REDIRECT_COUNTRY_HEADER=CF-IPCountry", key: "redirect.country_header", want: "trusted_proxies is empty"},
		{name: "country header with a colon", env: "REDIRECT_COUNTRY_HEADER=CF-IPCountry:", key: "redirect.country_header", want: "not the name of a header"},
		{name: "network by name", env: "CLICKS_HOSTING_ASNS=AS64496,hetzner", key: "clicks.hosting_asns", want: `"hetzner" is not the number of a network`},
		{name: "network 0", env: "CLICKS_HOSTING_ASNS=as0", key: "clicks.hosting_asns", want: "not the number of a network"},
		{name: "network beyond 32 bits", env: "CLICKS_HOSTING_ASNS=4294967296", key: "clicks.hosting_asns", want: "not the number of a network"},
		{name: "not one of", flag: "log.level=loud", key: "log.level", want: "not one of debug, info, warn, error"},
		{name: "unknown role", env: "ROLE=redirect,api", key: "role", want: `"api" is not one of`},
		{name: "a role twice", env: "ROLE=worker,worker", key: "role", want: "twice"},
		{name: "no role", flag: "role=", key: "role", want: "is empty"},

		{name: "empty data", yaml: "data:", key: "data", want: "is empty"},
		{name: "root as data", env: "DATA=/tmp/..", key: "data", want: "root of the file system"},
		{name: "file as data", env: "DATA=" + file, key: "data", want: "not a folder"},
		{name: "address without port", env: "REDIRECT_ADDR=127.0.0.1", key: "redirect_addr", want: "not an address"},
		{name: "port out of range", env: "REDIRECT_ADDR=:80800", key: "redirect_addr", want: "not a port"},
		{name: "URL as address", env: "CONTROL_ADDR=http://localhost:8081", key: "control_addr", want: "not an address"},
		{name: "same address", env: "CONTROL_ADDR=127.0.0.1:8080", key: "control_addr", want: "share a port"},
		{name: "same port on any host", flag: "redirect_addr=0.0.0.0:8081", key: "control_addr", want: "share a port"},
		{name: "address as URL", env: "NODE_URL=10.0.0.5:8081", key: "node_url", want: "not an address such as http"},
		{name: "node URL with a path", env: "NODE_URL=http://10.0.0.5:8081/api", key: "node_url", want: "not an address such as http"},
		{name: "node URL with a key", env: "NODE_URL=http://u:p@10.0.0.5", key: "node_url", want: "not an address such as http"},
		{name: "node URL with port 0", env: "NODE_URL=http://10.0.0.5:0", key: "node_url", want: "not an address such as http"},
		{name: "node URL of every interface", env: "NODE_URL=http://0.0.0.0:8081", key: "node_url", want: "every interface"},
		{name: "node URL of another kind", env: "NODE_URL=file:///etc", key: "node_url", want: "not an address such as http"},
		{name: "proxies of everybody", env: "TRUSTED_PROXIES=0.0.0.0/0", key: "trusted_proxies", want: "everybody"},
		{name: "proxy by name", env: "TRUSTED_PROXIES=proxy.local", key: "trusted_proxies", want: "not an address"},
		{name: "proxy mask", env: "TRUSTED_PROXIES=10.1.2.3/8", key: "trusted_proxies", want: "10.0.0.0/8 is probably meant"},
		{name: "more memory than there is", env: "CACHE_BYTES=15GiB", key: "cache.bytes", want: "add up to"},
		{name: "drain longer than stop", env: "REDIRECT_DRAIN_WAIT=15s", key: "shutdown_timeout", want: "leaves no time"},
		{name: "geo file missing", env: "GEO_CITY_MMDB=/nonexistent.mmdb", key: "geo.city_mmdb", want: "no such file"},
		{name: "geo file is a folder", env: "GEO_ASN_MMDB=" + dir, key: "geo.asn_mmdb", want: "not a regular file"},
		{name: "geo URL without file", env: "GEO_CITY_URL=https://geo.example.com/city.mmdb", key: "geo.city_url", want: "wants geo.city_mmdb"},
		{name: "geo URL is a file", env: "GEO_ASN_URL=/tmp/asn.mmdb", key: "geo.asn_url", want: "not an http or https URL"},
		{name: "geo URL with a bare password", env: "GEO_ASN_URL=http://me:secret@geo.example.com/", key: "geo.asn_url", want: "without encryption"},
		{name: "short key", env: "BOOTSTRAP_KEY=hunter2", key: "bootstrap_key", want: "32 to 128"},
		{name: "key with space", env: "BOOTSTRAP_KEY=" + strings.Repeat("a b", 12), key: "bootstrap_key", want: "without spaces"},
		{name: "key file missing", env: "BOOTSTRAP_KEY_FILE=/nonexistent", key: "bootstrap_key_file", want: "no such file"},
		{name: "secret given a list", yaml: "bootstrap_key: [hunter2hunter2]", key: "bootstrap_key", want: "is not text"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := Sources{Memory: testMemory}
			if tc.env != "" {
				s.Environ = []string{EnvPrefix + tc.env}
			}
			switch {
			case tc.yaml != "":
				s.File = writeFile(t, "terse.yaml", tc.yaml)
			case tc.flag != "":
				key, value, _ := strings.Cut(tc.flag, "=")
				s.Flags = map[string]string{key: value}
			case tc.env == "":
				s.File = filepath.Join(dir, "missing.yaml")
			}
			_, err := Load(s)
			e, ok := errors.AsType[*terse.Error](err)
			if !ok {
				t.Fatalf("Load = %v, want a *terse.Error", err)
			}
			if e.Code != terse.CodeInvalid || e.Field != tc.key || !strings.Contains(e.Message, tc.want) {
				t.Errorf("error %q on field %q, want %q on %q", e.Message, e.Field, tc.want, tc.key)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
}

func TestEveryProblemIsNamed(t *testing.T) {
	t.Parallel()
	_, err := Load(Sources{Environ: []string{"TERSE_CACHE_BYTES=x", "TERSE_ANALYTICS_THREADS=y", "TERSE_NOPE=1"}, Memory: testMemory})
	for _, want := range []string{"cache.bytes", "analytics.threads", "TERSE_NOPE"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	const key = "0123456789abcdefghijklmnopqrstuvwxyz"
	path := writeFile(t, "key", key+"\n")
	cases := []struct {
		name   string
		s      Sources
		source string
	}{
		{"variable", Sources{Environ: []string{"TERSE_BOOTSTRAP_KEY=" + key}}, "environment TERSE_BOOTSTRAP_KEY"},
		{"file in variable", Sources{Environ: []string{"TERSE_BOOTSTRAP_KEY_FILE=" + path}}, "environment TERSE_BOOTSTRAP_KEY_FILE, file " + path},
		{"file over lower layer", Sources{File: writeFile(t, "c.yaml", "bootstrap_key: "+strings.Repeat("z", 40)), Environ: []string{"TERSE_BOOTSTRAP_KEY_FILE=" + path}}, "environment TERSE_BOOTSTRAP_KEY_FILE, file " + path},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.s.Memory = testMemory
			l, err := Load(tc.s)
			if err != nil {
				t.Fatal(err)
			}
			if got := l.Config.BootstrapKey.Reveal(); got != key {
				t.Errorf("key = %q", got)
			}
			for _, v := range l.Values() {
				if v.Key == "bootstrap_key" && v.Source != tc.source {
					t.Errorf("source = %q, want %q", v.Source, tc.source)
				}
			}
			var log strings.Builder
			slog.New(slog.NewTextHandler(&log, nil)).Info("x", "config", l.Config, "key", l.Config.BootstrapKey)
			shown := fmt.Sprintf("%v %+v %#v %s %v %s", l.Config, *l.Config, *l.Config, l.Config.BootstrapKey, l.Values(), log.String())
			if strings.Contains(shown, key) {
				t.Errorf("the secret is shown: %s", shown)
			}
		})
	}
	t.Run("both", func(t *testing.T) {
		t.Parallel()
		_, err := Load(Sources{Environ: []string{"TERSE_BOOTSTRAP_KEY=" + key, "TERSE_BOOTSTRAP_KEY_FILE=" + path}, Memory: testMemory})
		if err == nil || !strings.Contains(err.Error(), "not both") {
			t.Errorf("error = %v", err)
		}
	})
}

// TestFieldsAreDocumented walks the struct, so that no key comes without its tags.
func TestFieldsAreDocumented(t *testing.T) {
	t.Parallel()
	c := Default(testMemory)
	seen := map[string]string{}
	for _, f := range Fields() {
		if f.Key == "" || strings.HasSuffix(f.Key, ".") || !strings.HasSuffix(f.Doc, ".") {
			t.Errorf("%+v: key or doc is missing", f)
		}
		for _, name := range []string{"key " + f.Key, "variable " + f.Env(), "flag " + f.Flag()} {
			if other, ok := seen[name]; ok {
				t.Errorf("%s and %s share the %s", f.Key, other, name)
			}
			seen[name] = f.Key
		}
		if f.index == nil {
			continue
		}
		v := f.get(c)
		if _, ok := number(v); ok {
			if f.Min == "" || f.limit(f.Min) > f.limit(f.Max) {
				t.Errorf("%s: a number without a sound range", f.Key)
			}
		}
		if back, err := parseValue(f.typ, formatValue(v)); err != nil {
			t.Errorf("%s: default %v does not parse: %v", f.Key, v, err)
		} else if list, ok := v.([]string); !ok && back != v || ok && formatValue(back) != formatValue(list) {
			t.Errorf("%s: default %v reads back as %v", f.Key, v, back)
		}
	}
}

func TestMarkdown(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "..", "docs", "configuration.md")
	if *update {
		if err := os.WriteFile(path, []byte(Markdown()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Markdown(), string(got)); diff != "" {
		t.Errorf("docs/configuration.md is not what the struct says; run go test ./internal/config -run TestMarkdown -update\n%s", diff)
	}
}

func TestParseBytes(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]Bytes{
		"0": 0, "123": 123, "1B": 1, "2KiB": 2048, "2kB": 2000, "2KB": 2000, "3 MiB": 3 * MiB, "1.5GB": 1.5e9,
		"0.5KiB": 512, "7TiB": 7 * TiB, "-1KiB": -1024, " 4MB ": 4e6,
	} {
		if got, err := ParseBytes(in); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "x", "1.5", "GiB", "1GiBs", "1e300GiB", "NaNGiB", "InfGiB", "9223372036854775807KiB", "1 000", "0x10"} {
		if got, err := ParseBytes(in); err == nil {
			t.Errorf("ParseBytes(%q) = %d, want an error", in, got)
		}
	}
}

func FuzzParseBytes(f *testing.F) {
	for _, s := range []string{"1", "1.5GiB", "-3kB", "NaNB", "9e18TiB", " "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := ParseBytes(s)
		if err != nil {
			return
		}
		if back, err := ParseBytes(b.String()); err != nil || back != b {
			t.Errorf("%q is %d, written %q, read back as %d, %v", s, b, b.String(), back, err)
		}
	})
}

func FuzzYAML(f *testing.F) {
	for _, s := range []string{"data: x", "cache: {bytes: 1GiB}", "a.b: {c.d: 1}", "cache: {1: 2}", "? [a]\n: b", "&a [*a]", "log: {level: [info]}", "bootstrap_key: !!binary aGk="} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l := &Loaded{Config: Default(testMemory), origin: map[string]string{}}
		if problems := l.loadYAML(Fields(), "fuzz.yaml", data); problems == nil {
			l.Config.Validate(testMemory)
			l.Values()
		}
	})
}

func TestServerInfo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := ReadServerInfo(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadServerInfo without a file = %v", err)
	}
	for _, pid := range []int{1, 2} {
		want := ServerInfo{ControlURL: "http://127.0.0.1:8081", PID: pid}
		if err := WriteServerInfo(dir, want); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadServerInfo(dir); err != nil || got != want {
			t.Errorf("ReadServerInfo = %v, %v", got, err)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, ServerFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := RemoveServerInfo(dir, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadServerInfo(dir); err != nil {
		t.Errorf("another process's note was removed: %v", err)
	}
	if err := RemoveServerInfo(dir, 2); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadServerInfo(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the note stayed: %v", err)
	}
	if err := RemoveServerInfo(dir, 2); err != nil {
		t.Errorf("second removal: %v", err)
	}
}

func TestOwnerKey(t *testing.T) {
	t.Parallel()
	path := writeFile(t, OwnerKeyFile, "terse_abc\n")
	if key, err := ReadOwnerKey(filepath.Dir(path)); err != nil || key.Reveal() != "terse_abc" {
		t.Errorf("ReadOwnerKey = %q, %v", key.Reveal(), err)
	}
}

func TestMemTotal(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{
		"MemTotal:       24689764 kB\nMemFree: 1 kB\n": 24689764 << 10,
		"MemFree: 1 kB\n":           0,
		"MemTotal: many kB\n":       0,
		"":                          0,
		"Foo: 1 kB\nMemTotal: 8 kB": 8 << 10,
	} {
		if got := memTotal([]byte(in)); got != want {
			t.Errorf("memTotal(%q) = %d, want %d", in, got, want)
		}
	}
	if systemMemory() <= 0 {
		t.Error("the machine has no memory")
	}
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestHosting: networks are given as people write them.
func TestHosting(t *testing.T) {
	t.Parallel()
	c := Clicks{HostingASNs: []string{"AS64496", "as64497", "4200000000"}}
	if got, err := c.Hosting(); err != nil || !slices.Equal(got, []uint32{64496, 64497, 4_200_000_000}) {
		t.Errorf("%v, %v", got, err)
	}
}
