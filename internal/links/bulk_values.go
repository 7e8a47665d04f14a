package links

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/campaigns"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/template"
)

// Rows of a campaign hold values for the fields of its template and nothing else but
// external_id, code, domain, class and expires_at. They go through the pipeline of every bulk request; this
// file is what they do differently.

// campaignRows is what a request that adds links to a campaign knows of it.
type campaignRows struct {
	handle *campaigns.Handle
	fields []string
	turns  turns
	plain  bool   // the rows are generated: every one is "{}"
	class  string // of generated rows
}

// openCampaign finds the campaign of a request and the domains that its rows go to.
func (s *Service) openCampaign(ctx context.Context, a Actor, o *BulkOptions) (*campaignRows, error) {
	h, err := s.o.Campaigns.Handle(ctx, a.Workspace, o.Campaign)
	if err != nil {
		if terse.ErrorCode(err) == terse.CodeNotFound {
			return nil, errNoCampaign()
		}
		return nil, err
	}
	c := h.Load()
	if err := takesLinks(c); err != nil {
		return nil, err
	}
	r := &campaignRows{handle: h, fields: c.Fields}
	if o.Domain != "" {
		d, err := s.domain(ctx, a, o.Domain)
		r.turns = turns{list: []*domains.Domain{d}}
		return r, err
	}
	weights := make([]uint32, 0, len(c.Domains))
	for _, cd := range c.Domains {
		d := s.o.Domains.ByNumber(cd.Number)
		if d == nil || !d.Usable(a.Workspace) {
			return nil, &terse.Error{Code: terse.CodeConflict, Reason: "domain_gone", Field: "domains", Message: "a domain of the campaign is gone"}
		}
		if _, err := usable(d); err != nil {
			return nil, err
		}
		r.turns.list = append(r.turns.list, d)
		weights = append(weights, cd.Weight)
	}
	r.turns.order = spread(weights)
	return r, nil
}

func errNoCampaign() error {
	return &terse.Error{Code: terse.CodeNotFound, Field: "campaign_id", Message: "there is no such campaign"}
}

// takesLinks refuses new links for a campaign that has ended by somebody's hand.
func takesLinks(c *campaigns.Campaign) error {
	switch {
	case c.Deleted:
		return errNoCampaign()
	case c.Status == terse.StatusDisabled:
		return &terse.Error{Code: terse.CodeConflict, Reason: "campaign_disabled", Message: "the campaign is disabled: it takes no links"}
	}
	return nil
}

// turns tells which domain a row goes to by its index alone, so that a repetition of the
// request decides the same.
type turns struct {
	list  []*domains.Domain
	order []uint16 // indexes of list, for weights that differ; nil: one after the other
}

func (t *turns) of(row uint64) *domains.Domain {
	if t.order == nil {
		return t.list[row%uint64(len(t.list))]
	}
	return t.list[t.order[row%uint64(len(t.order))]]
}

// spread returns a sequence in which each index stands as often as its weight says, and
// as evenly as can be (the smooth weighted round robin that nginx uses). nil: all weights are
// the same.
func spread(weights []uint32) []uint16 {
	total, same := 0, true
	for _, w := range weights {
		total += int(w)
		same = same && w == weights[0]
	}
	if same {
		return nil
	}
	order := make([]uint16, 0, total)
	credit := make([]int, len(weights))
	for range total {
		best := 0
		for i, w := range weights {
			if credit[i] += int(w); credit[i] > credit[best] {
				best = i
			}
		}
		credit[best] -= total
		order = append(order, uint16(best))
	}
	return order
}

// valueParser reads rows of values. It belongs to a batch and keeps its buffers.
type valueParser struct {
	values  [template.MaxFields][]byte // of the row in hand
	joined  []byte                     // the values of all rows so far; links hold parts of it
	expires []byte                     // expires_at of the row in hand
	scratch []byte
}

// Bits of the members of a row that are no fields of the campaign.
const (
	memberExternalID = template.MaxFields + iota
	memberCode
	memberDomain
	memberClass
	memberExpires
)

// memberOf returns the index of a field, or what else a name means; -1 for an unknown name.
// hint is where it probably is.
func (r *campaignRows) memberOf(name []byte, hint int) int {
	if hint < len(r.fields) && r.fields[hint] == string(name) {
		return hint
	}
	switch string(name) {
	case "external_id":
		return memberExternalID
	case "code":
		return memberCode
	case "domain":
		return memberDomain
	}
	for i, f := range r.fields {
		if f == string(name) {
			return i
		}
	}
	// A field of that name goes before: templates had class and expires_at when rows had not.
	switch string(name) {
	case "class":
		return memberClass
	case "expires_at":
		return memberExpires
	}
	return -1
}

// take stores the value of a member.
func (v *valueParser) take(n *NewLink, member int, value []byte) {
	switch member {
	case memberExternalID:
		n.ExternalID = view(value)
	case memberCode:
		n.Code = view(value)
	case memberDomain:
		n.Domain = view(value)
	case memberClass:
		n.Class = view(value)
	case memberExpires:
		v.expires = value
	default:
		v.values[member] = value
	}
}

// parse reads one row into n. What n holds then is part of row and of v.
//
// Hot path: no garbage for plain rows, see TestValueRowAllocs.
func (r *campaignRows) parse(v *valueParser, in Format, header csvHeader, row []byte, n *NewLink) error {
	*n = NewLink{}
	v.expires = nil
	c := r.handle.Load()
	if c.Deleted {
		return errNoCampaign()
	}
	if r.plain {
		n.Class = r.class
		return nil
	}
	var err error
	if in == CSV {
		err = r.parseCSV(v, header, row, n)
	} else {
		err = r.parseJSON(v, row, n)
	}
	if err != nil {
		return err
	}
	start := len(v.joined)
	values := v.values[:len(r.fields)]
	for i, value := range values {
		if err := checkText(r.fields[i], view(value), template.MaxValue); err != nil {
			return err
		}
		if i > 0 {
			v.joined = append(v.joined, terse.FieldSeparator)
		}
		v.joined = append(v.joined, value...)
	}
	joined := view(v.joined[start:])
	if v.scratch, err = c.CheckValues(values, joined, v.scratch); err != nil {
		return err
	}
	n.values = joined
	if len(v.expires) > 0 {
		return csvTime("expires_at", view(v.expires), &n.ExpiresAt)
	}
	return nil
}

// parseJSON reads an object of values. Rows of plain strings and numbers take a scan;
// everything else goes to the full parser, which decides the same for them
// (FuzzParseValues).
func (r *campaignRows) parseJSON(v *valueParser, row []byte, n *NewLink) error {
	if r.parsePlain(v, row, n) {
		return nil
	}
	*n = NewLink{}
	v.expires = nil
	return r.parseFull(v, row, n)
}

// parsePlain reports false for anything but an object that has each field of the
// campaign once and at most what rows of every campaign may have beside them, all plain.
func (r *campaignRows) parsePlain(v *valueParser, row []byte, n *NewLink) bool {
	i := skipSpace(row, 0)
	if i >= len(row) || row[i] != '{' {
		return false
	}
	i = skipSpace(row, i+1)
	if i < len(row) && row[i] == '}' {
		return len(r.fields) == 0 && skipSpace(row, i+1) == len(row)
	}
	var seen uint64
	for member := -1; ; {
		var key, value []byte
		if key, i = plainString(row, i); i < 0 {
			return false
		}
		i = skipSpace(row, i)
		if i >= len(row) || row[i] != ':' {
			return false
		}
		i = skipSpace(row, i+1)
		member = r.memberOf(key, member+1)
		if member < 0 || seen&(1<<member) != 0 {
			return false
		}
		seen |= 1 << member
		if i < len(row) && row[i] != '"' && member < template.MaxFields {
			value, i = plainNumber(row, i)
		} else {
			value, i = plainString(row, i)
		}
		if i < 0 {
			return false
		}
		v.take(n, member, value)
		i = skipSpace(row, i)
		if i >= len(row) {
			return false
		}
		switch row[i] {
		case ',':
			i = skipSpace(row, i+1)
		case '}':
			all := uint64(1)<<len(r.fields) - 1
			return seen&all == all && skipSpace(row, i+1) == len(row)
		default:
			return false
		}
	}
}

// plainNumber reads the number that begins at b[i] (RFC 8259, section 6) and returns what
// follows it; -1 if there is none.
func plainNumber(b []byte, i int) (number []byte, next int) {
	digits := func(j int) int {
		for j < len(b) && b[j]-'0' <= 9 {
			j++
		}
		return j
	}
	j := i
	if j < len(b) && b[j] == '-' {
		j++
	}
	whole := digits(j)
	if whole == j || b[j] == '0' && whole > j+1 {
		return nil, -1
	}
	j = whole
	if j < len(b) && b[j] == '.' {
		fraction := digits(j + 1)
		if fraction == j+1 {
			return nil, -1
		}
		j = fraction
	}
	if j < len(b) && b[j]|0x20 == 'e' {
		e := j + 1
		if e < len(b) && (b[e] == '+' || b[e] == '-') {
			e++
		}
		exponent := digits(e)
		if exponent == e {
			return nil, -1
		}
		j = exponent
	}
	return b[i:j], j
}

// parseFull reads any object of values: unknown, repeated and missing members and values
// that are neither strings nor numbers are errors that name the field.
func (r *campaignRows) parseFull(v *valueParser, row []byte, n *NewLink) error {
	d := jsontext.NewDecoder(bytes.NewReader(row))
	tok, err := d.ReadToken()
	if err != nil {
		return jsonError(err)
	}
	if tok.Kind() != '{' {
		return errNoObject()
	}
	var seen uint64
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return jsonError(err)
		}
		field := name.String()
		member := r.memberOf([]byte(field), 0)
		if member < 0 && field == ErrorColumn {
			if err := d.SkipValue(); err != nil {
				return jsonError(err)
			}
			continue
		}
		if member < 0 {
			return r.errUnknownField(field)
		}
		value, err := d.ReadValue()
		if err != nil {
			return jsonError(err)
		}
		switch kind := value.Kind(); {
		case kind == '"':
			text, err := jsontext.AppendUnquote(nil, value)
			if err != nil {
				return jsonError(err)
			}
			v.take(n, member, text)
		case kind == '0' && member < template.MaxFields:
			v.take(n, member, bytes.Clone(value))
		case kind == 'n' && member >= template.MaxFields:
			// null is as good as absent, as in every other row
		default:
			return &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_field", Field: field, Message: "the value is a string or a number"}
		}
		seen |= 1 << member
	}
	if _, err := d.ReadToken(); err != nil {
		return jsonError(err)
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_json", Message: "something follows the object"}
	}
	for i, f := range r.fields {
		if seen&(1<<i) == 0 {
			return &terse.Error{Code: terse.CodeInvalid, Reason: "missing_field", Field: f, Message: "the value is missing"}
		}
	}
	return nil
}

func errNoObject() error {
	return &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_json", Message: "a row is a JSON object"}
}

func (r *campaignRows) errUnknownField(name string) error {
	known := strings.Join(r.fields, ", ")
	if known == "" {
		known = "none"
	}
	return &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_field", Field: clip(name), Message: "unknown field; the campaign's are: " + known}
}

// column returns what a column of a CSV body holds: a field of the campaign by exactly
// its name, or what rows of every campaign may have.
func (r *campaignRows) column(name string) (csvColumn, error) {
	member := r.memberOf([]byte(strings.TrimSpace(name)), 0)
	if member < 0 {
		return 0, &terse.Error{Code: terse.CodeInvalid, Reason: "unknown_column", Field: "header", Message: fmt.Sprintf("the column %q is not a field of the campaign", clip(name)) +
			suggestion(name, append([]string{"external_id", "code", "domain"}, r.fields...))}
	}
	return csvColumn(member), nil
}

// checkHeader refuses a header without one of the fields.
func (r *campaignRows) checkHeader(h csvHeader) error {
	for i, f := range r.fields {
		if bytes.IndexByte(headerBytes(h), byte(i)) < 0 {
			return &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_csv", Field: "header", Message: fmt.Sprintf("the column %s is missing", f)}
		}
	}
	return nil
}

// memberName is the name of a member.
func (r *campaignRows) memberName(member csvColumn) string {
	switch int(member) {
	case memberExternalID:
		return "external_id"
	case memberCode:
		return "code"
	case memberDomain:
		return "domain"
	case memberClass:
		return "class"
	case memberExpires:
		return "expires_at"
	}
	return r.fields[member]
}

func (r *campaignRows) parseCSV(v *valueParser, header csvHeader, row []byte, n *NewLink) error {
	var s csvScanner
	s.reset(row)
	i := 0
	for ; ; i++ {
		value, ok, err := s.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if i >= len(header) {
			return &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_csv", Message: fmt.Sprintf("the row has more than the %d columns of the header", len(header))}
		}
		if header[i] == columnIgnored {
			continue
		}
		if header[i] < memberCode {
			value = unguard(value)
		}
		if !utf8.ValidString(value) {
			return terse.Invalid(r.memberName(header[i]), "not valid UTF-8")
		}
		v.take(n, int(header[i]), stringBytes(value))
	}
	if i < len(header) {
		return &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_csv", Message: fmt.Sprintf("the row has %d columns, the header %d", i, len(header))}
	}
	return nil
}

// buildCampaignLink fills a link of the campaign from a row; the number and a generated code
// are still missing.
func (s *Service) buildCampaignLink(l *terse.Link, a Actor, c *campaigns.Campaign, d *domains.Domain, n *NewLink, now terse.Millis) error {
	*l = terse.Link{
		Workspace: a.Workspace, Campaign: c.ID, Version: 1, CreatedAt: now, UpdatedAt: now, Values: n.values, ExternalID: n.ExternalID,
	}
	if err := checkText("external_id", n.ExternalID, MaxExternalID); err != nil {
		return err
	}
	if err := setClass(l, n); err != nil {
		return err
	}
	if n.Code != "" {
		if err := s.setAlias(l, d, n.Code); err != nil {
			return err
		}
	}
	var err error
	if l.ExpiresAt, err = futureTime("expires_at", n.ExpiresAt, now); err != nil {
		return err
	}
	if l.ExpiresAt == 0 && c.ExpiresAt == 0 && d.DefaultTTL > 0 {
		l.ExpiresAt, l.DefaultExpiry = now+terse.Millis(d.DefaultTTL.Milliseconds()), true
	}
	return nil
}

// MaxGenerate is the largest number of links that one Generate makes.
const MaxGenerate = 100_000_000

// Generate makes count links without values in the campaign of o, and is like Bulk in
// everything else. The template of the campaign must have no fields.
func (s *Service) Generate(ctx context.Context, a Actor, o BulkOptions, count uint64, w io.Writer) (BulkSummary, error) {
	if count < 1 || count > MaxGenerate {
		return BulkSummary{}, terse.Invalid("count", "1 to %d", MaxGenerate)
	}
	c, err := s.o.Campaigns.Get(ctx, a.Workspace, o.Campaign)
	if err != nil {
		return BulkSummary{}, err
	}
	if len(c.Fields) > 0 {
		return BulkSummary{}, &terse.Error{Code: terse.CodeInvalid, Reason: "values_needed", Field: "count",
			Message: "the links of this campaign need values: " + strings.Join(c.Fields, ", ")}
	}
	if o.Class != "" && o.Class != ClassSecret {
		return BulkSummary{}, terse.Invalid("class", "the class is %s, or absent", ClassSecret)
	}
	o.In, o.generated = NDJSON, true
	o.MaxBytes = int64(count) * int64(len(generatedRow))
	return s.Bulk(ctx, a, o, &generatedRows{left: count * uint64(len(generatedRow))}, w)
}

// generatedRow stands for a link without values. It is that long so that a batch, which is cut by
// bytes, has as many links as one of real rows; nobody parses it. So a generated request is
// repeatable, atomic and bounded in memory as any other, for 0.3 ns a byte.
const generatedRow = "{}                                                            \n"

// generatedRows is a body of generated rows.
type generatedRows struct {
	left uint64 // bytes
	at   int    // within a row
}

var generatedBlock = []byte(strings.Repeat(generatedRow, 1024))

// Read implements io.Reader.
func (g *generatedRows) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) && g.left > 0 {
		m := copy(p[n:], generatedBlock[g.at:])
		m = int(min(uint64(m), g.left))
		g.at = (g.at + m) % len(generatedRow)
		g.left -= uint64(m)
		n += m
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}
