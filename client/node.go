package client

import (
	"context"
	"iter"
	"time"
)

// Node is a process of the instance.
type Node struct {
	ID              string    `json:"id"`
	Name            string    `json:"name"`
	Roles           []string  `json:"roles"`
	State           string    `json:"state"`              // alive or dead
	Analytics       string    `json:"analytics,omitzero"` // the engine that it counts clicks with, or asks; "": none, or an older version
	Version         string    `json:"version"`
	RedirectAddress string    `json:"redirect_address,omitzero"` // for the owner key
	ControlAddress  string    `json:"control_address,omitzero"`
	URL             string    `json:"url,omitzero"` // where other nodes reach its control plane; "": nowhere
	StartedAt       time.Time `json:"started_at,omitzero"`
	SeenAt          time.Time `json:"seen_at,omitzero"` // of its last heartbeat, by its own clock
	Self            bool      `json:"self"`             // it is the one that answered
}

// Nodes yields the processes that share the store of the server. Addresses are shown to the owner key.
func (c *Client) Nodes(ctx context.Context) iter.Seq2[*Node, error] {
	return pages[Node](ctx, c, "/nodes", nil)
}
