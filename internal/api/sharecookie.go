package api

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clientip"
	"github.com/terselink/terse/internal/shares"
)

// shareCookie keeps a share open for shareCookieFor after its password was given, so that another period does not ask
// again. Its value is the second it ends at and a mark that only who knows the hash of the password can make: the key
// needs no keeping and is the same on all nodes, and a cookie ends with the password it was made of. Nothing of the
// password can be had from it, since the hash has a random salt that no client learns.
const (
	shareCookie    = "terse_share"
	shareCookieFor = time.Hour
)

func shareMark(sh *shares.Share, until string) []byte {
	m := hmac.New(sha256.New, []byte(sh.PasswordHash))
	m.Write([]byte("terse share cookie\n" + sh.ID + "\n" + until))
	return m.Sum(nil)
}

func (s *Server) setShareCookie(w http.ResponseWriter, r *http.Request, sh *shares.Share) {
	until := strconv.FormatInt((int64(s.o.Clock())+shareCookieFor.Milliseconds())/1000, 10)
	http.SetCookie(w, &http.Cookie{
		Name: shareCookie, Value: until + "." + base64.RawURLEncoding.EncodeToString(shareMark(sh, until)),
		Path: "/s/" + sh.ID, MaxAge: int(shareCookieFor.Seconds()), Secure: s.overTLS(r), HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

// overTLS reports whether the client's own connection is encrypted: a trusted proxy says so of the one that it ended, as
// at the redirect plane.
func (s *Server) overTLS(r *http.Request) bool {
	if s.o.ClientIP != nil && s.o.ClientIP.Trusted(peerOf(r)) {
		if scheme, ok := clientip.Scheme(r.Header.Values("X-Forwarded-Proto"), r.Header.Values("Forwarded")); ok {
			return scheme == "https"
		}
	}
	return r.TLS != nil
}

// shareCookieHolds reports whether the request has a cookie of the share's password that has not ended.
func (s *Server) shareCookieHolds(r *http.Request, sh *shares.Share) bool {
	c, err := r.Cookie(shareCookie)
	if err != nil {
		return false
	}
	until, text, _ := strings.Cut(c.Value, ".")
	mark, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || !hmac.Equal(mark, shareMark(sh, until)) {
		return false
	}
	seconds, err := strconv.ParseInt(until, 10, 64)
	return err == nil && s.o.Clock() < terse.Millis(seconds*1000)
}
