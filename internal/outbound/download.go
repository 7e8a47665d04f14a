package outbound

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/terselink/terse"
)

// maxRedirects is how many redirects a download follows.
const maxRedirects = 5

// DownloadOptions bound a download.
type DownloadOptions struct {
	MaxBytes int64                   // the largest answer
	Stall    time.Duration           // the longest wait for the next bytes; 0: one minute
	Progress func(done, total int64) // called as bytes come; total is -1 if it is not told; nil: nobody looks
}

// Download writes what a URL of the operator answers with status 200 to w, however long it takes
// as long as bytes come. Redirects are followed, each checked like the URL itself, but not from
// https to http. A name and a password in the URL are sent by Basic authentication, to that
// host alone. Errors name no URL, which may hold a key; on one, w has a part of the answer.
// Returns an error of code invalid or forbidden for a place that must not be reached, of code
// too_large for an answer over MaxBytes, of code unavailable for anything else but what w and ctx say.
func (c *Client) Download(ctx context.Context, target string, w io.Writer, o DownloadOptions) error {
	if o.Stall == 0 {
		o.Stall = time.Minute
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	resp, err := c.get(ctx, target)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return unavailable("the answer was " + resp.Status)
	}
	if resp.ContentLength > o.MaxBytes {
		return tooLarge(o.MaxBytes)
	}
	timer := time.AfterFunc(o.Stall, func() { cancel(errStalled) })
	defer timer.Stop()
	var done int64
	for buf := make([]byte, 64<<10); ; {
		n, err := resp.Body.Read(buf)
		timer.Reset(o.Stall)
		if done += int64(n); done > o.MaxBytes {
			return tooLarge(o.MaxBytes)
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		if o.Progress != nil && n > 0 {
			o.Progress(done, resp.ContentLength)
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil && errors.Is(context.Cause(ctx), errStalled):
			return unavailable(fmt.Sprintf("nothing came for %v", o.Stall))
		case err != nil && ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return unavailable("the answer broke off")
		}
	}
}

var errStalled = errors.New("nothing came")

// get follows redirects to an answer, whose body the caller closes.
func (c *Client) get(ctx context.Context, target string) (*http.Response, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, terse.Invalid("url", "not an absolute URL")
	}
	user, first := u.User, u.Host
	for range maxRedirects + 1 {
		u.User, u.Fragment = nil, ""
		if err := c.Check(u.String()); err != nil {
			return nil, err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return nil, terse.Invalid("url", "not an absolute URL")
		}
		req.Header.Set("User-Agent", c.o.UserAgent)
		if user != nil && u.Host == first {
			password, _ := user.Password()
			req.SetBasicAuth(user.Username(), password)
		}
		resp, err := c.http.Do(req)
		if err != nil {
			if e, ok := errors.AsType[*terse.Error](err); ok {
				return nil, e
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, unavailable(reason(err))
		}
		next := resp.Header.Get("Location")
		if resp.StatusCode < 300 || resp.StatusCode > 399 || next == "" {
			return resp, nil
		}
		resp.Body.Close()
		to, err := u.Parse(next)
		if err != nil {
			return nil, unavailable("it redirects to what is no URL")
		}
		if u.Scheme == "https" && to.Scheme != "https" {
			return nil, unavailable("it redirects from https to " + to.Scheme)
		}
		u = to
	}
	return nil, unavailable(fmt.Sprintf("it redirects more than %d times", maxRedirects))
}

func unavailable(message string) error {
	return &terse.Error{Code: terse.CodeUnavailable, Message: message, Op: "download"}
}

func tooLarge(limit int64) error {
	return &terse.Error{Code: terse.CodeTooLarge, Message: fmt.Sprintf("more than the limit of %d bytes", limit), Op: "download"}
}
