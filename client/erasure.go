package client

import (
	"context"
	"net/http"
	"time"
)

// eraseTimeout is a little longer than the server takes at most.
const eraseTimeout = 31 * time.Minute

// EraseClicks forgets the clicks of a link, of a visitor (as in Click.Visitor), or of the visitor on the link, for
// good, and returns how many there were. It may take minutes: after an error the same call goes on.
func (c *Client) EraseClicks(ctx context.Context, linkID, visitor string) (int64, error) {
	in := struct {
		LinkID  string `json:"link_id,omitzero"`
		Visitor string `json:"visitor,omitzero"`
	}{linkID, visitor}
	var out struct {
		Clicks int64 `json:"clicks"`
	}
	err := c.do(ctx, &call{method: http.MethodPost, path: "/analytics/erase", in: in, out: &out, limit: eraseTimeout})
	return out.Clicks, err
}
