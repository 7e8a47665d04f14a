// Package cli is the command line of Terse: the server itself and a client of a
// running one. It holds no rules about links; commands other than serve speak to the
// control plane through package client, as any other program would.
//
// Results go to standard output, everything else to standard error. docs/cli.md
// is the manual.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	kongcompletion "github.com/jotaen/kong-completion"
	"golang.org/x/term"

	"github.com/terselink/terse/internal/config"
)

// Exit codes.
const (
	ExitOK     = 0 // everything was done
	ExitFailed = 1 // something failed; the message says what
	ExitUsage  = 2 // the command line or the configuration is wrong; nothing was done
	ExitRows   = 3 // bulk: the answer is whole, and some rows made no link
	// ExitDiffers is that of a copy which was made and is not like its source.
	ExitDiffers = 4
)

// Options are what the command line needs from outside.
type Options struct {
	Args    []string // without the name of the program
	Environ []string // "NAME=value"
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Now     func() time.Time
	Version string

	// Serve runs a server until the context ends. An *ExitError sets the exit code.
	Serve func(ctx context.Context, cfg *config.Config, log *slog.Logger) error
	// Seed fills a data folder that no server uses with made-up data. Returns an error of code
	// conflict if one does.
	Seed     func(ctx context.Context, cfg *config.Config, log *slog.Logger, o SeedOptions) error
	DynamoDB DynamoDB
	// Bench measures the store of a configuration, and leaves nothing behind.
	Bench func(ctx context.Context, cfg *config.Config, log *slog.Logger, o BenchOptions) (BenchReport, error)
	// Copy copies what one store holds into another. An error that wraps ErrCopyDiffers says that the copy is not like
	// its source; one of code invalid that the place in its field, from or to, is.
	Copy func(ctx context.Context, cfg *config.Config, log *slog.Logger, o CopyOptions) (CopyReport, error)
	// Doctor looks at everything that a server with the configuration would use, and changes none of it.
	Doctor func(ctx context.Context, cfg *config.Config) []Finding
	// AnalyticsChild runs the analytics engine in this process, which the server
	// started for it, and returns the exit code.
	AnalyticsChild func(stdin io.Reader, stdout, stderr io.Writer) int
}

// OSOptions returns the options of this process.
func OSOptions() Options {
	return Options{Args: os.Args[1:], Environ: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Now: time.Now}
}

// grammar is the whole command line.
type grammar struct {
	Server    string `help:"URL of the control plane; without it the server of the data folder is found, else http://127.0.0.1:8081 ($TERSE_SERVER)." placeholder:"URL"`
	Key       string `help:"API key; without it the owner key of the data folder is used, for a server on this machine ($TERSE_KEY)." placeholder:"KEY"`
	Workspace string `help:"Workspace to act in, with an owner key ($TERSE_WORKSPACE)." placeholder:"ID"`
	Data      string `help:"Data folder; ./data without it ($TERSE_DATA)." placeholder:"FOLDER"`
	JSON      bool   `name:"json" help:"Print JSON: one object, or one a line for lists."`

	Serve    serveCmd    `cmd:"" help:"Run the server."`
	Shorten  shortenCmd  `cmd:"" help:"Make a short link."`
	Bulk     bulkCmd     `cmd:"" help:"Make a link of every row of a file, in one request."`
	Campaign campaignCmd `cmd:"" help:"Make and steer campaigns: many links that one change repoints, ends or deletes."`
	Jobs     jobsCmd     `cmd:"" help:"Follow and steer jobs."`
	Stats    statsCmd    `cmd:"" help:"Show the clicks of a link or of the workspace in numbers and charts."`
	Clicks   clicksCmd   `cmd:"" help:"List clicks one by one, or follow them as they come."`
	Convert  convertCmd  `cmd:"" help:"Record a lead, a sale or another conversion."`

	Conversions conversionsCmd `cmd:"" help:"Show what became of clicks: leads, sales, customers and revenue."`

	Export     exportCmd                 `cmd:"" help:"Write clicks into a file."`
	Erase      eraseCmd                  `cmd:"" help:"Forget the clicks of a link or a visitor for good."`
	Shares     sharesCmd                 `cmd:"" help:"Share statistics with people who have no key."`
	Links      linksCmd                  `cmd:"" help:"List, get, update and delete links."`
	QR         qrCmd                     `cmd:"" name:"qr" help:"Draw the QR code of a link, in the terminal or into a file."`
	Domains    domainsCmd                `cmd:"" help:"Manage the hosts of short links."`
	Keys       keysCmd                   `cmd:"" help:"Manage API keys."`
	Workspaces workspacesCmd             `cmd:"" help:"Manage workspaces."`
	Whoami     whoamiCmd                 `cmd:"" help:"Show what the server sees of you: key, address, scheme, place and browser, and which proxy headers count."`
	Seed       seedCmd                   `cmd:"" help:"Fill a data folder with made-up links and clicks, to look around and to measure."`
	Bench      benchCmd                  `cmd:"" help:"Measure the store: links in bulk and look-ups a second, and for DynamoDB what links cost."`
	DynamoDB   dynamodbCmd               `cmd:"" name:"dynamodb" help:"Prepare DynamoDB for a server."`
	Copy       copyCmd                   `cmd:"" help:"Move between engines: copy a store into another and verify it."`
	Doctor     doctorCmd                 `cmd:"" help:"Check everything that the server would use, and say what is wrong."`
	Geo        geoCmd                    `cmd:"" help:"Look at and update the databases of places."`
	Nodes      nodesCmd                  `cmd:"" help:"Show the nodes of the instance: roles, state, version, uptime."`
	Config     configCmd                 `cmd:"" help:"Print the configuration of the server and where each value comes from."`
	Completion kongcompletion.Completion `cmd:"" help:"Print the shell code for tab completion."`
	Version    versionCmd                `cmd:"" help:"Print the version."`
	Child      childCmd                  `cmd:"" name:"analytics-child" hidden:"" help:"Run the analytics engine; the server starts it."`
}

// session is one run of a command.
type session struct {
	Options
	ctx context.Context
	g   *grammar
}

// exitStatus leaves kong, which ends the process where it is told to, by a panic that Main recovers.
type exitStatus int

// ExitError is an error with an exit code of its own.
type ExitError struct {
	Code int
	Err  error
}

// Error implements error.
func (e *ExitError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ExitError) Unwrap() error { return e.Err }

// Main runs the command and returns the exit code. The first SIGINT or SIGTERM ends the
// command in order, a second one at once.
func Main(ctx context.Context, o Options) (code int) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	defer func() {
		switch p := recover().(type) {
		case nil:
		case exitStatus:
			code = int(p)
		default:
			panic(p)
		}
	}()

	g := &grammar{}
	g.Serve.Settings = kong.Plugins{newSettings()}
	g.Config.Settings = kong.Plugins{newSettings()}
	g.Doctor.Settings = kong.Plugins{newSettings()}
	g.Bench.Settings = kong.Plugins{newSettings()}
	g.Seed.Settings = kong.Plugins{newSettings()}
	g.Geo.Status.Settings = kong.Plugins{newSettings()}
	g.Geo.Update.Settings = kong.Plugins{newSettings()}
	g.Copy.Settings = kong.Plugins{newSettings()}
	parser, err := kong.New(g,
		kong.Name("terse"),
		kong.Description("Short links at any scale: one program, its own storage, its own analytics."),
		kong.Writers(o.Stdout, o.Stderr),
		kong.Exit(func(code int) { panic(exitStatus(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.Bind(&o),
	)
	if err != nil {
		panic(fmt.Sprintf("cli: grammar: %v", err))
	}
	if _, completing := o.env("COMP_LINE"); completing {
		kongcompletion.Register(parser, kongcompletion.WithExitFunc(func(code int) { panic(exitStatus(code)) }))
	}
	if len(o.Args) == 0 {
		o.Args = []string{"--help"}
	}
	s := &session{Options: o, ctx: ctx, g: g}
	kctx, err := parser.Parse(o.Args)
	if err != nil {
		return s.fail(&ExitError{ExitUsage, fmt.Errorf("%w\n\nterse --help lists the commands; terse COMMAND --help explains one", err)})
	}
	if err := kctx.Run(s); err != nil {
		return s.fail(err)
	}
	return ExitOK
}

// fail explains an error and returns its exit code.
func (s *session) fail(err error) int {
	fmt.Fprintln(s.Stderr, "terse: "+s.explain(err))
	if e, ok := errors.AsType[*ExitError](err); ok {
		return e.Code
	}
	return ExitFailed
}

// env returns a variable of the environment; one that is set to nothing is not set.
func (o *Options) env(name string) (string, bool) {
	for _, kv := range o.Environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v, v != ""
		}
	}
	return "", false
}

// orEnv returns the value of a flag, or without one that of a variable.
func (o *Options) orEnv(flag, name string) string {
	if flag == "" {
		flag, _ = o.env(name)
	}
	return flag
}

// isTerminal reports whether a stream of the process is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

type versionCmd struct{}

func (versionCmd) Run(s *session) error {
	if s.g.JSON {
		return s.printJSON(struct {
			Version string `json:"version"`
		}{s.Version})
	}
	_, err := fmt.Fprintln(s.Stdout, "terse "+s.Version)
	return err
}

type childCmd struct{}

func (childCmd) Run(s *session) error {
	if code := s.AnalyticsChild(s.Stdin, s.Stdout, s.Stderr); code != ExitOK {
		panic(exitStatus(code))
	}
	return nil
}
