package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/jobs"
)

// offsetHeader says where the bytes of a request belong, and where an upload stands.
const offsetHeader = "Upload-Offset"

// Upload is an upload as the API shows it.
type Upload struct {
	ID          string     `json:"id" example:"upl_01kaq3v3s8x6m9c2f4h7j0n5pq"`
	Filename    string     `json:"filename"`
	ContentType string     `json:"content_type"`
	Encoding    *string    `json:"content_encoding" doc:"What the bytes are compressed with: gzip or zstd; null: not compressed."`
	Size        *int64     `json:"size" doc:"Bytes, as announced; null if they were not."`
	Offset      int64      `json:"offset" doc:"Bytes that are on disk: where the next request goes on."`
	Complete    bool       `json:"complete" doc:"Everything that was announced is there."`
	CreatedAt   time.Time  `json:"created_at"`
	ExpiresAt   *time.Time `json:"expires_at" doc:"When it is deleted by itself: 24 hours after its last byte, 7 days after its last job; null while a job needs it."`
}

// NewUpload is the body of a creation.
type NewUpload struct {
	Filename    string  `json:"filename,omitempty" nullable:"true" doc:"For people, and to guess the form of the rows." example:"customers.csv"`
	Size        *int64  `json:"size,omitempty" nullable:"true" doc:"Bytes, if known: a job is then refused until all are there."`
	ContentType string  `json:"content_type,omitempty" nullable:"true" doc:"application/x-ndjson, text/csv or application/json." example:"text/csv"`
	Encoding    *string `json:"content_encoding,omitempty" nullable:"true" doc:"gzip or zstd if the bytes are compressed; without it what the filename says (.gz, .zst). They are decompressed when a job reads them."`
}

type uploadOutput struct {
	Location string `header:"Location"`
	Offset   string `header:"Upload-Offset" doc:"Bytes that are on disk."`
	Body     *Upload
}

var appendUpload = operation{
	ID: "appendUpload", Method: http.MethodPatch, Path: "/api/v1/uploads/{id}", Tag: "Jobs", Scope: auth.ScopeLinksWrite, Status: http.StatusOK,
	Summary: "Send bytes of an upload",
	Description: "The body is any number of bytes that follow those the server has; Upload-Offset says how many these are. " +
		"What the answer counts is on disk. After a cut connection, ask with HEAD where to go on. A wrong offset is answered with 409 and the right one in Upload-Offset.",
	Errors: []int{409}, owner: ownerOfUpload, stream: true,
}

func (s *Server) registerUploads() {
	register(s, operation{
		ID: "createUpload", Method: http.MethodPost, Path: "/api/v1/uploads", Tag: "Jobs", Scope: auth.ScopeLinksWrite, Status: http.StatusCreated,
		Summary: "Begin an upload", Description: "Its bytes follow with PATCH, in as many requests as it takes.", owner: ownerOfNewUpload,
	}, s.createUpload)
	register(s, operation{
		ID: "getUpload", Method: http.MethodGet, Path: "/api/v1/uploads/{id}", Tag: "Jobs", Scope: auth.ScopeLinksRead, Status: http.StatusOK,
		Summary: "Get an upload: where it goes on", Errors: []int{409}, owner: ownerOfUpload,
	}, s.getUpload)
	register(s, operation{
		ID: "deleteUpload", Method: http.MethodDelete, Path: "/api/v1/uploads/{id}", Tag: "Jobs", Scope: auth.ScopeLinksWrite, Status: http.StatusNoContent,
		Summary: "Delete an upload that no job needs", Errors: []int{409}, owner: ownerOfUpload,
	}, s.deleteUpload)
	doc := s.mountRaw(appendUpload, s.appendUpload)
	doc.Parameters = append(doc.Parameters, &huma.Param{
		Name: offsetHeader, In: "header", Required: true, Description: "Bytes that the server has.", Schema: &huma.Schema{Type: huma.TypeInteger},
	})
	doc.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}},
	}}
	doc.Responses["200"] = &huma.Response{Description: "Where the upload stands", Content: map[string]*huma.MediaType{
		typeJSON: {Schema: s.huma.OpenAPI().Components.Schemas.Schema(typeOf[Upload](), true, "Upload")},
	}}
	s.huma.OpenAPI().AddOperation(doc)
}

// mountRaw mounts an operation that reads or writes a stream of its own, and returns its
// documentation: all but what success looks like. A path may hold an id, and no other variable.
func (s *Server) mountRaw(op operation, h func(w http.ResponseWriter, r *http.Request) error) *huma.Operation {
	s.operations[op.ID] = &op
	s.mount(&op, func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			s.refuse(w, callOf(r.Context()), toProblem(&op, err))
		}
	})
	doc := op.document()
	if strings.Contains(op.Path, "{id}") {
		doc.Parameters = append(doc.Parameters, &huma.Param{Name: "id", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}})
	}
	doc.Responses = map[string]*huma.Response{}
	problem := s.huma.OpenAPI().Components.Schemas.Schema(typeOf[Problem](), true, "Problem")
	for _, status := range doc.Errors {
		doc.Responses[strconv.Itoa(status)] = &huma.Response{
			Description: http.StatusText(status), Content: map[string]*huma.MediaType{"application/problem+json": {Schema: problem}},
		}
	}
	return &doc
}

// jobManager returns the jobs of the process. Returns an error of code unavailable if it
// runs none.
func (s *Server) jobManager() (*jobs.Manager, error) {
	if s.o.Jobs == nil {
		return nil, &terse.Error{Code: terse.CodeUnavailable, Reason: "jobs_disabled", Message: "this server runs no jobs"}
	}
	select {
	case <-s.o.Jobs.Stopping():
		return nil, &terse.Error{Code: terse.CodeUnavailable, Message: "the server is stopping"}
	default:
		return s.o.Jobs, nil
	}
}

func (s *Server) showUpload(m *jobs.Manager, u *jobs.Upload) *uploadOutput {
	out := &Upload{
		ID: u.ID, Filename: u.Filename, ContentType: u.ContentType, Encoding: orNull(u.Encoding), Offset: u.Offset, Complete: u.Complete(),
		CreatedAt: u.CreatedAt.Time(), ExpiresAt: timeOrNull(m.UploadExpiry(u)),
	}
	if u.Size >= 0 {
		out.Size = &u.Size
	}
	return &uploadOutput{Offset: strconv.FormatInt(u.Offset, 10), Body: out}
}

func (s *Server) createUpload(_ context.Context, c *call, in *struct{ Body NewUpload }) (*uploadOutput, error) {
	m, err := s.jobManager()
	if err != nil {
		return nil, err
	}
	size := int64(-1)
	if in.Body.Size != nil {
		if size = *in.Body.Size; size < 0 {
			return nil, terse.Invalid("size", "is negative")
		}
	}
	n := jobs.NewUpload{Filename: in.Body.Filename, ContentType: in.Body.ContentType, Encoding: in.Body.Encoding, Size: size}
	if c.idem != nil {
		n.Key, n.Request = c.idem.name, c.idem.request
	}
	u, err := m.Uploads.Create(c.workspace, n)
	if errors.Is(err, jobs.ErrOtherRequest) {
		return nil, errKeyReused()
	}
	if err != nil {
		return nil, err
	}
	out := s.showUpload(m, &u)
	out.Location = "/api/v1/uploads/" + u.ID
	return out, nil
}

type idPath struct {
	ID string `path:"id"`
}

func (s *Server) getUpload(_ context.Context, c *call, in *idPath) (*uploadOutput, error) {
	m, err := s.jobManager()
	if err != nil {
		return nil, err
	}
	u, err := m.Uploads.Get(c.workspace, in.ID)
	if err != nil {
		return nil, err
	}
	return s.showUpload(m, &u), nil
}

func (s *Server) deleteUpload(_ context.Context, c *call, in *idPath) (*struct{}, error) {
	m, err := s.jobManager()
	if err != nil {
		return nil, err
	}
	return nil, m.DeleteUpload(c.workspace, in.ID)
}

// appendUpload serves PATCH /api/v1/uploads/{id}.
func (s *Server) appendUpload(w http.ResponseWriter, r *http.Request) error {
	c := callOf(r.Context())
	m, err := s.jobManager()
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	if _, err := m.Uploads.Get(c.workspace, id); err != nil {
		return err
	}
	offset, err := strconv.ParseInt(r.Header.Get(offsetHeader), 10, 64)
	if err != nil || offset < 0 {
		return newProblem(http.StatusUnprocessableEntity, offsetHeader+": says how many bytes the server has").at("header."+offsetHeader, "is required: a number of bytes")
	}
	if r.Header.Get("Content-Encoding") != "" {
		return newProblem(http.StatusUnsupportedMediaType, "a piece of an upload has no Content-Encoding: say content_encoding when the upload is created")
	}
	body, err := newBulkBody(r.Body, http.NewResponseController(w), "")
	if err != nil {
		return err
	}
	u, err := m.Uploads.Append(c.workspace, id, offset, body, body.stop)
	body.stop()
	if err != nil {
		w.Header().Set("Connection", "close") // what is left of the body is not read
		if u.ID != "" {
			w.Header().Set(offsetHeader, strconv.FormatInt(u.Offset, 10))
		}
		if oe, ok := errors.AsType[*jobs.OffsetError](err); ok {
			p := newProblem(http.StatusConflict, oe.Error()).at("header."+offsetHeader, oe.Error())
			p.Code = "offset_mismatch"
			return p
		}
		if _, ok := errors.AsType[*terse.Error](err); !ok { // the connection was cut, or taken over
			return newProblem(http.StatusBadRequest, "the body ended before it was complete; the upload goes on at "+strconv.FormatInt(u.Offset, 10))
		}
		return err
	}
	out := s.showUpload(m, &u)
	w.Header().Set(offsetHeader, out.Offset)
	w.Header().Set("Content-Type", typeJSON)
	_, _ = w.Write(mustMarshal(out.Body)) // the client is gone: there is nobody to tell
	return nil
}
