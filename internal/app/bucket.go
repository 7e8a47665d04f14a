package app

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse/internal/analytics/child"
	"github.com/terselink/terse/internal/api"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/bucket"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/exports"
)

// bucketOf returns the options of a place in a bucket.
func bucketOf(s *config.S3) bucket.Options {
	return bucket.Options{
		Bucket: s.Bucket, Prefix: s.Prefix, Region: s.Region, Endpoint: s.Endpoint, PathStyle: s.PathStyle,
		AccessKeyID: s.AccessKeyID, SecretAccessKey: s.SecretAccessKey.Reveal(),
	}
}

// recordStore returns the options of the record store; nil: there is none.
func recordStore(cfg *config.Config) *bucket.Options {
	if cfg.Record.Store != config.RecordS3 {
		return nil
	}
	o := bucketOf(&cfg.Record.S3)
	return &o
}

// recordBehind is how long the record store may fail before the server says that it is degraded.
const recordBehind = time.Minute

// recordCheck is the line of the record store in /readyz.
func (s *server) recordCheck() api.Check {
	c := api.Check{Name: "record", State: api.OK}
	duck, ok := s.analytics.(*child.Supervisor) // the only engine that keeps a record
	if !ok {
		return c
	}
	m := duck.Mirrored()
	if m.Error == "" {
		return c
	}
	if since := time.Since(m.Since.Time()); m.Refused || since > recordBehind {
		c.State = api.Degraded
		// Not its error: anybody may ask, and errors name the bucket and addresses. The log and doctor have them.
		c.Detail = "the record store is behind; clicks stay on the local disk"
		if m.Refused {
			c.Detail = "the record store is refused; clicks stay on the local disk"
		}
	}
	return c
}

// openSchedules finds the export schedules of earlier runs. Nothing runs yet.
func (s *server) openSchedules(a *auth.Service) error {
	o := exports.SchedulerOptions{
		Store: s.store, Source: s.analytics, Status: s.analytics.Status, Dir: filepath.Join(s.cfg.Data, exportsDir), Workspaces: workspaces(a), Terms: s.termsOf(a), Clock: s.clock, Log: s.log,
	}
	if s.cfg.Exports.S3.Bucket != "" {
		b, err := bucket.Open(context.Background(), bucketOf(&s.cfg.Exports.S3))
		if err != nil {
			return fmt.Errorf("bucket of exports: %w", err)
		}
		s.onStop("bucket of exports", func(context.Context) error { b.Close(); return nil })
		o.Bucket = b
	}
	var err error
	if s.schedules, err = exports.OpenScheduler(o); err != nil {
		return err
	}
	counter := func(name, help string, f func() int64) {
		s.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(f()) }))
	}
	counter("terse_scheduled_exports_total", "Objects that export schedules made.", func() int64 { done, _ := s.schedules.Made(); return done })
	counter("terse_scheduled_exports_again_total", "Objects that export schedules made again for clicks that were counted later.", s.schedules.MadeAgain)
	counter("terse_scheduled_export_failures_total", "Attempts of export schedules that failed.", func() int64 { _, failed := s.schedules.Made(); return failed })
	return nil
}
