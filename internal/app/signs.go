package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/terselink/terse/internal/api"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/clientip"
)

const (
	// signsTimeout bounds how long one answer of a node without the API may take.
	signsTimeout = 30 * time.Second
	// signsStop bounds how long a stop waits for who reads metrics.
	signsStop = 2 * time.Second
)

// startSigns answers on the control address of a node without the role control: health, readiness and metrics.
func (s *server) startSigns(a *auth.Service) error {
	client, err := clientip.New(s.cfg.TrustedProxies)
	if err != nil {
		return fmt.Errorf("trusted proxies: %w", err)
	}
	handler := api.NewSigns(api.Options{
		Auth: a, Ready: s.checks, Metrics: s.registry, ClientIP: client, Clock: s.clock, Log: s.log, TellFailure: s.tellFailure(),
	})
	s.registry.MustRegister(handler)
	s.api.Store(handler)
	srv := api.NewHTTPServer(handler, s.log)
	srv.ReadTimeout, srv.WriteTimeout = signsTimeout, signsTimeout
	s.controlRoom.close()
	s.background.Go(func() {
		if err := srv.Serve(s.controlLn); err != nil && !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("health and metrics: %w", err)
		}
	})
	s.onStop("health and metrics", func(stop context.Context) error {
		stop, cancel := context.WithTimeout(stop, signsStop)
		defer cancel()
		if srv.Shutdown(stop) != nil {
			return srv.Close()
		}
		return nil
	})
	return nil
}
