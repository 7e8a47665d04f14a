package cli

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/terselink/terse/client"
)

type whoamiCmd struct {
	Domain    string `help:"Domain to visit; the default one without it." placeholder:"HOST"`
	UserAgent string `help:"User-Agent header of the visit." placeholder:"HEADER"`
	NoVisit   bool   `help:"Ask the control plane only, and print the URL at which any browser sees the rest."`
}

// whoamiAnswer is what --json prints.
type whoamiAnswer struct {
	Control *client.Whoami `json:"control"`
	Visit   *client.Seen   `json:"visit,omitzero"`
}

func (c *whoamiCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	var out whoamiAnswer
	if out.Control, err = cl.Whoami(s.ctx, c.Domain); err != nil {
		return err
	}
	if out.Control.VisitURL != "" && !c.NoVisit {
		header := http.Header{}
		if c.UserAgent != "" {
			header.Set("User-Agent", c.UserAgent)
		}
		if out.Visit, err = cl.See(s.ctx, out.Control.VisitURL, header); err != nil {
			return fmt.Errorf("%w; with redirect.proxy_protocol it takes visits by way of the proxy only: --no-visit prints a URL for a browser", err)
		}
	}
	if s.g.JSON {
		return s.printJSON(&out)
	}
	return s.printWhoami(&out)
}

func (s *session) printWhoami(out *whoamiAnswer) error {
	w := out.Control
	t := s.table("control plane", "")
	rows := func(list [][2]string) {
		for _, kv := range list {
			if kv[1] != "" {
				t.row(kv[0], kv[1])
			}
		}
	}
	rows([][2]string{
		{"key", w.Subject}, {"workspace", w.WorkspaceID}, {"scopes", strings.Join(w.Scopes, " ")},
		{"address", w.Client}, {"connection", trusted(w.Peer, w.PeerTrusted)},
	})
	v := out.Visit
	if v == nil {
		rows([][2]string{{"visit", w.VisitURL}})
		return t.flush()
	}
	person := v.Bot
	if person == "" {
		person = "no"
	}
	t.row("redirect plane", "")
	rows([][2]string{
		{"address", v.Client + " (" + v.ClientFrom + ")"}, {"connection", trusted(v.Peer, v.PeerTrusted)}, {"PROXY protocol", strconv.FormatBool(v.ProxyProtocol)},
		{"X-Forwarded-For", strings.Join(v.XForwardedFor, " | ")}, {"Forwarded", strings.Join(v.Forwarded, " | ")}, {"X-Forwarded-Proto", v.XForwardedProto},
		{"headers ignored", v.HeadersIgnored}, {"scheme", v.Scheme + " (" + v.SchemeFrom + ")"}, {"host", v.Host}, {"domain", v.Domain}, {"short URLs", v.BaseURL},
		{"country", v.Country}, {"region", v.Region}, {"device", v.Device}, {"os", v.OS}, {"browser", v.Browser}, {"bot", person}, {"language", v.Language},
		{"opts out", map[bool]string{true: "yes"}[v.OptsOut]},
	})
	return t.flush()
}

func trusted(peer string, yes bool) string {
	if yes {
		return peer + " (a trusted proxy)"
	}
	return peer + " (no trusted proxy)"
}
