package api

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/links"
	"github.com/terselink/terse/internal/shares"
)

// passwordHeader carries the password of a share for programs.
const passwordHeader = "Terse-Share-Password"

var errWrongPassword = errors.New("wrong password")

// publicOperation is the name of both forms of a share in metrics and logs.
var publicOperation = operation{ID: "publicStats"}

// registerPublic serves shares. They need no key: the id is the secret.
func (s *Server) registerPublic() {
	s.mux.HandleFunc("GET /s/{id}", s.servePublic(false))
	s.mux.HandleFunc("POST /s/{id}", s.servePublic(false))
	s.mux.HandleFunc("GET /s/{id}/stats", s.servePublic(true))
	text := &huma.Schema{Type: huma.TypeString}
	schemas := s.huma.OpenAPI().Components.Schemas
	problem := map[string]*huma.MediaType{"application/problem+json": {Schema: schemas.Schema(typeOf[Problem](), true, "Problem")}}
	doc := huma.Operation{
		OperationID: publicOperation.ID, Method: http.MethodGet, Path: "/s/{id}/stats", Tags: []string{"Analytics"},
		Summary:     "Read the statistics of a share",
		Description: "Without a key, for whoever has the id. /s/{id} is the same as a page for people. Answers are a minute old at most.",
		Parameters: []*huma.Param{
			{Name: "id", In: "path", Required: true, Schema: text},
			{Name: "period", In: "query", Schema: &huma.Schema{Type: huma.TypeString, Enum: []any{"24h", "7d", "30d", "90d"}}, Description: "A range that ends now; 30d if absent."},
			{Name: passwordHeader, In: "header", Schema: text, Description: "The password, if the share has one."},
		},
		Responses: map[string]*huma.Response{
			"200": {Description: "Statistics", Content: map[string]*huma.MediaType{typeJSON: {Schema: schemas.Schema(typeOf[PublicStats](), true, "PublicStats")}}},
			"401": {Description: "The share has a password, and it was not sent or is not right.", Content: problem},
			"404": {Description: "There is no such share, or it has ended.", Content: problem},
			"422": {Description: "No such period.", Content: problem},
			"429": {Description: "Too many wrong passwords from this address.", Content: problem},
			"503": {Description: "Analytics do not answer now.", Content: problem},
		},
	}
	s.huma.OpenAPI().AddOperation(&doc)
}

// openShare returns the share of a request whose password is right, or that has the cookie of one that was. Guesses are
// counted by address.
func (s *Server) openShare(r *http.Request, password string) (shares.Share, error) {
	sh, err := s.shares.Open(r.Context(), r.PathValue("id"))
	if err != nil || sh.PasswordHash == "" {
		return sh, err
	}
	if password == "" {
		if s.shareCookieHolds(r, &sh) {
			return sh, nil
		}
		return sh, errWrongPassword
	}
	ip := s.clientIP(r)
	if wait := s.guesses.Blocked(ip); wait > 0 {
		return sh, newRateLimited("too many wrong passwords from this address", wait)
	}
	ok, err := links.PasswordMatches(r.Context(), password, sh.PasswordHash)
	if err != nil {
		return sh, err
	}
	if !ok {
		s.guesses.Fail(ip)
		return sh, errWrongPassword
	}
	return sh, nil
}

// wantsJSON reports whether the client asks for JSON rather than for a page.
func wantsJSON(r *http.Request) bool {
	accept := strings.Join(r.Header.Values("Accept"), ",")
	return strings.Contains(accept, "json") && !strings.Contains(accept, "text/html")
}

// servePublic serves the page of a share, or its numbers as JSON. It needs no key.
func (s *Server) servePublic(asJSON bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Robots-Tag", "noindex, nofollow")
		password := r.Header.Get(passwordHeader)
		if r.Method == http.MethodPost {
			r.Body = http.MaxBytesReader(w, r.Body, 4096)
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)) // connections without deadlines are fine
			password = r.PostFormValue("password")
		}
		period := r.URL.Query().Get("period")
		if period == "" {
			period = "30d"
		}
		if !publicPeriods[period] {
			s.refusePublic(w, r, asJSON, terse.Invalid("period", "the period is 24h, 7d, 30d or 90d"))
			return
		}
		sh, err := s.openShare(r, password)
		if errors.Is(err, errWrongPassword) && !asJSON && !wantsJSON(r) {
			s.writePublicPage(w, http.StatusUnauthorized, &publicPage{Title: "Statistics", Ask: true, Wrong: password != "", Period: period})
			return
		}
		if err == nil && sh.PasswordHash != "" && r.Method == http.MethodPost {
			s.setShareCookie(w, r, &sh)
		}
		var stats *PublicStats
		if err == nil {
			stats, err = s.publicStats(r.Context(), &sh, period)
		}
		if err != nil {
			s.refusePublic(w, r, asJSON, err)
			return
		}
		if asJSON {
			w.Header().Set("Content-Type", typeJSON)
			_, _ = w.Write(mustMarshal(stats)) // a client that has gone needs no answer
			return
		}
		s.writePublicPage(w, http.StatusOK, newPublicPage(stats, period))
	}
}

// publicTexts say to people what went wrong, by status.
var publicTexts = map[int]string{
	http.StatusNotFound:            "There is no page here. It may have ended, or the address is not complete.",
	http.StatusUnprocessableEntity: "There is no such period: choose 24h, 7d, 30d or 90d.",
	http.StatusTooManyRequests:     "There were too many wrong passwords from your address. Try again in a while.",
	http.StatusServiceUnavailable:  "The numbers cannot be read right now. Try again in a minute.",
}

// refusePublic answers with an error: a page for people, a problem for programs.
func (s *Server) refusePublic(w http.ResponseWriter, r *http.Request, asJSON bool, err error) {
	c := callOf(r.Context())
	var p *Problem
	if errors.Is(err, errWrongPassword) {
		p = newProblem(http.StatusUnauthorized, "the share has a password: send it as "+passwordHeader)
		p.Code = "password_required"
	} else {
		p = toProblem(&publicOperation, err)
	}
	if asJSON || wantsJSON(r) {
		s.refuse(w, c, p)
		return
	}
	c.cause = p.cause
	for name, values := range p.headers {
		w.Header()[name] = values
	}
	text, ok := publicTexts[p.Status]
	if !ok {
		text = "Something went wrong on the server. Its log has it under " + c.requestID + "."
	}
	s.writePublicPage(w, p.Status, &publicPage{Title: "Statistics", Problem: text})
}
