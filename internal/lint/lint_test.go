package lint

import (
	"bufio"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/terselink/terse"

const root = "../.."

// file is one parsed Go file of the module.
type file struct {
	path    string // relative to the root, with slashes
	pkg     string // its folder, "." for the root
	test    bool
	ast     *ast.File
	fset    *token.FileSet
	imports map[string]string // path -> name used in the file
}

func files(t *testing.T) []file {
	t.Helper()
	var list []file
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path) // both are relative already
		if d.IsDir() && (rel != "." && strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules" || d.Name() == "testdata" || rel == "data" || rel == "tools") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(rel, ".go") {
			return nil
		}
		f := file{path: filepath.ToSlash(rel), pkg: filepath.ToSlash(filepath.Dir(rel)), test: strings.HasSuffix(rel, "_test.go"), fset: token.NewFileSet(), imports: map[string]string{}}
		f.ast, err = parser.ParseFile(f.fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		for _, i := range f.ast.Imports {
			p, _ := strconv.Unquote(i.Path.Value) // the parser checked it
			name := filepath.Base(p)
			if i.Name != nil {
				name = i.Name.Name
			}
			f.imports[p] = name
		}
		list = append(list, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 50 {
		t.Fatalf("only %d Go files found: the test looks in the wrong place", len(list))
	}
	return list
}

// under reports whether a folder is one of, or below one of, the given ones.
func under(pkg string, folders ...string) bool {
	for _, f := range folders {
		if pkg == f || strings.HasPrefix(pkg, f+"/") {
			return true
		}
	}
	return false
}

// forbidden says which packages must not import which, in files that are not tests.
// The direction is cmd -> cli -> app -> {api, redirect} -> {links, clicks, analytics} -> root.
var forbidden = []struct {
	from   []string
	except []string
	imp    []string // import paths; those of the module without its prefix
	why    string
}{
	{from: []string{"internal/redirect", "internal/cache"}, imp: []string{"internal/api", "internal/analytics", "internal/store", "internal/links", "internal/auth", "github.com/cockroachdb/pebble/v2", "github.com/jackc/pgx/v5", "github.com/aws/aws-sdk-go-v2", "github.com/redis/rueidis", "github.com/duckdb/duckdb-go/v2", "github.com/ClickHouse/clickhouse-go/v2"},
		why: "the redirect plane depends on nothing that may be down"},
	{from: []string{"internal/links", "internal/domains", "internal/code", "internal/destination"}, imp: []string{"internal/api", "internal/redirect", "internal/store", "internal/app", "internal/cli", "internal/analytics", "internal/clicks", "net/http"},
		why: "the rules about links know no engine, no plane and no HTTP"},
	{from: []string{"internal/clicks", "internal/geo", "internal/agent"}, imp: []string{"internal/analytics", "internal/store", "internal/links", "internal/api", "internal/redirect", "github.com/duckdb/duckdb-go/v2"},
		why: "a click is a fact on disk before any engine knows of it"},
	{from: []string{"internal/analytics"}, except: []string{"internal/analytics/duckdb"}, imp: []string{"github.com/duckdb/duckdb-go/v2"},
		why: "only the engine's own package links DuckDB"},
	{from: []string{"internal"}, except: []string{"internal/analytics/clickhouse"}, imp: []string{"github.com/ClickHouse/clickhouse-go/v2"},
		why: "only the engine's own package speaks to ClickHouse"},
	{from: []string{"internal"}, except: []string{"internal/redisbus"}, imp: []string{"github.com/redis/rueidis"},
		why: "one package speaks to Redis"},
	{from: []string{"internal/store"}, imp: []string{"internal/links", "internal/domains", "internal/api", "internal/redirect", "internal/app", "internal/analytics", "internal/clicks", "internal/code"},
		why: "a store does bytes, versions and batches; rules live above it"},
	{from: []string{"internal/store/pebblestore", "internal/store/pgstore", "internal/store/dynamostore"}, imp: []string{"internal/store/memstore", "internal/store/faultstore", "internal/store/pebblestore", "internal/store/pgstore", "internal/store/dynamostore"}, why: "no adapter imports another"},
	{from: []string{"internal", "client", "cmd", "bench"}, except: []string{"internal/app", "internal/store", "internal/bucket", "bench"}, imp: []string{"internal/store/pebblestore", "internal/store/pgstore", "internal/store/dynamostore", "github.com/jackc/pgx/v5", "github.com/aws/aws-sdk-go-v2"},
		why: "adapters meet in internal/app only"},
	{from: []string{"internal"}, except: []string{"internal/cli"}, imp: []string{"internal/cli"}, why: "the command line is the top"},
	{from: []string{"internal"}, except: []string{"internal/cli", "internal/app"}, imp: []string{"internal/app"}, why: "the composition root is imported by the command line alone"},
	{from: []string{"client"}, imp: []string{"internal"}, why: "the client is for other people's programs"},
}

func TestImportDirection(t *testing.T) {
	t.Parallel()
	for _, f := range files(t) {
		if f.test {
			continue
		}
		for imp := range f.imports {
			first, _, _ := strings.Cut(imp, "/")
			if f.pkg == "." && strings.Contains(first, ".") {
				t.Errorf("%s imports %s: the root package imports the standard library only", f.path, imp)
			}
			rel := strings.TrimPrefix(imp, module+"/")
			for _, r := range forbidden {
				if under(f.pkg, r.from...) && !under(f.pkg, r.except...) && under(rel, r.imp...) && !under(f.pkg, rel) {
					t.Errorf("%s imports %s: %s", f.path, imp, r.why)
				}
			}
		}
	}
}

// onlyIn lists calls that have one home, so that there is one way to do each thing.
var onlyIn = []struct {
	pkg, name string
	homes     []string
	why       string
}{
	{"time", "Sleep", nil, "wait on a channel, a timer or a condition"},
	{"log", "Printf", nil, "logs go through log/slog"},
	{"log", "Println", nil, "logs go through log/slog"},
	{"log", "Fatal", nil, "return the error"},
	{"fmt", "Println", []string{"bench"}, "write to the stream that was handed in"},
	{"encoding/csv", "NewWriter", []string{"internal/cli"}, "there is one writer of CSV answers: internal/links; the command line rewrites input"},
	{"os", "Exit", []string{"cmd", "bench", "internal/cli", "internal/analytics/child"}, "return the error"},
}

func TestOneHome(t *testing.T) {
	t.Parallel()
	for _, f := range files(t) {
		if f.test || under(f.pkg, "bench", "e2e", "scripts") {
			continue
		}
		for _, rule := range onlyIn {
			name, ok := f.imports[rule.pkg]
			if !ok || under(f.pkg, rule.homes...) {
				continue
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok || sel.Sel.Name != rule.name {
					return true
				}
				if id, ok := sel.X.(*ast.Ident); ok && id.Name == name {
					t.Errorf("%s: %s.%s: %s", f.fset.Position(sel.Pos()), name, rule.name, rule.why)
				}
				return true
			})
		}
	}
}

// coreClock lists the packages whose logic must be testable at any time of the day: the
// clock is handed in, and time.Now stands only where a default is chosen.
var coreClock = []string{"internal/links", "internal/domains", "internal/code", "internal/destination", "internal/cache", "internal/auth"}

func TestInjectedClock(t *testing.T) {
	t.Parallel()
	for _, f := range files(t) {
		if f.test || !under(f.pkg, coreClock...) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Now" {
				if id, ok := sel.X.(*ast.Ident); ok && id.Name == "time" {
					t.Errorf("%s: time.Now() in the core: take a clock", f.fset.Position(call.Pos()))
				}
			}
			return true
		})
	}
}

// TestPackageDocs wants a package comment that begins as Go's tools expect.
func TestPackageDocs(t *testing.T) {
	t.Parallel()
	docs := map[string]bool{}
	for _, f := range files(t) {
		if f.test {
			continue
		}
		if _, ok := docs[f.pkg]; !ok {
			docs[f.pkg] = false
		}
		if f.ast.Doc != nil && (strings.HasPrefix(f.ast.Doc.Text(), "Package "+f.ast.Name.Name+" ") || f.ast.Name.Name == "main") {
			docs[f.pkg] = true
		}
	}
	for pkg, ok := range docs {
		if !ok {
			t.Errorf("%s has no package comment", pkg)
		}
	}
}

// unfinished are the marks of work that was left for another day.
var unfinished = regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)

func TestNothingUnfinished(t *testing.T) {
	t.Parallel()
	for _, f := range files(t) {
		for _, group := range f.ast.Comments {
			for _, c := range group.List {
				if m := unfinished.FindString(c.Text); m != "" && f.pkg != "internal/lint" {
					t.Errorf("%s: %s: finish it or write an issue", f.fset.Position(c.Pos()), m)
				}
			}
		}
	}
}

// TestDependenciesDocumented wants a line in docs/dependencies.md for every direct
// requirement, and none for what is gone.
func TestDependenciesDocumented(t *testing.T) {
	t.Parallel()
	mod, err := os.Open(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	defer mod.Close()
	doc, err := os.ReadFile(filepath.Join(root, "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	required := map[string]bool{}
	for sc := bufio.NewScanner(mod); sc.Scan(); {
		line := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(sc.Text()), "require "))
		path, rest, ok := strings.Cut(line, " ")
		if !ok || strings.Contains(rest, "// indirect") || !strings.Contains(path, ".") || !strings.HasPrefix(rest, "v") {
			continue
		}
		required[path] = true
		if !strings.Contains(string(doc), "`"+path+"`") {
			t.Errorf("docs/dependencies.md says nothing about %s", path)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` ").FindAllStringSubmatch(string(doc), -1) {
		if !required[m[1]] && strings.Contains(m[1], "/") && !strings.HasPrefix(m[1], "npm:") {
			t.Errorf("docs/dependencies.md describes %s, which go.mod does not require", m[1])
		}
	}
}
