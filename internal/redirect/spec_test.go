package redirect

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/terselink/terse"
)

// visitRow is a line of the specification: a visit, and what it gets.
type visitRow struct {
	name    string
	request string // method, host and path; lines after it are headers
	status  int
	want    string   // Location of a redirect, else a part of the body
	click   string   // outcome and flags of the click; "": not counted
	headers []string // of the answer: "Name: value", or "Name" for one that must not be there
}

// runVisits plays the lines of a table in their order over one connection: links with a limit of clicks
// remember the lines before.
func runVisits(t *testing.T, w *world, rows []visitRow) {
	t.Helper()
	c := dial(t, w)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			first, headers, _ := strings.Cut(row.request, "\n")
			part := strings.SplitN(first, " ", 3)
			raw := part[0] + " " + part[2] + " HTTP/1.1\r\nHost: " + part[1] + "\r\n"
			if headers != "" {
				raw += strings.ReplaceAll(headers, "\n", "\r\n") + "\r\n"
			}
			res, body := c.roundTrip(t, part[0], raw+"\r\n")
			if res.StatusCode != row.status {
				t.Fatalf("status %d, want %d\n%s", res.StatusCode, row.status, body)
			}
			location := res.Header.Get("Location")
			if row.status/100 == 3 {
				if location != row.want || len(body) > 0 {
					t.Errorf("Location %q with %d bytes, want %q", location, len(body), row.want)
				}
			} else if location != "" || !strings.Contains(string(body), row.want) || len(body) > 15<<10 {
				t.Errorf("Location %q, %d bytes, want %q in\n%s", location, len(body), row.want, body)
			}
			if got := describe(w.clicks.take()); got != row.click {
				t.Errorf("counted as %q, want %q", got, row.click)
			}
			checkAnswerHeaders(t, res, row.headers)
		})
	}
}

// checkAnswerHeaders checks what a line says of the headers, and what every answer promises.
func checkAnswerHeaders(t *testing.T, res *http.Response, want []string) {
	t.Helper()
	for _, h := range want {
		name, v, _ := strings.Cut(h, ": ")
		if got := strings.Join(res.Header.Values(name), "|"); got != v {
			t.Errorf("%s is %q, want %q", name, got, v)
		}
	}
	if res.Header.Get("Server") != "" || res.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers %v", res.Header)
	}
	html := strings.HasPrefix(res.Header.Get("Content-Type"), "text/html")
	if csp := res.Header.Get("Content-Security-Policy"); html != strings.HasPrefix(csp, "default-src 'none'; ") {
		t.Errorf("Content-Security-Policy is %q for %q", csp, res.Header.Get("Content-Type"))
	}
	if html && res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("a page may be kept: %q", res.Header.Get("Cache-Control"))
	}
}

func webLink(web terse.LinkWeb) func(*terse.Link) {
	return settings(terse.LinkSettings{Web: &web})
}

// TestSpecificationSize counts the lines of the tables in this package that read as the specification of
// redirects: TestBehaviour, and every table of visitRow.
func TestSpecificationSize(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), e.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			list, ok := n.(*ast.CompositeLit)
			if !ok {
				return true
			}
			array, ok := list.Type.(*ast.ArrayType)
			if !ok {
				return true
			}
			row, named := array.Elt.(*ast.Ident)
			anonymous, ok := array.Elt.(*ast.StructType)
			if named && row.Name == "visitRow" || ok && len(anonymous.Fields.List) == 5 && anonymous.Fields.List[1].Names[0].Name == "request" {
				rows += len(list.Elts)
			}
			return true
		})
	}
	if rows < 300 {
		t.Errorf("%d lines, want at least 300", rows)
	}
}
