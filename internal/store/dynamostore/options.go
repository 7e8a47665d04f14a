package dynamostore

import (
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/terselink/terse"
)

// Options configure a Store. Table is required.
type Options struct {
	// Table is the name of the table, made by CreateTable.
	Table string
	// Config holds region, credentials and HTTP client (LoadConfig).
	Config aws.Config
	// Endpoint replaces the endpoint of the region: DynamoDB Local, or a private one. "" for none.
	Endpoint string
	// MaxConcurrency bounds the requests that are under way at once; the store finds out by itself how
	// many below that the table takes. 0 means 256.
	MaxConcurrency int
	// BulkShards is how many partitions of the index the links of a bulk insert are spread over, a power
	// of two up to 256. Each takes about 1,000 links a second; a page of a listing reads them all. 0 means 128.
	BulkShards int
	// KeepExpired is how long after its end a link stays before the table's TTL removes it. 0
	// means 90 days; negative means for ever.
	KeepExpired time.Duration
	// SealAfter is how long a reader of the change feed waits for a write that has drawn a number and
	// not committed. 0 means one second.
	SealAfter time.Duration
	// AbandonAfter is the age at which a bulk insert that is neither committed nor given up is taken for
	// that of a dead process. 0 means two minutes.
	AbandonAfter time.Duration
	// RetryFor bounds how long one request is repeated while the table throttles it or cannot
	// be reached. 0 means 20 seconds.
	RetryFor time.Duration
	// MaintainEvery is the pause between rounds of background work: forgetting old changes,
	// clearing up after dead processes. 0 means an hour; negative means none.
	MaintainEvery time.Duration
	// ReadOnly says that nobody will write through the store, but for its claim: opening it changes nothing, and there is
	// no background work. Without it a store forgets old changes before it draws its first number of the feed.
	ReadOnly bool
	// Clock dates changes. nil means the system's clock.
	Clock func() terse.Millis
	// Log receives what happens in the background. nil discards it.
	Log *slog.Logger
}

func (o *Options) setDefaults() {
	if o.MaxConcurrency <= 0 {
		o.MaxConcurrency = 256
	}
	if o.BulkShards <= 0 {
		o.BulkShards = 128
	}
	if o.KeepExpired == 0 {
		o.KeepExpired = 90 * 24 * time.Hour
	}
	if o.SealAfter == 0 {
		o.SealAfter = time.Second
	}
	if o.AbandonAfter == 0 {
		o.AbandonAfter = 2 * time.Minute
	}
	if o.RetryFor == 0 {
		o.RetryFor = 20 * time.Second
	}
	if o.MaintainEvery == 0 {
		o.MaintainEvery = time.Hour
	}
	if o.Clock == nil {
		o.Clock = func() terse.Millis { return terse.MillisOf(time.Now()) }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}
