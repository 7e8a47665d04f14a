package cli

import (
	"github.com/terselink/terse/client"
	"github.com/terselink/terse/internal/nodes"
)

// appendLiving appends a node, if it lives, as far as nodes.CountsApart needs it.
func appendLiving(list []nodes.Node, n *client.Node) []nodes.Node {
	if n.State != string(nodes.Alive) {
		return list
	}
	return append(list, nodes.Node{Name: n.Name, Roles: n.Roles, Analytics: n.Analytics})
}
