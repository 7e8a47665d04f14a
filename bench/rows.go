//go:build linux

package main

import (
	"io"
	"math/bits"
	"strconv"
)

// Lengths of destinations, in bytes.
const (
	shortDestination = 84  // makes NDJSON rows of about 130 bytes
	longDestination  = 100 // of the budget for disk
)

// mix spreads a number over 64 bits (the finalizer of SplitMix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// appendDestination appends the personal destination of a recipient: 25 characters of it are as good
// as random, so that it compresses as real ones do.
func appendDestination(dst []byte, i uint64, length int) []byte {
	const filler = "&utm_source=sms&utm_medium=text"
	start := len(dst)
	a, b := mix(i), mix(^i)
	dst = append(dst, "https://shop.example.com/c/spring/p/"...)
	dst = appendDigits(dst, a, 16, 8)
	dst = append(dst, "?uid="...)
	dst = appendDigits(dst, a>>32|b<<32, 16, 10)
	dst = append(dst, filler[:length-69]...)
	dst = append(dst, "&s="...)
	dst = appendDigits(dst, bits.Reverse64(b), 36, 7)
	if len(dst)-start != length {
		panic("bench: a destination has another length")
	}
	return dst
}

// appendDigits appends the last n digits of a number.
func appendDigits(dst []byte, x, base uint64, n int) []byte {
	const digits = "0123456789abcdefghijklmnopqrstuvwxyz"
	for range n {
		dst = append(dst, digits[x%base])
		x /= base
	}
	return dst
}

// form is a form of a bulk body.
type form struct {
	name, contentType string
	head, tail        string
	row               func(dst []byte, i uint64, length int) []byte
}

var (
	ndjson = form{name: "NDJSON", contentType: "application/x-ndjson", row: func(dst []byte, i uint64, length int) []byte {
		return append(appendObject(dst, i, length), '\n')
	}}
	csvForm = form{name: "CSV", contentType: "text/csv", head: "destination,external_id\n", row: func(dst []byte, i uint64, length int) []byte {
		dst = appendDestination(dst, i, length)
		dst = append(dst, ",r-"...)
		return append(strconv.AppendUint(dst, i, 10), '\n')
	}}
	jsonArray = form{name: "JSON", contentType: "application/json", head: "[", tail: "]", row: func(dst []byte, i uint64, length int) []byte {
		if i > 0 {
			dst = append(dst, ',')
		}
		return appendObject(dst, i, length)
	}}
)

func appendObject(dst []byte, i uint64, length int) []byte {
	dst = append(dst, `{"destination":"`...)
	dst = appendDestination(dst, i, length)
	dst = append(dst, `","external_id":"r-`...)
	dst = strconv.AppendUint(dst, i, 10)
	return append(dst, `"}`...)
}

// body returns a whole body.
func (f *form) body(rows uint64, length int) []byte {
	b := make([]byte, 0, int(rows)*(length+48)+64)
	b = append(b, f.head...)
	for i := range rows {
		b = f.row(b, i, length)
	}
	return append(b, f.tail...)
}

// rowReader is a body that is made while it is read, of any number of rows.
type rowReader struct {
	f      *form
	length int
	rows   uint64 // to make
	made   uint64
	read   int64 // bytes handed out
	buf    []byte
	at     int
}

// Read implements io.Reader.
func (r *rowReader) Read(p []byte) (int, error) {
	if r.at == len(r.buf) {
		if r.made == r.rows {
			return 0, io.EOF
		}
		r.buf, r.at = r.buf[:0], 0
		for len(r.buf) < 256<<10 && r.made < r.rows {
			r.buf = r.f.row(r.buf, r.made, r.length)
			r.made++
		}
	}
	n := copy(p, r.buf[r.at:])
	r.at += n
	r.read += int64(n)
	return n, nil
}
