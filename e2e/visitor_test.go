package e2e

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/terselink/terse/e2e/proc"
	"github.com/terselink/terse/e2e/rawhttp"
)

// Agents of people, as their browsers send them.
const (
	agentDesktop = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
	agentPhone   = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1"
)

// visitor follows short links over one keep-alive connection, as a browser does: it
// connects again when the server has announced the end of the connection, or has closed it
// while it was idle. It belongs to one goroutine.
type visitor struct {
	addr, host string
	header     string // further header lines, each with its line break
	conn       net.Conn
	reader     *rawhttp.Reader
	resp       rawhttp.Response
	buf        []byte
	shares     unavailable // of looks
	networked  bool        // the store is a database of its own, which may be late as often as it likes
}

// unavailable is how many of some visits of a running server were answered with 503.
type unavailable struct{ visits, late int }

// tooMany reports whether 503 is no accident: an embedded store is read in time but for moments in which the machine has
// something else to do.
func (u unavailable) tooMany() bool { return u.late > 20 && u.late*20 > u.visits }

func (u *unavailable) count(status int) {
	u.visits++
	if status == http.StatusServiceUnavailable {
		u.late++
	}
}

func newVisitor(s *proc.Server, header ...string) *visitor {
	v := &visitor{addr: s.RedirectAddr, host: s.Host}
	for i := 0; i+1 < len(header); i += 2 {
		v.header += header[i] + ": " + header[i+1] + "\r\n"
	}
	return v
}

// visit asks for a path, which begins with a slash. The location is a copy.
func (v *visitor) visit(method, path string) (status int, location string, err error) {
	if v.conn == nil {
		if v.conn, err = net.DialTimeout("tcp", v.addr, time.Minute); err != nil {
			return 0, "", err
		}
		if v.reader == nil {
			v.reader = rawhttp.NewReader(v.conn)
		}
		v.reader.Reset(v.conn)
	}
	if err := v.conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return 0, "", err
	}
	v.buf = append(v.buf[:0], method...)
	v.buf = append(append(append(v.buf, ' '), path...), " HTTP/1.1\r\nHost: "...)
	v.buf = append(append(append(v.buf, v.host...), "\r\n"...), v.header...)
	v.buf = append(v.buf, "\r\n"...)
	if _, err = v.conn.Write(v.buf); err == nil {
		err = v.reader.Next(&v.resp, method == "HEAD")
	}
	if err != nil || v.resp.Close {
		v.close()
	}
	if err != nil {
		return 0, "", fmt.Errorf("%s %s: %w", method, path, err)
	}
	return v.resp.Status, string(v.resp.Location), nil
}

// look is visit for who wants to know where a path leads: while the answer is 503, which says that the store was not
// read in time, it asks again, for a minute. Where that is no accident, it is an error.
func (v *visitor) look(method, path string) (status int, location string, err error) {
	for first, end := true, time.Now().Add(time.Minute); ; first = false {
		status, location, err = v.visit(method, path)
		if first && err == nil && !v.networked {
			if v.shares.count(status); v.shares.tooMany() {
				return 0, "", fmt.Errorf("%s %s: %d of %d paths answer 503 at first", method, path, v.shares.late, v.shares.visits)
			}
		}
		if err != nil || status != http.StatusServiceUnavailable || time.Now().After(end) {
			return status, location, err
		}
		<-time.After(50 * time.Millisecond)
	}
}

func (v *visitor) close() {
	if v.conn != nil {
		_ = v.conn.Close() // nothing is under way
		v.conn = nil
	}
}

// headerValue returns a header of the last answer.
func (v *visitor) headerValue(name string) string {
	for line := range strings.SplitSeq(string(v.resp.Header), "\r\n") {
		if n, value, _ := strings.Cut(line, ":"); strings.EqualFold(n, name) {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// pathOf returns the path of a short URL.
func pathOf(shortURL string) string {
	_, rest, _ := strings.Cut(shortURL, "://")
	_, path, _ := strings.Cut(rest, "/")
	return "/" + path
}
