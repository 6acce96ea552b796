package site

import "time"

// Turning says whether virtual routers do what is due, at most so late.
func (s *Site) Turning(late time.Duration) bool { return s.router.Turning(late) }
