package api

import (
	"context"
	"net/http"
	"time"

	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/nodes"
)

// Nodes lists the processes that use the store.
type Nodes interface {
	List(ctx context.Context) ([]nodes.Seen, error)
}

// Node is a process that uses the store.
type Node struct {
	ID              string    `json:"id"`
	Name            string    `json:"name"`
	Roles           []string  `json:"roles"`
	State           string    `json:"state" enum:"alive,dead" doc:"dead: three heartbeats were missed. After a day a dead node is gone."`
	Analytics       string    `json:"analytics,omitempty" doc:"The engine that it counts clicks with, or asks: duckdb has those of its own process alone. Absent: none, or an older version."`
	Version         string    `json:"version"`
	RedirectAddress string    `json:"redirect_address,omitempty" doc:"Where its redirect plane listens."`
	ControlAddress  string    `json:"control_address,omitempty" doc:"Where its control plane listens."`
	URL             string    `json:"url,omitempty" doc:"Where other nodes reach its control plane, to pass requests on; absent: nowhere."`
	StartedAt       time.Time `json:"started_at"`
	SeenAt          time.Time `json:"seen_at" doc:"When its last heartbeat was written, by its own clock."`
	Self            bool      `json:"self" doc:"It is the node that answers."`
}

func (s *Server) registerNodes() {
	register(s, operation{
		ID: "listNodes", Method: http.MethodGet, Path: "/api/v1/nodes", Tag: "System", Scope: auth.ScopeSystemRead, Status: http.StatusOK,
		Summary: "List the nodes of the instance", Description: "Addresses are shown to the owner key only.",
	}, s.listNodes)
}

func (s *Server) listNodes(ctx context.Context, c *call, _ *struct{}) (*listOutput[Node], error) {
	seen, err := s.o.Nodes.List(ctx)
	if err != nil {
		return nil, err
	}
	out := &listOutput[Node]{}
	out.Body.Data = make([]Node, len(seen))
	for i := range seen {
		n := &seen[i]
		out.Body.Data[i] = Node{
			ID: n.ID, Name: n.Name, Roles: n.Roles, State: string(n.State), Analytics: n.Analytics, Version: n.Version, StartedAt: n.StartedAt.Time(), SeenAt: n.SeenAt.Time(), Self: n.Self,
		}
		if c.who.Owner { // the machines of the operator are no business of a workspace
			out.Body.Data[i].RedirectAddress, out.Body.Data[i].ControlAddress, out.Body.Data[i].URL = n.RedirectAddr, n.ControlAddr, n.URL
		}
	}
	return out, nil
}
