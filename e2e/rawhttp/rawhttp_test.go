package rawhttp

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

const redirect = "HTTP/1.1 302 Found\r\nDate: x\r\nLocation: https://example.com/a?b=c\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello"

func TestNext(t *testing.T) {
	long := strings.Repeat("x", 20_000)
	for _, tt := range []struct {
		name, in string
		head     bool
		want     Response
		err      error
	}{
		{name: "redirect", in: redirect, want: Response{Status: 302, Location: []byte("https://example.com/a?b=c"), Body: []byte("hello")}},
		{name: "case and spaces", in: "HTTP/1.1 301 M\r\nLOCATION:  https://e.example \r\ncontent-length:0\r\n\r\n",
			want: Response{Status: 301, Location: []byte("https://e.example")}},
		{name: "head", in: "HTTP/1.1 302 Found\r\nContent-Length: 500\r\nLocation: /\r\n\r\n", head: true, want: Response{Status: 302, Location: []byte("/")}},
		{name: "no body", in: "HTTP/1.1 204 No Content\r\nAllow: GET\r\n\r\n", want: Response{Status: 204}},
		{name: "close", in: "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", want: Response{Status: 200, Close: true}},
		{name: "grows", in: "HTTP/1.1 302 Found\r\nLocation: /" + long + "\r\nContent-Length: 20000\r\n\r\n" + long,
			want: Response{Status: 302, Location: []byte("/" + long), Body: []byte(long)}},
		{name: "end", in: "", err: io.EOF},
		{name: "cut header", in: redirect[:30], err: io.ErrUnexpectedEOF},
		{name: "cut body", in: redirect[:len(redirect)-1], err: io.ErrUnexpectedEOF},
		{name: "not HTTP", in: "SSH-2.0-OpenSSH_9.2\r\n\r\n", err: ErrMalformed},
		{name: "bad status", in: "HTTP/1.1 3x2 Found\r\n\r\n", err: ErrMalformed},
		{name: "no length", in: "HTTP/1.1 200 OK\r\nA: b\r\n\r\n", err: ErrMalformed},
		{name: "bad length", in: "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", err: ErrMalformed},
		{name: "huge length", in: "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", err: ErrMalformed},
		{name: "chunks", in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", err: ErrMalformed},
		{name: "no colon", in: "HTTP/1.1 200 OK\r\nContent-Length\r\n\r\n", err: ErrMalformed},
		{name: "endless header", in: "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 2*maxHeader), err: ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, src := range map[string]io.Reader{
				"whole": strings.NewReader(tt.in), "by byte": iotest.OneByteReader(strings.NewReader(tt.in)),
			} {
				var got Response
				err := NewReader(src).Next(&got, tt.head)
				if !errors.Is(err, tt.err) {
					t.Fatalf("%s: error %v, want %v", name, err, tt.err)
				}
				if err != nil {
					continue
				}
				if got.Status != tt.want.Status || got.Close != tt.want.Close || !bytes.Equal(got.Location, tt.want.Location) ||
					!bytes.Equal(got.Body, tt.want.Body) {
					t.Errorf("%s: got %+v", name, got)
				}
			}
		})
	}
}

func TestNextSequence(t *testing.T) {
	const n = 1000
	r := NewReader(iotest.HalfReader(strings.NewReader(strings.Repeat(redirect, n))))
	var resp Response
	for i := range n {
		if err := r.Next(&resp, false); err != nil || string(resp.Location) != "https://example.com/a?b=c" || string(resp.Body) != "hello" {
			t.Fatalf("answer %d: %v, %+v", i, err, resp)
		}
	}
	if err := r.Next(&resp, false); !errors.Is(err, io.EOF) {
		t.Fatalf("after the last answer: %v", err)
	}
	r.Reset(strings.NewReader(redirect))
	if err := r.Next(&resp, false); err != nil {
		t.Fatal(err)
	}
}

func TestNextAllocs(t *testing.T) {
	src := strings.NewReader("")
	r := NewReader(src)
	var resp Response
	if n := testing.AllocsPerRun(100, func() {
		src.Reset(redirect)
		if err := r.Next(&resp, false); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations an answer", n)
	}
}

func FuzzNext(f *testing.F) {
	f.Add([]byte(redirect), false)
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"+redirect), true)
	f.Add([]byte("HTTP/1.1 204 \r\n\r\n"), false)
	f.Fuzz(func(t *testing.T, in []byte, head bool) {
		r := NewReader(bytes.NewReader(in))
		var resp Response
		used := 0
		for {
			err := r.Next(&resp, head)
			if err != nil {
				return
			}
			used += len(resp.Header) + len(resp.Body)
			if used > len(in) || resp.Status > 999 {
				t.Fatalf("used %d of %d bytes, status %d", used, len(in), resp.Status)
			}
		}
	})
}
