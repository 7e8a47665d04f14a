package child

import "github.com/terselink/terse/internal/clicks"

// openSpool reads the spool of this node.
func openSpool(c config, from clicks.Position) (spool, error) {
	return clicks.OpenEvents(c.SpoolDir, from, c.Enrich)
}
