package links

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
)

// ClassSecret is the value of NewLink.Class for a link that must not be found by guessing:
// its code is random and 22 characters long, whatever the strategy of the domain.
const ClassSecret = "secret"

// setClass notes the class of a link that has no number yet: ByCode without a Code asks for
// a secret one.
func setClass(l *terse.Link, n *NewLink) error {
	switch {
	case n.Class == "":
		return nil
	case n.Class != ClassSecret:
		return terse.Invalid("class", "the class is %s, or absent", ClassSecret)
	case n.Code != "":
		return terse.Invalid("class", "a link has a code or a class, not both")
	}
	l.ByCode = true
	return nil
}

// wantsSecret reports whether a link without a number is to get a secret code.
func wantsSecret(l *terse.Link) bool { return l.ByCode && l.Code == "" }

// issueOne gives a built link without an alias its number and its code.
func (s *Service) issueOne(ctx context.Context, d *domains.Domain, l *terse.Link) error {
	var b domains.Issued
	issue := s.o.Domains.Issue
	if wantsSecret(l) {
		issue = s.o.Domains.IssueSecret
	}
	if err := issue(ctx, d, 1, &b); err != nil {
		return fmt.Errorf("issue code: %w", err)
	}
	l.Number, l.Code, l.ByCode = b.Number(d, 0), string(b.Codes), b.ByCode
	return nil
}

// insertOne inserts the chunk of one link, and draws another code for it while the one it
// has is taken. The documents are made for every code anew.
func (s *Service) insertOne(ctx context.Context, l *terse.Link, o CreateOptions) error {
	for draw := 1; ; draw++ {
		chunk := terse.Chunk{Links: []terse.Link{*l}}
		if o.Documents != nil {
			var err error
			if chunk.Documents, err = o.Documents(*l); err != nil {
				return err
			}
		}
		err := s.insertChunk(ctx, &chunk)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, terse.ErrAliasTaken) || errors.Is(err, terse.ErrUnknownOutcome):
			return fmt.Errorf("create link: %w", err)
		case !l.ByCode:
			return errAliasTaken(l.Code)
		case draw == domains.MaxDraws:
			return domains.ErrNoFreeCode()
		}
		if l.Code, err = s.o.Domains.Redraw(ctx, l.Number); err != nil {
			return fmt.Errorf("draw another code: %w", err)
		}
	}
}

// redraw gives the generated links of conflicting rows other codes. Rows that have used up
// their draws stay for the caller to fail.
func (b *batch) redraw(p *pipeline, rows []int, draw int) (left []int, err error) {
	for _, i := range rows {
		l := &b.links[i]
		if !l.ByCode || draw >= domains.MaxDraws {
			left = append(left, i)
			continue
		}
		if l.Code, err = p.s.o.Domains.Redraw(p.ctx, l.Number); err != nil {
			return nil, fmt.Errorf("draw another code: %w", err)
		}
	}
	return left, nil
}

// errTaken says why a link could not have its code.
func errTaken(l *terse.Link) *terse.Error {
	if l.ByCode {
		return rowError(domains.ErrNoFreeCode())
	}
	return rowError(errAliasTaken(strings.Clone(l.Code)))
}

// replayCode fills in the code of a generated link that a request before made or reused.
func (s *Service) replayCode(ctx context.Context, d *domains.Domain, l *terse.Link) error {
	if d.Broken() != nil || d.Permuted(l.Number) {
		s.setCode(d, l)
		return nil
	}
	keys, dst := [1]terse.LinkKey{{Number: l.Number}}, [1]terse.Link{}
	if err := s.o.Store.GetLinks(ctx, keys[:], dst[:]); err != nil {
		return fmt.Errorf("replay code: %w", err)
	}
	if dst[0].Number == 0 {
		return &terse.Error{Code: terse.CodeGone, Reason: "link_deleted", Message: "the link was deleted since the first request"}
	}
	l.Code, l.ByCode = dst[0].Code, true
	return nil
}
