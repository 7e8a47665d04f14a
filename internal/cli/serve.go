package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/config"
)

type serveCmd struct {
	Config   string       `help:"YAML file with settings ($TERSE_CONFIG)." placeholder:"FILE" type:"path"`
	Settings kong.Plugins `embed:""`
}

func (serveCmd) Help() string {
	return "Without any setting it serves redirects on 127.0.0.1:8080 and the API on 127.0.0.1:8081, and keeps everything in ./data. " +
		"Every setting can also come from the file or the environment; docs/configuration.md explains them."
}

func (c *serveCmd) Run(s *session) error {
	l, err := s.loadConfig(c.Config, c.Settings)
	if err != nil {
		return err
	}
	return s.Serve(s.ctx, l.Config, newLog(l.Config.Log, s.Stderr))
}

// newLog returns the log of the server. The configuration was validated.
func newLog(c config.Log, w io.Writer) *slog.Logger {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	o := &slog.HandlerOptions{Level: levels[c.Level]}
	if c.Format == "text" || c.Format == "auto" && isTerminal(w) {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}

type configCmd struct {
	Config   string       `help:"YAML file with settings ($TERSE_CONFIG)." placeholder:"FILE" type:"path"`
	Settings kong.Plugins `embed:""`
}

func (c *configCmd) Run(s *session) error {
	l, err := s.loadConfig(c.Config, c.Settings)
	if err != nil {
		return err
	}
	if s.g.JSON {
		return s.printJSON(l.Values())
	}
	t := s.table("KEY", "VALUE", "FROM")
	for _, v := range l.Values() {
		t.row(v.Key, v.Value, v.Source)
	}
	return t.flush()
}

// loadConfig reads the configuration of a server with the flags of the command.
func (s *session) loadConfig(file string, settings kong.Plugins) (*config.Loaded, error) {
	return s.loadSources(file, settings, nil)
}

// loadSources is loadConfig for a command that adds something to the sources.
func (s *session) loadSources(file string, settings kong.Plugins, add func(*config.Sources)) (*config.Loaded, error) {
	from := config.Sources{File: s.orEnv(file, "TERSE_CONFIG"), Environ: s.Environ, Flags: settingsOf(settings)}
	if s.g.Data != "" {
		from.Flags["data"] = s.g.Data
	}
	if add != nil {
		add(&from)
	}
	l, err := config.Load(from)
	if err != nil {
		return nil, &ExitError{ExitUsage, configError{err}}
	}
	return l, nil
}

// configError lists the problems of a configuration.
type configError struct{ err error }

func (e configError) Unwrap() error { return e.err }

func (e configError) Error() string {
	problems := []error{e.err}
	if joined, ok := e.err.(interface{ Unwrap() []error }); ok {
		problems = joined.Unwrap()
	}
	var b strings.Builder
	b.WriteString("the configuration cannot work:")
	for _, err := range problems {
		if p, ok := errors.AsType[*terse.Error](err); ok && p.Field != "" {
			fmt.Fprintf(&b, "\n  %s: %s", p.Field, p.Message)
		} else {
			b.WriteString("\n  " + err.Error())
		}
	}
	b.WriteString("\n\ndocs/configuration.md lists every key.")
	return b.String()
}

// newSettings returns a pointer to a struct with a flag for every key of the
// configuration, so that they are written down in one place. Secrets have none: flags
// show in the list of processes. The data folder is a flag of every command.
func newSettings() any {
	var fields []reflect.StructField
	for i, f := range config.Fields() {
		if f.Secret || f.Key == "data" {
			continue
		}
		help := f.Doc
		if f.OneOf != nil {
			help += " (" + strings.Join(f.OneOf, ", ") + ")"
		}
		fields = append(fields, reflect.StructField{
			Name: "Setting" + strconv.Itoa(i),
			Type: reflect.TypeFor[*string](),
			Tag: reflect.StructTag(fmt.Sprintf(`name:%q help:%q placeholder:%q group:"Settings" key:%q`,
				f.Flag(), help, strings.ToUpper(strings.ReplaceAll(f.Type(), " ", "-")), f.Key)),
		})
	}
	return reflect.New(reflect.StructOf(fields)).Interface()
}

// settingsOf returns the keys that flags have set.
func settingsOf(plugins kong.Plugins) map[string]string {
	flags := map[string]string{}
	for _, p := range plugins {
		v := reflect.ValueOf(p).Elem()
		for i := range v.NumField() {
			if value := v.Field(i).Interface().(*string); value != nil {
				flags[v.Type().Field(i).Tag.Get("key")] = *value
			}
		}
	}
	return flags
}
