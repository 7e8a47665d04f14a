package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/api"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/clientip"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/links"
)

func (s *server) startControl(ctx context.Context, a *auth.Service, l *links.Service) error {
	if !s.cfg.Has(config.RoleControl) {
		return s.startSigns(a)
	}
	if err := s.openPlaces(); err != nil {
		return err
	}
	var ticket func() (string, terse.Millis, error)
	if s.redirect != nil {
		ticket = s.redirect.WhoamiTicket
	}
	client, err := clientip.New(s.cfg.TrustedProxies)
	if err != nil {
		return fmt.Errorf("trusted proxies: %w", err)
	}
	var engine analytics.Engine
	if s.analytics != nil {
		engine = s.analytics
	}
	var edges api.Edge
	if err := s.patiently(ctx, func() (err error) { edges, err = s.forEdges(ctx); return err }); err != nil {
		return err
	}
	node, err := s.sharedNode()
	if err != nil {
		return err
	}
	others, err := s.openPeers()
	if err != nil {
		return err
	}
	var limited func(context.Context, string) time.Duration
	if err := s.patiently(ctx, func() (err error) { limited, err = s.openRates(ctx); return err }); err != nil {
		return err
	}
	handler, err := api.New(api.Options{
		Node: node, Peers: others, Store: s.store, Links: l, Domains: s.domains, Auth: a, Analytics: engine, Ready: s.checks, Metrics: s.registry, Ticket: ticket,
		Nodes: s.nodes, Jobs: s.jobs, Live: s.live, Exports: s.exports, Schedules: s.schedules, Places: s.places, ClientIP: client, Clock: s.clock, Log: s.log, MaxBulkBytes: int64(s.cfg.Bulk.MaxBytes),
		TellFailure: s.tellFailure(), Rate: limited, Edge: edges, Terms: s.termsOf(a),
		System: api.System{Version: s.o.Version, Shape: s.engine.shape, Roles: s.cfg.Role},
	})
	if err != nil {
		return fmt.Errorf("control plane: %w", err)
	}
	s.registry.MustRegister(handler)
	s.api.Store(handler)
	ctx, cancel := context.WithCancel(context.Background())
	s.background.Go(func() {
		if err := handler.Run(ctx); err != nil && ctx.Err() == nil {
			s.failed <- fmt.Errorf("control plane: %w", err)
		}
	})
	s.control = api.NewHTTPServer(handler, s.log)
	s.controlRoom.close()
	s.background.Go(func() {
		if err := s.control.Serve(s.controlLn); err != nil && !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("control plane: %w", err)
		}
	})
	// The planes drain at the same time: each has requests of its own to finish.
	s.onStop("planes", func(stop context.Context) error {
		var wg sync.WaitGroup
		var redirectErr, controlErr error
		if s.redirect != nil {
			wg.Go(func() { redirectErr = s.redirect.Shutdown(stop) })
		}
		wg.Go(func() {
			if controlErr = s.control.Shutdown(stop); controlErr != nil {
				controlErr = errors.Join(controlErr, s.control.Close())
			}
		})
		wg.Wait()
		cancel()
		s.background.Wait()
		return errors.Join(redirectErr, controlErr)
	})
	if others != nil { // before the planes: events that are passed on would hold them open
		s.onStop("requests to other nodes", func(context.Context) error { others.Close(); return nil })
	}
	return nil
}

// checks are the lines of /readyz: anybody may read them.
func (s *server) checks() []api.Check {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	list := []api.Check{{Name: "store", State: api.OK}}
	if s.edge != nil {
		list[0].Name = "upstream"
	}
	if err := s.store.Ping(ctx); err != nil {
		list[0].State, list[0].Detail = s.engine.whenDown, terse.Message(err)
	}
	if hub := s.hub.Load(); hub != nil {
		list = append(list, changesCheck(hub.Stats()))
	}
	if s.recorder != nil {
		c := api.Check{Name: "clicks", State: api.OK}
		if st := s.recorder.Stats(); st.WriteErrors+st.SyncErrors > 0 {
			c.State, c.Detail = api.Degraded, fmt.Sprintf("%d failed writes, %d failed syncs since the start", st.WriteErrors, st.SyncErrors)
		}
		list = append(list, c)
	}
	if why := s.streams.trouble(); why != "" {
		list = append(list, api.Check{Name: "sending_clicks", State: api.Degraded, Detail: why + "; they wait on disk"})
	}
	if s.shipper != nil {
		c := api.Check{Name: "sending_clicks", State: api.OK}
		if why := s.shipper.Trouble(); why != "" {
			c.State, c.Detail = api.Degraded, why+"; they wait on disk"
		}
		list = append(list, c)
	}
	if s.analytics != nil {
		c := api.Check{Name: "analytics", State: api.OK}
		if st := s.analytics.Status(ctx); st.State != analytics.StateReady {
			// Not its detail: anybody may ask, and errors name addresses and users. The log and doctor have them.
			c.State, c.Detail = api.Degraded, string(st.State)
		}
		list = append(list, c)
		if s.cfg.Record.Store == config.RecordS3 {
			list = append(list, s.recordCheck())
		}
	}
	return list
}

// announce leaves the note by which a command line finds the server, and says that
// it is ready.
func (s *server) announce(key string, created bool, began time.Time) {
	info := config.ServerInfo{PID: os.Getpid()}
	if s.control != nil {
		info.ControlURL = "http://" + reachable(s.controlLn.Addr().String())
		if err := config.WriteServerInfo(s.cfg.Data, info); err != nil {
			s.log.Warn("the command line may not find this server", "error", err)
		}
		s.onStop("server note", func(context.Context) error { return config.RemoveServerInfo(s.cfg.Data, os.Getpid()) })
	}
	if created {
		fmt.Fprintf(s.o.Stdout, "Owner key, shown this once (also kept in %s):\n\n  %s\n\n", filepath.Join(s.cfg.Data, auth.OwnerFile), key)
	}
	s.log.Info("ready", "version", s.o.Version, "short_urls", s.domains.Default().Base(), "control", info.ControlURL,
		"data", s.cfg.Data, "took", time.Since(began).Round(time.Millisecond))
}

// reachable replaces an address that means "every interface" by one that can be dialled.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
