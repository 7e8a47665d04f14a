package dynamostore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/smithy-go/logging"

	"github.com/terselink/terse"
)

// Store implements terse.Store on a DynamoDB table. Make one with Open.
type Store struct {
	opts     Options
	db       *dynamodb.Client
	limit    *limiter
	counters counters
	closed   atomic.Bool
	// base ends when the store closes; background work and what resolves unknown outcomes run under it.
	base       context.Context
	cancel     context.CancelFunc
	background sync.WaitGroup

	feed   dispenser
	states stateCache
	shards shardCache
	stalls stallTable
	purges purgeTable
	run    string        // names this store in a claim
	lost   chan struct{} // closed when another node has claimed the table

	releaseFor time.Duration // releaseTimeout, but in tests
}

var _ terse.Portable = (*Store)(nil)

var errUnprocessed = errors.New("items were left unprocessed")

// LoadConfig reads region and credentials from where every program of AWS finds them: environment,
// shared files, the role of the machine. A region that is not "" wins. Connections are kept open
// for as many requests as may be under way.
func LoadConfig(ctx context.Context, region string) (aws.Config, error) {
	var client config.HTTPClient = HTTPClient()
	if os.Getenv("AWS_CA_BUNDLE") != "" { // which the SDK adds to a client of its own kind only
		client = awshttp.NewBuildableClient().WithTransportOptions(keepConnections)
	}
	opts := []func(*config.LoadOptions) error{config.WithHTTPClient(client)}
	if region != "" {
		opts = append(opts, config.WithRegion(region))
	}
	cfg, err := config.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return aws.Config{}, &terse.Error{Code: terse.CodeInvalid, Field: "store.dynamodb", Message: "the configuration of AWS cannot be read", Err: err}
	}
	if cfg.Region == "" {
		return aws.Config{}, terse.Invalid("store.dynamodb.region", "set a region here or in AWS_REGION")
	}
	return cfg, nil
}

// HTTPClient returns a client that keeps connections for all requests of a store: the default of
// ten for a host makes a bulk insert open a connection for most requests.
func HTTPClient() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	keepConnections(t)
	return &http.Client{Transport: t}
}

func keepConnections(t *http.Transport) {
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 512, 512
	t.IdleConnTimeout = time.Minute
}

// Client returns a client of the endpoint without retries of its own: those are in call.go.
func Client(cfg aws.Config, endpoint string) *dynamodb.Client {
	return dynamodb.NewFromConfig(cfg, func(o *dynamodb.Options) {
		o.Retryer = aws.NopRetryer{}
		o.Logger = logging.Nop{} // what matters is in the errors
		if endpoint != "" {
			o.BaseEndpoint = &endpoint
		}
	})
}

// Open returns a store on a table that exists. It fails if the table cannot be reached.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Table == "" {
		return nil, terse.Invalid("store.dynamodb.table", "must name a table")
	}
	if o.BulkShards < 0 || o.BulkShards > maxShards || o.BulkShards&(o.BulkShards-1) != 0 {
		return nil, terse.Invalid("store.dynamodb.bulk_shards", "must be a power of two up to %d", maxShards)
	}
	o.setDefaults()
	s := newStore(o)
	if err := s.Ping(ctx); err != nil {
		s.cancel()
		return nil, err
	}
	if o.ReadOnly {
		return s, nil
	}
	if err := s.moveFloor(ctx); err != nil {
		s.cancel()
		return nil, err
	}
	if o.MaintainEvery > 0 {
		s.goBackground(s.maintain)
	}
	return s, nil
}

// newStore returns a store of which nothing runs yet. The options are complete.
func newStore(o Options) *Store {
	s := &Store{
		opts: o, db: Client(o.Config, o.Endpoint), limit: newLimiter(o.MaxConcurrency, time.Now),
		lost: make(chan struct{}), run: newToken(), releaseFor: releaseTimeout,
	}
	s.base, s.cancel = context.WithCancel(context.Background())
	s.feed.s = s
	return s
}

// goBackground runs f until it ends; Close waits for it. After Close it does nothing.
func (s *Store) goBackground(f func(context.Context)) {
	if s.base.Err() != nil {
		return
	}
	s.background.Go(func() { f(s.base) })
}

// enter is the begin of every method: no call of a closed store, none that is cancelled already.
func (s *Store) enter(ctx context.Context, op string) error {
	if err := ctx.Err(); err != nil {
		return &terse.Error{Code: terse.CodeUnavailable, Message: "the call was cancelled", Op: op, Err: err}
	}
	if s.closed.Load() {
		return &terse.Error{Code: terse.CodeUnavailable, Message: "the store is closed", Op: op}
	}
	return nil
}

// Ping reads one item.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.enter(ctx, "ping"); err != nil {
		return err
	}
	if _, o := s.getItem(ctx, feedKey); o != nil {
		return o.readErr("ping")
	}
	return nil
}

// Close ends background work. Calls under way end by themselves.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.cancel()
	s.background.Wait()
	if c, ok := s.opts.Config.HTTPClient.(*http.Client); ok {
		c.CloseIdleConnections()
	}
	return nil
}

// resolveTimeout bounds how long the end of a call looks for the outcome of its last request.
const resolveTimeout = 5 * time.Second

// detached returns a context for that, which outlives the caller's.
func (s *Store) detached() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.base, resolveTimeout)
}

func newToken() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
