package peers

import (
	"math/rand/v2"
	"slices"

	"github.com/terselink/terse/internal/nodes"
)

// choose returns one of the nodes that live, are not this one, run all the roles and can be asked; nil if none does.
func choose(list []nodes.Seen, roles []string) (*Target, error) {
	list = slices.DeleteFunc(slices.Clone(list), func(n nodes.Seen) bool {
		return n.Self || n.State != nodes.Alive || n.URL == "" ||
			slices.ContainsFunc(roles, func(role string) bool { return !slices.Contains(n.Roles, role) })
	})
	if len(list) == 0 {
		return nil, nil
	}
	return target(&list[rand.IntN(len(list))])
}
