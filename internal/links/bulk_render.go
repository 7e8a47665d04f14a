package links

import (
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/failpoint"
)

// csvResultHeader names the columns of CSV results.
const csvResultHeader = "index,short_url,code,id,external_id,error,message\n"

// begin writes what comes before the first result, once. Until then the request can
// still be answered with an error.
func (p *pipeline) begin() error {
	if p.begun {
		return nil
	}
	p.begun = true
	var err error
	switch p.o.Out {
	case CSV:
		_, err = p.w.Write([]byte(csvResultHeader))
	case JSON:
		_, err = p.w.Write([]byte("[\n"))
	}
	return err
}

// finish writes what says that the results are complete.
func (p *pipeline) finish() error {
	if p.ledger != nil {
		failpoint.Hit(failpoint.LedgerEnding)
		if err := p.ledger.finish(p.ctx, p.offset, p.s.o.Clock()); err != nil {
			return err
		}
		failpoint.Hit(failpoint.LedgerEnded)
	}
	if err := p.begin(); err != nil {
		return err
	}
	var out []byte
	switch p.o.Out {
	case CSV, NoOutput:
		return nil
	case JSON:
		out = []byte("\n]\n")
	default:
		out = append(appendSummary(append(out, `{"done":true`...), p.sum), "}\n"...)
	}
	_, err := p.w.Write(out)
	return err
}

// AppendFault appends, in the form of results, what ends those that are not complete: why there are no more. At least one
// result stands before it. It is no result: it has no index, done is false in it, and an array is not closed.
func AppendFault(dst []byte, out Format, sum BulkSummary, code, message string) []byte {
	switch out {
	case NoOutput:
		return dst
	case CSV:
		dst = append(dst, ",,,,,"...)
		dst = AppendCSV(append(AppendCSV(dst, code, true), ','), message, false)
		return append(dst, '\n')
	case JSON:
		dst = append(dst, ",\n"...)
	}
	dst = append(appendSummary(append(dst, `{"done":false`...), sum), `,"error":{"code":"`...)
	dst = append(appendEscaped(dst, code), `","message":"`...)
	return append(appendEscaped(dst, message), "\"}}\n"...)
}

// appendSummary appends the members that count rows.
func appendSummary(dst []byte, sum BulkSummary) []byte {
	dst = strconv.AppendUint(append(dst, `,"created":`...), sum.Created, 10)
	dst = strconv.AppendUint(append(dst, `,"reused":`...), sum.Reused, 10)
	return strconv.AppendUint(append(dst, `,"failed":`...), sum.Failed, 10)
}

// render writes the results of the batch to its buffer.
func (b *batch) render(p *pipeline) {
	if p.o.Out == NoOutput {
		return
	}
	for i := range b.rows {
		index := b.base + uint64(i)
		kind, d, l := b.result(i)
		if l == nil {
			b.renderFault(p, index, &b.errs[b.rows[i].at])
			continue
		}
		if p.o.DryRun {
			b.renderValid(p, index, d, l)
			continue
		}
		if p.o.Out == CSV {
			b.out = strconv.AppendUint(b.out, index, 10)
			b.out = append(b.out, ',')
			if l.Number.Space() == terse.AliasSpace { // an alias may hold a comma
				b.out = p.appendCSV(b.out, d.ShortURL(l.Code))
			} else {
				b.out = d.AppendShortURL(b.out, l.Code)
			}
			b.out = append(b.out, ',')
			b.out = p.appendCSV(b.out, l.Code)
			b.out = append(b.out, ',')
			b.out = l.Number.AppendText(b.out)
			b.out = append(b.out, ',')
			b.out = p.appendCSV(b.out, l.ExternalID)
			b.out = append(b.out, ",,\n"...)
			continue
		}
		b.out = p.appendIndex(b.out, index)
		b.out = append(b.out, `,"short_url":"`...)
		b.out = d.AppendShortURL(b.out, l.Code) // a percent-encoded URL needs no JSON escape
		b.out = append(b.out, `","code":"`...)
		b.out = appendEscaped(b.out, l.Code)
		b.out = append(b.out, `","id":"`...)
		b.out = l.Number.AppendText(b.out)
		b.out = append(b.out, '"')
		if l.ExternalID != "" {
			b.out = append(b.out, `,"external_id":"`...)
			b.out = appendEscaped(b.out, l.ExternalID)
			b.out = append(b.out, '"')
		}
		if kind != rowCreated {
			b.out = append(b.out, `,"existing":true`...)
		}
		b.out = append(b.out, "}\n"...)
		b.out = p.trimJSON(b.out)
	}
}

// renderValid writes the result of a row that could be created.
func (b *batch) renderValid(p *pipeline, index uint64, d *domains.Domain, l *terse.Link) {
	if p.o.Out == CSV {
		b.out = strconv.AppendUint(b.out, index, 10)
		b.out = append(b.out, ",,"...)
		b.out = p.appendCSV(b.out, l.Code)
		b.out = append(b.out, ",,"...)
		b.out = p.appendCSV(b.out, l.ExternalID)
		b.out = append(b.out, ",,\n"...)
		return
	}
	b.out = p.appendIndex(b.out, index)
	b.out = append(b.out, `,"valid":true`...)
	if l.Code != "" { // an alias: generated codes are not drawn
		b.out = append(b.out, `,"domain":"`...)
		b.out = appendEscaped(b.out, d.Host)
		b.out = append(b.out, `","code":"`...)
		b.out = appendEscaped(b.out, l.Code)
		b.out = append(b.out, '"')
	}
	if l.ExternalID != "" {
		b.out = append(b.out, `,"external_id":"`...)
		b.out = appendEscaped(b.out, l.ExternalID)
		b.out = append(b.out, '"')
	}
	b.out = append(b.out, "}\n"...)
	b.out = p.trimJSON(b.out)
}

// renderFault writes the result of a row that failed.
func (b *batch) renderFault(p *pipeline, index uint64, f *rowFault) {
	message := f.err.Message
	if f.err.Field != "" {
		message = f.err.Field + ": " + message
	}
	if p.o.Out == CSV {
		b.out = strconv.AppendUint(b.out, index, 10)
		b.out = append(b.out, ",,,,"...)
		b.out = p.appendCSV(b.out, f.externalID)
		b.out = append(b.out, ',')
		b.out = append(b.out, f.err.PublicCode()...)
		b.out = append(b.out, ',')
		b.out = p.appendCSV(b.out, message)
		b.out = append(b.out, '\n')
		return
	}
	b.out = p.appendIndex(b.out, index)
	if f.externalID != "" {
		b.out = append(b.out, `,"external_id":"`...)
		b.out = appendEscaped(b.out, f.externalID)
		b.out = append(b.out, '"')
	}
	b.out = append(b.out, `,"error":{"code":"`...)
	b.out = append(b.out, f.err.PublicCode()...)
	if f.err.Field != "" {
		b.out = append(b.out, `","field":"`...)
		b.out = appendEscaped(b.out, f.err.Field)
	}
	b.out = append(b.out, `","message":"`...)
	b.out = appendEscaped(b.out, message)
	b.out = append(b.out, "\"}}\n"...)
	b.out = p.trimJSON(b.out)
}

// appendIndex begins the result object of a row. In a JSON array every element but the
// first follows a comma.
func (p *pipeline) appendIndex(dst []byte, index uint64) []byte {
	if p.o.Out == JSON && index > 0 {
		dst = append(dst, ",\n"...)
	}
	dst = append(dst, `{"index":`...)
	return strconv.AppendUint(dst, index, 10)
}

// trimJSON takes the line break off an element of a JSON array: the comma of the next
// one brings it.
func (p *pipeline) trimJSON(dst []byte) []byte {
	if p.o.Out == JSON {
		return dst[:len(dst)-1]
	}
	return dst
}

// appendEscaped appends s as the inside of a JSON string.
func appendEscaped(dst []byte, s string) []byte {
	for i := range len(s) {
		if !plainByte[s[i]] {
			quoted, err := jsontext.AppendQuote(nil, s)
			if err != nil { // invalid UTF-8: only an error message can echo some
				quoted, _ = jsontext.AppendQuote(nil, toValid(s)) // valid UTF-8 always quotes
			}
			return append(dst, quoted[1:len(quoted)-1]...)
		}
	}
	return append(dst, s...)
}

func toValid(s string) string {
	out := make([]rune, 0, len(s))
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		out, s = append(out, r), s[n:]
	}
	return string(out)
}

func (p *pipeline) appendCSV(dst []byte, v string) []byte { return AppendCSV(dst, v, p.o.RawCSV) }

// AppendCSV appends a field as RFC 4180 has it, with an apostrophe before what a
// spreadsheet would run as a formula unless raw values were asked for.
func AppendCSV(dst []byte, v string, raw bool) []byte {
	guard := !raw && guarded(v)
	quote := guard
	for i := 0; i < len(v) && !quote; i++ {
		c := v[i]
		quote = c == ',' || c == '"' || c == '\n' || c == '\r'
	}
	if !quote {
		return append(dst, v...)
	}
	dst = append(dst, '"')
	if guard {
		dst = append(dst, '\'')
	}
	for i := range len(v) {
		if v[i] == '"' {
			dst = append(dst, '"')
		}
		dst = append(dst, v[i])
	}
	return append(dst, '"')
}
