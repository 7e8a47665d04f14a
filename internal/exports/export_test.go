package exports

import "context"

// Round carries out what is due now, which Run does twice a minute.
func (s *Scheduler) Round(ctx context.Context) error { return s.round(ctx) }
