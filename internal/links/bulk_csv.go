package links

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
)

// CSV as RFC 4180 has it: fields separated by commas, quoted where they hold a comma,
// a quote or a line break; lines end with LF or CRLF. The first line names the columns.

// csvColumn is a field that a column of a CSV body may fill.
type csvColumn uint8

// csvColumns are the names of the columns: those of the link object in docs/api.md.
// Tags are separated by commas, metadata and rules are JSON.
var csvColumns = []string{
	"destination", "external_id", "domain", "code", "title", "tags", "expires_at", "starts_at", "expired_destination",
	"redirect_status", "forward_query", "forward_path", "password", "max_clicks", "if_exists", "metadata", "rules", "class",
	"noindex", "referrer_policy", "not_started_destination", "limit_destination", "query_mode", "utm", "sticky",
	"ios_destination", "ios_store", "android_destination", "android_store", "og_title", "og_description", "og_image", "pixels", "cloak",
}

// columnIgnored is a column whose values are left out.
const columnIgnored csvColumn = 255

// Names of columns that are left out. The files of bad rows that jobs make have the first,
// as a member of NDJSON rows too, so that they can be mended and sent as they are.
const (
	ErrorColumn   = "terse_error"
	IgnoredColumn = "terse_ignored"
)

func ignoredColumn(name string) bool { return name == ErrorColumn || name == IgnoredColumn }

// csvHeader maps the columns of a body to fields.
type csvHeader []csvColumn

// cutHeader finds the first line of a CSV body that is not empty, and returns what it takes
// of the body; 0 if more bytes are needed.
func cutHeader(buf []byte, eof bool) (n int, line []byte, err error) {
	c := csvCutter{}
	_, rows, err := c.cut(buf, eof)
	if err != nil {
		return 0, nil, err
	}
	if len(rows) == 0 {
		if eof {
			return 0, nil, &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_csv", Field: "body", Message: "the body has no header line"}
		}
		return 0, nil, nil
	}
	if rows[0][1]-rows[0][0] > maxRow {
		return 0, nil, errRowTooLong
	}
	// The cutter looks at more than one line; the rest is cut again by its successor.
	end := int(rows[0][1])
	for end < len(buf) && buf[end] != '\n' {
		end++
	}
	return min(end+1, len(buf)), bytes.TrimPrefix(buf[:rows[0][1]][rows[0][0]:], []byte(byteOrderMark)), nil
}

// readHeader reads the first line of a CSV body and returns its length; 0 if more bytes
// are needed.
func (p *pipeline) readHeader(buf []byte, eof bool) (int, error) {
	n, line, err := cutHeader(buf, eof)
	if err != nil || n == 0 {
		return 0, err
	}
	var s csvScanner
	s.reset(line)
	for {
		name, ok, err := s.next()
		if err != nil {
			return 0, err
		}
		if !ok {
			break
		}
		col, err := p.column(name)
		if err != nil {
			return 0, err
		}
		if col != columnIgnored && bytes.IndexByte(headerBytes(p.header), byte(col)) >= 0 {
			return 0, &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_csv", Field: "header", Message: fmt.Sprintf("the column %q is there twice", clip(name))}
		}
		p.header = append(p.header, col)
	}
	if p.campaign != nil {
		if err := p.campaign.checkHeader(p.header); err != nil {
			return 0, err
		}
	} else if bytes.IndexByte(headerBytes(p.header), 0) < 0 {
		return 0, &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_csv", Field: "header", Message: "the column destination is missing"}
	}
	return n, nil
}

// column returns what a column of the body holds.
func (p *pipeline) column(name string) (csvColumn, error) {
	if ignoredColumn(strings.TrimSpace(name)) {
		return columnIgnored, nil
	}
	if p.campaign != nil {
		return p.campaign.column(name)
	}
	for i, known := range csvColumns {
		if strings.EqualFold(strings.TrimSpace(name), known) {
			return csvColumn(i), nil
		}
	}
	return 0, &terse.Error{Code: terse.CodeInvalid, Reason: "unknown_column", Field: "header", Message: fmt.Sprintf("the column %q is not a field of a link", clip(name)) + suggestion(name, csvColumns)}
}

func headerBytes(h csvHeader) []byte {
	b := make([]byte, len(h))
	for i, c := range h {
		b[i] = byte(c)
	}
	return b
}

// parse reads one record into n. Fields without quotes and escapes point into row.
func (h csvHeader) parse(row []byte, n *NewLink) error {
	var s csvScanner
	s.reset(row)
	i := 0
	for {
		v, ok, err := s.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if i >= len(h) {
			return &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_csv", Message: fmt.Sprintf("the row has more than the %d columns of the header", len(h))}
		}
		if v != "" && h[i] != columnIgnored {
			if err := h[i].set(n, v); err != nil {
				return err
			}
		}
		i++
	}
	if i < len(h) {
		return &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_csv", Message: fmt.Sprintf("the row has %d columns, the header %d", i, len(h))}
	}
	return nil
}

// set stores the value of one field; v is not empty.
func (c csvColumn) set(n *NewLink, v string) error {
	field := csvColumns[c]
	switch field {
	case "destination":
		n.Destination = v
	case "external_id":
		n.ExternalID = unguard(v)
	case "domain":
		n.Domain = v
	case "code":
		n.Code = v
	case "class":
		n.Class = v
	case "title":
		n.Title = unguard(v)
	case "tags":
		for t := range strings.SplitSeq(unguard(v), ",") {
			n.Tags = append(n.Tags, strings.TrimSpace(t))
		}
	case "expires_at":
		return csvTime(field, v, &n.ExpiresAt)
	case "starts_at":
		return csvTime(field, v, &n.StartsAt)
	case "expired_destination":
		n.ExpiredDestination = v
	case "redirect_status":
		status, err := strconv.Atoi(v)
		if err != nil {
			return errRedirectStatus()
		}
		n.RedirectStatus = status
	case "forward_query":
		b, err := csvBool(field, v)
		n.ForwardQuery = &b
		return err
	case "forward_path":
		b, err := csvBool(field, v)
		n.ForwardPath = b
		return err
	case "password":
		n.Password = v
	case "max_clicks":
		m, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			return terse.Invalid(field, "max_clicks is a whole number")
		}
		n.MaxClicks = m
	case "if_exists":
		n.IfExists = v
	case "metadata":
		if err := unmarshalColumn(field, v, &n.Metadata); err != nil {
			return err
		}
	case "noindex", "referrer_policy", "not_started_destination", "limit_destination", "query_mode", "utm", "sticky",
		"ios_destination", "ios_store", "android_destination", "android_store", "og_title", "og_description", "og_image", "pixels", "cloak":
		if n.Web == nil {
			n.Web = &terse.LinkWeb{}
		}
		return setWeb(n.Web, field, v)
	case "rules":
		if err := unmarshalColumn(field, v, &n.Rules); err != nil {
			return err
		}
	}
	return nil
}

// setWeb stores the value of a column that LinkWeb holds.
func setWeb(w *terse.LinkWeb, field, v string) error {
	switch field {
	case "noindex":
		b, err := csvBool(field, v)
		w.NoIndex = &b
		return err
	case "referrer_policy":
		w.ReferrerPolicy = v
	case "not_started_destination":
		w.NotStartedDestination = v
	case "limit_destination":
		w.LimitDestination = v
	case "query_mode":
		w.QueryMode = v
	case "utm":
		return unmarshalColumn(field, v, &w.UTM)
	case "sticky":
		w.Sticky = v
	case "ios_destination":
		w.IOSDestination = v
	case "ios_store":
		w.IOSStore = v
	case "android_destination":
		w.AndroidDestination = v
	case "android_store":
		w.AndroidStore = v
	case "og_title":
		w.OGTitle = unguard(v)
	case "og_description":
		w.OGDescription = unguard(v)
	case "og_image":
		w.OGImage = v
	case "pixels":
		return unmarshalColumn(field, v, &w.Pixels)
	case "cloak":
		b, err := csvBool(field, v)
		w.Cloak = b
		return err
	}
	return nil
}

func unmarshalColumn(field, v string, dst any) error {
	if err := checkDepth([]byte(v)); err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(v), dst, strict); err != nil {
		return &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_json", Field: field, Message: "not valid JSON for this field", Err: err}
	}
	return nil
}

func csvTime(field, v string, dst *terse.Millis) error {
	t, err := time.Parse(time.RFC3339, v)
	if err != nil {
		return terse.Invalid(field, "a time is written as 2027-01-31T12:00:00Z")
	}
	*dst, err = Moment(field, &t)
	return err
}

func csvBool(field, v string) (bool, error) {
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, terse.Invalid(field, "true or false")
	}
	return b, nil
}

// guarded reports whether a spreadsheet would run the value as a formula.
func guarded(v string) bool {
	if v == "" {
		return false
	}
	switch v[0] {
	case '=', '+', '-', '@', '\t', '\r', 0:
		return true
	}
	return false
}

// unguard takes away the apostrophe that our CSV puts before formulas.
func unguard(v string) string {
	if len(v) > 1 && v[0] == '\'' && guarded(v[1:]) {
		return v[1:]
	}
	return v
}

// csvScanner reads the fields of one record.
type csvScanner struct {
	rest []byte
	done bool
}

func (s *csvScanner) reset(row []byte) {
	if n := len(row); n > 0 && row[n-1] == '\r' {
		row = row[:n-1]
	}
	s.rest, s.done = row, false
}

// next returns the next field; ok is false after the last.
func (s *csvScanner) next() (field string, ok bool, err error) {
	if s.done {
		return "", false, nil
	}
	if len(s.rest) == 0 || s.rest[0] != '"' {
		i := bytes.IndexByte(s.rest, ',')
		var v []byte
		if i < 0 {
			v, s.rest, s.done = s.rest, nil, true
		} else {
			v, s.rest = s.rest[:i], s.rest[i+1:]
		}
		if bytes.IndexByte(v, '"') >= 0 {
			return "", false, csvFault("a quote inside a field that is not quoted")
		}
		return view(v), true, nil
	}
	var unescaped []byte
	rest := s.rest[1:]
	for {
		i := bytes.IndexByte(rest, '"')
		if i < 0 {
			return "", false, csvFault("a quoted field has no end")
		}
		if i+1 < len(rest) && rest[i+1] == '"' {
			unescaped = append(unescaped, rest[:i+1]...)
			rest = rest[i+2:]
			continue
		}
		v := rest[:i]
		if unescaped != nil {
			v = append(unescaped, v...)
		}
		switch rest = rest[i+1:]; {
		case len(rest) == 0:
			s.rest, s.done = nil, true
		case rest[0] == ',':
			s.rest = rest[1:]
		default:
			return "", false, csvFault("something follows a quoted field")
		}
		if !utf8.Valid(v) {
			return "", false, csvFault("not valid UTF-8")
		}
		return view(v), true, nil
	}
}

func csvFault(message string) error {
	return &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_csv", Message: message}
}

// csvCutter finds whole records: a line break inside quotes is part of a field. Quotes open
// a field only where it begins (RFC 4180); elsewhere they are the fault of their row alone. A
// record that is too long becomes a row of maxRow+1 bytes, which is refused as too
// long, and is skipped to its end.
type csvCutter struct {
	spaces      bool // a line of spaces is a record; else only one that has something else
	comma       byte // what separates fields; 0: a comma
	rows        [][2]int32
	state, next csvSkip // at the start of buf; once the bytes of the last cut are taken away
}

// csvSkip says whether a record that was too long is being skipped, and where in a field
// that is.
type csvSkip struct {
	skipping bool
	at       csvPlace
}

// csvPlace is where in a field of a record a byte stands.
type csvPlace uint8

const (
	fieldStart  csvPlace = iota
	unquoted             // also behind the closing quote of a field, where only a comma is right
	quoted               // between quotes
	behindQuote          // behind a quote between quotes: the closing one, or the first of two
)

func (c *csvCutter) shift(int) { c.state = c.next }

func (c *csvCutter) cut(buf []byte, eof bool) (int, [][2]int32, error) {
	c.rows = c.rows[:0]
	c.next = c.state
	comma := c.comma
	if comma == 0 {
		comma = ','
	}
	pos := 0
	for pos < len(buf) && pos < batchBytes {
		end, at := recordEnd(buf[pos:], comma, c.next.at)
		if end < 0 {
			switch {
			case c.next.skipping:
				c.next.at = at
				return len(buf), c.rows, nil
			case len(buf)-pos > maxRow:
				c.rows = append(c.rows, [2]int32{int32(pos), int32(pos + maxRow + 1)})
				c.next = csvSkip{skipping: true, at: at}
				return len(buf), c.rows, nil
			case !eof:
				return pos, c.rows, nil
			}
			end = len(buf) - pos
		}
		if c.next.skipping {
			c.next = csvSkip{}
		} else if line := buf[pos : pos+end]; !blank(line) || c.spaces && len(line) > 0 && string(line) != "\r" {
			c.rows = append(c.rows, [2]int32{int32(pos), int32(pos + end)})
		}
		pos = min(pos+end+1, len(buf))
	}
	return pos, c.rows, nil
}

// recordEnd returns where the record ends of which buf begins at the given place, -1 if it
// does not, and the place behind buf then.
//
// Hot path: of a record without quotes only the line break is looked for, and that it has none.
func recordEnd(buf []byte, comma byte, at csvPlace) (end int, behind csvPlace) {
	pos, nl := 0, -1 // nl: the first line break from pos, len(buf) if there is none
	for {
		switch at {
		case fieldStart, unquoted:
			if nl < pos {
				nl = len(buf)
				if i := bytes.IndexByte(buf[pos:], '\n'); i >= 0 {
					nl = pos + i
				}
			}
			q := bytes.IndexByte(buf[pos:nl], '"')
			switch {
			case q < 0 && nl < len(buf):
				return nl, fieldStart
			case q < 0 && len(buf) == pos:
				return -1, at
			case q < 0 && buf[len(buf)-1] == comma:
				return -1, fieldStart
			case q < 0:
				return -1, unquoted
			}
			pos += q
			if q == 0 && at == fieldStart || pos > 0 && buf[pos-1] == comma {
				at = quoted
			} else {
				at = unquoted
			}
			pos++
		case quoted:
			q := bytes.IndexByte(buf[pos:], '"')
			if q < 0 {
				return -1, quoted
			}
			pos += q + 1
			at = behindQuote
		default:
			if pos == len(buf) {
				return -1, behindQuote
			}
			if at = unquoted; buf[pos] == '"' {
				at = quoted
				pos++
			}
		}
	}
}
