package links

import "io"

// byteOrderMark is what some programs begin a file of UTF-8 with.
const byteOrderMark = "\xef\xbb\xbf"

// markReader reads a body without the byte order mark that it may begin with. It waits for no more bytes than it
// needs to tell.
type markReader struct {
	r     io.Reader
	head  [len(byteOrderMark)]byte
	n, at int   // of head: what was read of the body, and what was handed on
	err   error // that came with it
	told  bool
}

// withoutMark returns the rows of a body. Of CSV the header line is read without the mark.
func withoutMark(body io.Reader, in Format) io.Reader {
	if in == CSV {
		return body
	}
	return &markReader{r: body}
}

// Read implements io.Reader.
func (m *markReader) Read(p []byte) (int, error) {
	for !m.told {
		n, err := m.r.Read(m.head[m.n:])
		m.n, m.err = m.n+n, err
		begun := string(m.head[:m.n]) == byteOrderMark[:m.n]
		if begun && m.n == len(m.head) {
			m.at = m.n
		}
		m.told = !begun || m.n == len(m.head) || err != nil
	}
	if m.at < m.n {
		n := copy(p, m.head[m.at:m.n])
		m.at += n
		return n, nil
	}
	if err := m.err; err != nil {
		m.err = nil // the body says it again if it is asked again
		return 0, err
	}
	return m.r.Read(p)
}
