package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/store/dynamostore"
	"github.com/terselink/terse/internal/testengine"
)

// TestBench: the embedded store is measured in a folder that is gone afterwards, also when the caller gives up, and a shared one is not
// touched without a confirmation.
func TestBench(t *testing.T) {
	t.Parallel()
	cfg := config.Default(16 << 30)
	cfg.Data = t.TempDir()
	cfg.Store.CacheBytes = 8 << 20
	empty := func() {
		t.Helper()
		if list, err := os.ReadDir(cfg.Data); err != nil || len(list) != 0 {
			t.Errorf("left in the data folder: %v, %v", list, err)
		}
	}
	heard := map[string]bool{}
	r, err := Bench(t.Context(), cfg, BenchOptions{Links: 25_000, URLLength: 60, Progress: func(what string, _, _ int) { heard[what] = true }})
	must(t, err)
	if r.Links != 25_000 || r.BulkRate <= 0 || r.FirstVisit <= 0 || r.Hot <= r.FirstVisit || r.Clicks <= 0 || r.WriteUnits != 0 || !heard["links"] || !heard["first visits"] {
		t.Errorf("got %+v; heard of %v", r, heard)
	}
	empty()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err = Bench(ctx, cfg, BenchOptions{Links: 10_000_000, URLLength: 60, Progress: func(string, int, int) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a run that was given up: %v", err)
	}
	empty()
	cfg.Store.Engine = config.EnginePostgres
	if _, err := Bench(t.Context(), cfg, BenchOptions{Links: 1, URLLength: 60}); terse.ErrorCode(err) != terse.CodeInvalid {
		t.Errorf("without a confirmation: %v", err)
	}
}

// TestBenchPostgres: nothing of a run is left in the database, also of one that was given up, or killed before it could remove its links.
func TestBenchPostgres(t *testing.T) {
	t.Parallel()
	cfg := config.Default(16 << 30)
	cfg.Data = t.TempDir()
	cfg.Store.Engine, cfg.Store.Postgres.URL = config.EnginePostgres, config.Secret(emptyDatabase(t))
	r, err := Bench(t.Context(), cfg, BenchOptions{Links: 15_000, URLLength: 60, Shared: true})
	must(t, err)
	if r.Links != 15_000 || r.Removed != 15_000 || r.BulkRate <= 0 || r.FirstVisit <= 0 || r.Hot <= 0 || r.Clicks <= 0 {
		t.Errorf("got %+v", r)
	}
	store, _, err := benchStore(t.Context(), cfg, nil)
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	count := func() uint64 {
		t.Helper()
		n, err := store.CountLinks(t.Context(), benchWorkspace, benchCampaign)
		must(t, err)
		return n
	}
	if n := count(); n != 0 {
		t.Errorf("%d links were left", n)
	}
	killed := benchRun{o: BenchOptions{Links: 500, URLLength: 60}, store: store, report: &BenchReport{}, domain: terse.MaxDomain, first: 7}
	must(t, killed.insert(t.Context()))
	if n := count(); n != 500 {
		t.Fatalf("%d links, want 500", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err = Bench(ctx, cfg, BenchOptions{Links: 1_000_000, URLLength: 60, Shared: true, Progress: func(what string, _, _ int) {
		if what == "links" {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || r.Links == 0 || r.Links == 1_000_000 {
		t.Errorf("a run that was given up: %+v, %v", r, err)
	}
	if n := count(); n != 0 {
		t.Errorf("%d links were left", n)
	}
}

// TestBenchDynamoDB: what links cost is told, and nothing of them is left, also of a run that was given up.
func TestBenchDynamoDB(t *testing.T) {
	endpoint := testengine.Address(t, testengine.DynamoDB)
	t.Setenv("AWS_ACCESS_KEY_ID", "local")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "local")
	cfg := config.Default(16 << 30)
	cfg.Data = t.TempDir()
	cfg.Store.Engine = config.EngineDynamoDB
	cfg.Store.DynamoDB.Table, cfg.Store.DynamoDB.Region, cfg.Store.DynamoDB.Endpoint = fmt.Sprintf("bench-%d", os.Getpid()), "us-east-1", endpoint
	cfg.Store.DynamoDB.MaxConcurrency = 16
	db := dynamostore.Client(aws.Config{Region: "us-east-1", HTTPClient: dynamostore.HTTPClient(), Credentials: credentials.NewStaticCredentialsProvider("local", "local", "")}, endpoint)
	must(t, dynamostore.CreateTable(t.Context(), db, cfg.Store.DynamoDB.Table))
	t.Cleanup(func() {
		_, err := db.DeleteTable(context.Background(), &dynamodb.DeleteTableInput{TableName: &cfg.Store.DynamoDB.Table})
		must(t, err)
	})
	left := func() {
		t.Helper()
		out, err := db.Scan(t.Context(), &dynamodb.ScanInput{TableName: &cfg.Store.DynamoDB.Table})
		must(t, err)
		for _, it := range out.Items {
			if pk := fmt.Sprint(it["pk"]); strings.Contains(pk, "#") && !strings.Contains(pk, "!") {
				t.Errorf("a link was left: %v", it)
			}
		}
	}
	r, err := Bench(t.Context(), cfg, BenchOptions{Links: 300, URLLength: 60, Shared: true})
	must(t, err)
	// DynamoDB Local counts fewer units than DynamoDB does: only that they are told can be checked.
	least := r.UnitsPerLink * dynamostore.PricePerMillionWrites
	if r.Links != 300 || r.Removed != 300 || r.FirstVisit <= 0 || r.WriteUnits < 1 || r.UnitsPerLink != r.WriteUnits/300 || r.CostPerMillion < 0.99*least || r.CostPerMillion > 2*least {
		t.Errorf("got %+v", r)
	}
	left()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err = Bench(ctx, cfg, BenchOptions{Links: 300, URLLength: 60, Shared: true, Progress: func(what string, _, _ int) {
		if what == "first visits" {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || r.Removed != 300 {
		t.Errorf("a run that was given up: %+v, %v", r, err)
	}
	left()
}
