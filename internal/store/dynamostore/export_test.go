package dynamostore

import "time"

// ReleaseFor sets how long Close tries to give the claim back. It is called before Claim.
func (s *Store) ReleaseFor(d time.Duration) { s.releaseFor = d }
