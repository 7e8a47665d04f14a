// Command terse is the short-link server and its command line.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/terselink/terse/internal/analytics/child"
	"github.com/terselink/terse/internal/app"
	"github.com/terselink/terse/internal/cli"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/storecopy"
)

// version is set by the linker: -X main.version=1.2.3.
var version string

func main() {
	o := cli.OSOptions()
	o.Version = cli.BuildVersion(version)
	o.AnalyticsChild = child.Main
	o.Serve = func(ctx context.Context, cfg *config.Config, log *slog.Logger) error {
		err := app.Run(ctx, cfg, app.Options{Version: o.Version, Stdout: os.Stdout, Log: log})
		if errors.Is(err, app.ErrDiskFailed) {
			return &cli.ExitError{Code: app.ExitDiskFailed, Err: err}
		}
		return err
	}
	o.Seed = func(ctx context.Context, cfg *config.Config, log *slog.Logger, s cli.SeedOptions) error {
		return app.Seed(ctx, cfg, app.SeedOptions{
			Links: s.Links, Clicks: s.Clicks, Days: s.Days, Conversions: s.Conversions, Seed: s.Seed, To: s.To, Log: log, Progress: s.Progress,
		})
	}
	o.Bench = func(ctx context.Context, cfg *config.Config, log *slog.Logger, b cli.BenchOptions) (cli.BenchReport, error) {
		r, err := app.Bench(ctx, cfg, app.BenchOptions{Links: b.Links, URLLength: b.URLLength, Shared: b.Shared, Log: log, Progress: b.Progress})
		return cli.BenchReport{
			Engine: r.Engine, Links: r.Links, LinksPerSecond: r.BulkRate, VisitsPerSecond: r.FirstVisit, HotPerSecond: r.Hot, ClicksPerSecond: r.Clicks, Removed: r.Removed,
			WriteUnits: r.WriteUnits, UnitsPerLink: r.UnitsPerLink, CostPerMillion: r.CostPerMillion,
		}, err
	}
	o.DynamoDB = cli.DynamoDB{
		CreateTable:    func(ctx context.Context, t cli.TableOptions) error { return app.CreateTable(ctx, app.TableOptions(t)) },
		CloudFormation: app.CloudFormation,
	}
	o.Copy = func(ctx context.Context, cfg *config.Config, log *slog.Logger, c cli.CopyOptions) (cli.CopyReport, error) {
		report, err := app.Copy(ctx, cfg, app.CopyOptions{From: c.From, To: c.To, Sample: c.Sample, Log: log, Progress: func(p storecopy.Progress) {
			c.Progress(string(p.Phase), p.Links, p.Total)
		}})
		if err != nil {
			if _, differs := errors.AsType[*storecopy.MismatchError](err); differs {
				err = fmt.Errorf("%w: %w", cli.ErrCopyDiffers, err)
			}
			return cli.CopyReport{}, err
		}
		return cli.CopyReport{
			Links: report.Source.LinkCount(), Documents: report.Source.DocumentCount(), Domains: len(report.Source.Links), Sampled: report.Sampled, Resumed: report.Resumed,
		}, nil
	}
	o.Doctor = func(ctx context.Context, cfg *config.Config) []cli.Finding {
		var list []cli.Finding
		for _, f := range app.Doctor(ctx, cfg) {
			list = append(list, cli.Finding(f))
		}
		return list
	}
	os.Exit(cli.Main(context.Background(), o))
}
