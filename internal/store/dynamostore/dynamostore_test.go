package dynamostore_test

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"go.uber.org/goleak"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/dynamostore"
	"github.com/terselink/terse/internal/store/storetest"
	"github.com/terselink/terse/internal/testengine"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// A history of the model is a thousand requests of a millisecond: fewer of them unless told.
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		_ = flag.Set("rapid.checks", "30")
	}
	goleak.VerifyTestMain(m)
}

var tables atomic.Int64

// client returns the configuration of DynamoDB Local.
func client(t testing.TB) (aws.Config, string) {
	t.Helper()
	endpoint := testengine.Address(t, testengine.DynamoDB)
	return aws.Config{
		Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("local", "local", ""), HTTPClient: dynamostore.HTTPClient(),
	}, endpoint
}

// newTable makes a table of its own for a test and returns options of a store on it.
func newTable(t testing.TB) dynamostore.Options {
	t.Helper()
	cfg, endpoint := client(t)
	o := dynamostore.Options{
		Table: fmt.Sprintf("terse-%d-%d", os.Getpid(), tables.Add(1)), Config: cfg, Endpoint: endpoint,
		BulkShards: 8, KeepExpired: -1, SealAfter: 200 * time.Millisecond, MaintainEvery: -1,
		// DynamoDB Local on a busy machine is slow, not away: few requests at once, and time for them.
		MaxConcurrency: 16, RetryFor: 5 * time.Minute,
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	db := dynamostore.Client(cfg, endpoint)
	if err := dynamostore.CreateTable(ctx, db, o.Table); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := db.DeleteTable(context.Background(), &dynamodb.DeleteTableInput{TableName: &o.Table}); err != nil {
			t.Error(err)
		}
		cfg.HTTPClient.(*http.Client).CloseIdleConnections()
	})
	return o
}

// open opens a store and closes it at the end of the test.
func open(t testing.TB, o dynamostore.Options) *dynamostore.Store {
	t.Helper()
	s, err := dynamostore.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func opts(t *testing.T) storetest.Opts {
	made := map[terse.Store]dynamostore.Options{}
	var days atomic.Int64 // that have passed
	return storetest.Opts{
		New: func(t testing.TB) terse.Store {
			o := newTable(t)
			o.Clock = func() terse.Millis {
				return terse.MillisOf(time.Now().Add(time.Duration(days.Load()) * 24 * time.Hour))
			}
			s := open(t, o)
			made[s] = o
			return s
		},
		Reopen: func(t testing.TB, s terse.Store) terse.Store {
			o := made[s]
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			again := open(t, o)
			made[again] = o
			return again
		},
		Forget: func(t testing.TB, s terse.Store) {
			days.Add(3)
			if err := s.(*dynamostore.Store).Maintain(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
		// The feed waits for numbers of failed commits until they are sealed.
		Retry: func(attempt int) bool {
			<-time.After(20 * time.Millisecond)
			return attempt < 3000 // a minute
		},
	}
}

func TestStore(t *testing.T) { storetest.Run(t, opts(t)) }

func TestModel(t *testing.T) { storetest.RunModel(t, opts(t)) }
