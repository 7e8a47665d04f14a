package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/terselink/terse/client"
	"github.com/terselink/terse/internal/config"
)

// defaultData is where "terse serve" keeps its data if it is not told otherwise.
const defaultData = "data"

// connect returns a client of the server that the flags, the environment or the data folder name.
func (s *session) connect() (*client.Client, error) {
	server, found := s.server()
	key, err := s.key(server, found)
	if err != nil {
		return nil, err
	}
	c, err := client.New(client.Options{
		Server:    server,
		Key:       key,
		Workspace: s.orEnv(s.g.Workspace, "TERSE_WORKSPACE"),
		UserAgent: "terse/" + s.Version,
	})
	if err != nil {
		return nil, &ExitError{ExitUsage, err}
	}
	return c, nil
}

// folders returns the data folders to look into: the one that was named, else the usual ones.
func (s *session) folders() []string {
	if s.g.Data != "" {
		return []string{s.g.Data}
	}
	if env, ok := s.env("TERSE_DATA"); ok {
		return []string{env, defaultData}
	}
	return []string{defaultData}
}

// server returns the URL of the server, and whether a data folder of this machine named it.
func (s *session) server() (server string, found bool) {
	server = s.orEnv(s.g.Server, "TERSE_SERVER")
	for _, folder := range s.folders() {
		info, err := config.ReadServerInfo(folder)
		if err != nil || info.ControlURL == "" {
			continue
		}
		if server == "" || strings.TrimRight(server, "/") == strings.TrimRight(info.ControlURL, "/") {
			return info.ControlURL, true
		}
	}
	if server == "" {
		server = client.DefaultServer
	}
	return server, false
}

// key returns the key that was given. Without one it is the owner key of the data folder,
// but only for a server on this machine: a key of everything is not sent to
// a host that happens to be named in the environment.
func (s *session) key(server string, found bool) (string, error) {
	if key := s.orEnv(s.g.Key, "TERSE_KEY"); key != "" {
		return key, nil
	}
	if !found && !isLoopback(server) {
		return "", nil
	}
	for _, folder := range s.folders() {
		key, err := config.ReadOwnerKey(folder)
		if err == nil {
			return key.Reveal(), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("%w\n\nGive a key with --key or TERSE_KEY, or run the command as the user of the server", err)
		}
	}
	return "", nil
}

func isLoopback(server string) bool {
	u, err := url.Parse(server)
	if err != nil {
		return false
	}
	if u.Hostname() == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return err == nil && ip.IsLoopback()
}

// resumeError is an error after which --resume goes on.
type resumeError struct{ error }

const resumeHint = "\n\nGo on with the same command and --resume"

func (e *resumeError) Error() string { return e.error.Error() + resumeHint }

func (e *resumeError) Unwrap() error { return e.error }

// explain returns what to print for an error: what happened and, where it is known, what to do.
func (s *session) explain(err error) string {
	if e, ok := errors.AsType[*resumeError](err); ok {
		return s.explain(e.error) + resumeHint
	}
	server, _ := s.server()
	if e, ok := errors.AsType[*client.Error](err); ok {
		return s.explainAnswer(e, server, err)
	}
	var cut *client.CutError
	switch {
	case errors.As(err, &cut):
	case errors.Is(err, context.Canceled) && s.ctx.Err() != nil:
		return "interrupted"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "no server answers at " + server + `

Start one in another terminal:

    terse serve        (or, in a checkout: make run)

or name the one you mean with --server or TERSE_SERVER.`
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "the server at " + server + " did not answer in time"
	}
	if _, ok := errors.AsType[*net.OpError](err); ok && cut == nil {
		return "cannot reach the server at " + server + ": " + err.Error()
	}
	return err.Error()
}

func (s *session) explainAnswer(e *client.Error, server string, err error) string {
	text := printable(err.Error())
	switch {
	case e.Status == 401 && s.orEnv(s.g.Key, "TERSE_KEY") == "":
		text += "\n\nNo key was found. The server prints its owner key at the first start and keeps it in its data folder:" +
			"\nrun the command where ./data is, name the folder with --data, or give a key with --key or TERSE_KEY." +
			"\nAn owner makes keys for others with: terse keys create NAME"
	case e.Status == 401:
		text += "\n\nThe key in --key or TERSE_KEY is not one of the server at " + server + "." +
			"\nAn owner lists keys with: terse keys list   and makes one with: terse keys create NAME"
	case e.Status == 403:
		text += "\n\nThe key lacks a scope for this. An owner makes another with: terse keys create NAME --scope SCOPE"
	case e.Code == "":
		text = "the server at " + server + " " + text + "\n\nIs it the control plane of Terse? It listens on port 8081 unless it is told otherwise."
	case headerFault(e):
		text += "\n\nName the columns that mean something with --map destination=COLUMN, and leave the others out with --ignore-extra."
	case e.Status >= 500 && e.RequestID != "":
		text += "\n\nThe server's log has more under request " + printable(e.RequestID) + "."
	}
	return text
}

// headerFault reports whether the columns of a CSV file are what an answer is about.
func headerFault(e *client.Error) bool {
	return slices.ContainsFunc(e.Fields, func(f client.FieldError) bool { return strings.HasSuffix(f.Location, "header") })
}
