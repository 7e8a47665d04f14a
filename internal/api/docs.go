package api

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"sort"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

//go:embed docs.html
var docsHTML string

//go:embed docs.css
var docsCSS string

// docsPage is what docs.html renders.
type docsPage struct {
	Title, Version, Description string
	CSS                         template.CSS
	Groups                      []docsGroup
	Schemas                     []docsSchema
}

type docsGroup struct {
	Name       string
	Operations []docsOperation
}

type docsOperation struct {
	ID, Method, Path, Summary, Description, Scope string
	Parameters                                    []*huma.Param
	Body, Answer                                  []docsBody
	Status                                        string
	Errors                                        []string
}

type docsBody struct{ Type, Schema string }

type docsSchema struct {
	Name, Description string
	Fields            []docsField
}

type docsField struct {
	Name, Type, Description string
	Required                bool
}

// document renders the OpenAPI document and the page that shows it, once.
func (s *Server) document() error {
	api := s.huma.OpenAPI()
	b, err := json.Marshal(api)
	if err != nil {
		return err
	}
	s.openAPI = b
	t, err := template.New("docs").Parse(docsHTML)
	if err != nil {
		return err
	}
	var page bytes.Buffer
	if err := t.Execute(&page, s.docsPage(api)); err != nil {
		return err
	}
	s.docs = page.Bytes()
	sum := sha256.Sum256([]byte(docsCSS))
	s.docsCSP = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'sha256-" +
		base64.StdEncoding.EncodeToString(sum[:]) + "'"
	return nil
}

func (s *Server) docsPage(api *huma.OpenAPI) docsPage {
	page := docsPage{Title: api.Info.Title, Version: api.Info.Version, Description: api.Info.Description, CSS: template.CSS(docsCSS)}
	for _, tag := range []string{"Links", "Campaigns", "Jobs", "Domains", "Analytics", "Workspaces and keys", "System", "Edge"} {
		g := docsGroup{Name: tag}
		for _, path := range sortedKeys(api.Paths) {
			item := api.Paths[path]
			for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
				if op != nil && slices.Contains(op.Tags, tag) {
					g.Operations = append(g.Operations, docsOp(op))
				}
			}
		}
		page.Groups = append(page.Groups, g)
	}
	schemas := api.Components.Schemas.Map()
	for _, name := range sortedKeys(schemas) {
		schema := schemas[name]
		d := docsSchema{Name: name, Description: schema.Description}
		for _, field := range sortedKeys(schema.Properties) {
			p := schema.Properties[field]
			d.Fields = append(d.Fields, docsField{Name: field, Type: typeName(p), Description: p.Description, Required: slices.Contains(schema.Required, field)})
		}
		page.Schemas = append(page.Schemas, d)
	}
	return page
}

func docsOp(op *huma.Operation) docsOperation {
	d := docsOperation{
		ID: op.OperationID, Method: op.Method, Path: op.Path, Summary: op.Summary, Description: op.Description,
		Scope: "no key", Parameters: op.Parameters,
	}
	if len(op.Security) > 0 {
		d.Scope = op.Security[0]["bearer"][0]
	}
	if op.RequestBody != nil {
		d.Body = bodies(op.RequestBody.Content)
	}
	for _, status := range sortedKeys(op.Responses) {
		if strings.HasPrefix(status, "2") {
			d.Status, d.Answer = status, bodies(op.Responses[status].Content)
		} else {
			d.Errors = append(d.Errors, status)
		}
	}
	return d
}

func bodies(content map[string]*huma.MediaType) (out []docsBody) {
	for _, t := range sortedKeys(content) {
		out = append(out, docsBody{Type: t, Schema: typeName(content[t].Schema)})
	}
	return out
}

// typeName says in words what a schema is.
func typeName(s *huma.Schema) string {
	switch {
	case s == nil:
		return ""
	case s.Ref != "":
		return s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]
	}
	name := s.Type
	switch {
	case s.Type == huma.TypeArray:
		name = "list of " + typeName(s.Items)
	case s.Format == "date-time":
		name = "time"
	case s.Type == huma.TypeObject:
		if values, ok := s.AdditionalProperties.(*huma.Schema); ok {
			name = "map to " + typeName(values)
		}
	}
	if s.Nullable {
		name += " or null"
	}
	return name
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func (s *Server) serveOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(s.openAPI)
}

func (s *Server) serveDocs(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", s.docsCSP)
	fmt.Fprintf(w, "%s", s.docs)
}
