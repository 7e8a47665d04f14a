package client

import (
	"bytes"
	"fmt"

	"github.com/go-json-experiment/json"
)

// RawResult is a BulkResult whose text is part of the line that it came in.
type RawResult struct {
	Index        uint64
	ShortURL     []byte
	Code         []byte
	ID           []byte
	ExternalID   []byte
	Existing     bool
	ErrorCode    []byte // empty if there is a link
	ErrorField   []byte
	ErrorMessage []byte
}

func (r *RawResult) result() BulkResult {
	b := BulkResult{
		Index:      r.Index,
		ShortURL:   string(r.ShortURL),
		Code:       string(r.Code),
		ID:         string(r.ID),
		ExternalID: string(r.ExternalID),
		Existing:   r.Existing,
	}
	if len(r.ErrorCode) > 0 {
		b.Err = &RowError{Code: string(r.ErrorCode), Field: string(r.ErrorField), Message: string(r.ErrorMessage)}
	}
	return b
}

// decode reads a result. The fast path takes what servers write, a flat object of
// plain strings, without an allocation: at a million rows the decoder
// would cost more than the rest of the client.
//
// Hot path: 0 allocs/op, see TestDecodeAllocs.
func (r *RawResult) decode(line []byte) error {
	if r.scan(line) {
		return nil
	}
	return r.unmarshal(line)
}

// scan reads a line of the usual shape and reports whether it was one. Anything
// unusual, an escape or a null say, is left to the decoder.
func (r *RawResult) scan(line []byte) bool {
	*r = RawResult{}
	rest, ok := bytes.CutPrefix(line, indexPrefix)
	if !ok {
		return false
	}
	if r.Index, rest = scanUint(rest); r.Index == 1<<64-1 {
		return false
	}
	var field *[]byte
	for {
		if len(rest) == 1 && rest[0] == '}' {
			return true
		}
		if len(rest) < 2 || rest[0] != ',' {
			return false
		}
		var name []byte
		if name, rest, ok = scanString(rest[1:]); !ok || len(rest) == 0 || rest[0] != ':' {
			return false
		}
		rest = rest[1:]
		switch string(name) {
		case "short_url":
			field = &r.ShortURL
		case "code":
			field = &r.Code
		case "id":
			field = &r.ID
		case "external_id":
			field = &r.ExternalID
		case "existing":
			if rest, ok = bytes.CutPrefix(rest, []byte("true")); !ok {
				return false
			}
			r.Existing = true
			continue
		case "error":
			if rest, ok = r.scanError(rest); !ok {
				return false
			}
			continue
		default:
			return false
		}
		if *field, rest, ok = scanString(rest); !ok {
			return false
		}
	}
}

// scanError reads {"code":"…","field":"…","message":"…"}, of which field may be absent.
func (r *RawResult) scanError(b []byte) (rest []byte, ok bool) {
	if rest, ok = bytes.CutPrefix(b, []byte(`{"code":`)); !ok {
		return nil, false
	}
	if r.ErrorCode, rest, ok = scanString(rest); !ok || len(r.ErrorCode) == 0 {
		return nil, false
	}
	if field, found := bytes.CutPrefix(rest, []byte(`,"field":`)); found {
		if r.ErrorField, rest, ok = scanString(field); !ok {
			return nil, false
		}
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(`,"message":`)); !ok {
		return nil, false
	}
	if r.ErrorMessage, rest, ok = scanString(rest); !ok || len(rest) == 0 || rest[0] != '}' {
		return nil, false
	}
	return rest[1:], true
}

// scanString reads a JSON string without escapes at the start of b.
func scanString(b []byte) (s, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		return nil, nil, false
	}
	end := bytes.IndexByte(b[1:], '"')
	if end < 0 {
		return nil, nil, false
	}
	s = b[1 : 1+end]
	if bytes.IndexByte(s, '\\') >= 0 {
		return nil, nil, false
	}
	return s, b[end+2:], true
}

// unmarshal is scan for every line that is a result, unusual or not.
func (r *RawResult) unmarshal(line []byte) error {
	var l struct {
		Index      *uint64   `json:"index"`
		ShortURL   string    `json:"short_url"`
		Code       string    `json:"code"`
		ID         string    `json:"id"`
		ExternalID string    `json:"external_id"`
		Existing   bool      `json:"existing"`
		Error      *RowError `json:"error"`
	}
	if err := json.Unmarshal(line, &l); err != nil {
		return fmt.Errorf("read a result: %w", err)
	}
	if l.Index == nil {
		return fmt.Errorf("read a result: it has no index")
	}
	*r = RawResult{
		Index:      *l.Index,
		ShortURL:   []byte(l.ShortURL),
		Code:       []byte(l.Code),
		ID:         []byte(l.ID),
		ExternalID: []byte(l.ExternalID),
		Existing:   l.Existing,
	}
	if l.Error != nil {
		r.ErrorCode, r.ErrorField, r.ErrorMessage = []byte(l.Error.Code), []byte(l.Error.Field), []byte(l.Error.Message)
		if l.Error.Code == "" {
			r.ErrorCode = []byte("unknown")
		}
	}
	return nil
}
