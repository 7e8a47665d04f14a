package client

import (
	"context"
	"net/http"
	"time"
)

// eraseTimeout is a little longer than the server takes at most.
const eraseTimeout = 31 * time.Minute

// Erased says what an erasure did.
type Erased struct {
	Clicks  int64       `json:"clicks"`  // how many there were
	Remains []Remainder `json:"remains"` // what an erasure of this kind does not reach, if there is any of it
}

// Remainder is something that an erasure does not reach.
type Remainder struct {
	What string `json:"what"` // spool, exports, conversions, pruned_days or anonymous_clicks
	Text string `json:"text"`
}

// EraseClicks forgets the clicks of a link, of a visitor (as in Click.Visitor), or of the visitor on the link, for
// good. It may take minutes: after an error the same call goes on.
func (c *Client) EraseClicks(ctx context.Context, linkID, visitor string) (*Erased, error) {
	in := struct {
		LinkID  string `json:"link_id,omitzero"`
		Visitor string `json:"visitor,omitzero"`
	}{linkID, visitor}
	var out Erased
	if err := c.do(ctx, &call{method: http.MethodPost, path: "/analytics/erase", in: in, out: &out, limit: eraseTimeout}); err != nil {
		return nil, err
	}
	return &out, nil
}
