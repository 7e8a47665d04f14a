// Package redisbus carries the messages of package changes over Redis: PUBLISH and SUBSCRIBE on one channel.
//
// Nothing is kept in Redis. PUBLISH needs no memory, so a full, emptied or evicting server carries messages as before, and
// what is lost while it is away is what package changes makes good. A server that is a read-only replica is refused:
// what is published there reaches only those who listen to that replica.
package redisbus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/terselink/terse"
)

// Options configure a Bus.
type Options struct {
	URL    string // redis://user:password@host:6379/0, rediss:// with TLS
	Prefix string // of the channel; instances that share a server need different ones
}

const (
	// dialWithin bounds the wait for a connection.
	dialWithin = time.Second
	// ioWithin bounds the wait for an answer, and for that of the pings on a connection that is silent.
	ioWithin = 2 * time.Second
	// pingEvery is how often a silent connection is looked after.
	pingEvery = time.Second
	// bufferBytes is the size of each of the two buffers of a connection.
	bufferBytes = 64 << 10
	// retryPause keeps publishers from dialling a server that has just refused.
	retryPause = 500 * time.Millisecond
)

// Bus is a connection to a server, made when it is needed and again when it is lost. It implements changes.Transport.
type Bus struct {
	option  rueidis.ClientOption
	channel string

	mu      sync.Mutex
	client  rueidis.Client // nil: not connected
	dialing bool
	retryAt time.Time
	err     error // why there is no client
	closed  bool
}

// New reads the options; nothing is connected. Returns an error of code invalid that does not show the address, which
// may hold a password.
func New(o Options) (*Bus, error) {
	option, err := clientOption(o.URL)
	if err != nil {
		return nil, err
	}
	return &Bus{option: option, channel: o.Prefix + ":changes", err: errNotConnected}, nil
}

var (
	errNotConnected = &terse.Error{Code: terse.CodeUnavailable, Message: "redis is not connected"}
	errClosed       = &terse.Error{Code: terse.CodeUnavailable, Message: "the connection to redis is closed"}
)

// clientOption is how every client of this package is made.
func clientOption(url string) (rueidis.ClientOption, error) {
	o, err := rueidis.ParseURL(strings.TrimSuffix(url, "/"))
	if err != nil {
		return o, terse.Invalid("redis.url", "is not an address such as redis://user:password@host:6379/0")
	}
	o.Dialer = net.Dialer{Timeout: dialWithin, KeepAlive: pingEvery}
	o.ConnWriteTimeout = ioWithin
	o.ReadBufferEachConn, o.WriteBufferEachConn = bufferBytes, bufferBytes
	o.DisableCache = true // of the client library; nothing is read here
	o.DisableRetry = true // whoever calls knows better
	o.ClientName = "terse"
	o.ForceSingleClient = o.Sentinel.MasterSet == "" // a node of a cluster passes messages on to all
	return o, nil
}

// connect returns the client. Without one it makes one, once in retryPause at most: who comes meanwhile gets an error at once.
func (b *Bus) connect() (rueidis.Client, error) {
	b.mu.Lock()
	if b.client != nil || b.closed || b.dialing || time.Now().Before(b.retryAt) {
		defer b.mu.Unlock()
		if b.closed {
			return nil, errClosed
		}
		if b.client == nil {
			return nil, b.err
		}
		return b.client, nil
	}
	b.dialing = true
	b.mu.Unlock()

	c, err := rueidis.NewClient(b.option)

	b.mu.Lock()
	defer b.mu.Unlock()
	b.dialing = false
	switch {
	case err != nil:
		b.err, b.retryAt = fmt.Errorf("connect to redis: %w", err), time.Now().Add(retryPause)
		return nil, b.err
	case b.closed:
		c.Close()
		return nil, errClosed
	}
	b.client = c
	return c, nil
}

// Publish implements changes.Transport.
func (b *Bus) Publish(ctx context.Context, message []byte) error {
	c, err := b.connect()
	if err != nil {
		return err
	}
	if err := c.Do(ctx, c.B().Publish().Channel(b.channel).Message(rueidis.BinaryString(message)).Build()).Error(); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

var errSubscription = errors.New("the subscription ended")

// Receive implements changes.Transport.
func (b *Bus) Receive(ctx context.Context, listening func(), got func([]byte)) error {
	c, err := b.connect()
	if err != nil {
		return err
	}
	// A connection of its own: when it is lost that is told, and not mended behind our back.
	d, release := c.Dedicate()
	defer release()
	role, err := askRole(ctx, d)
	if err != nil {
		return err
	}
	if role == roleReplica {
		return errReplica
	}
	ended := d.SetPubSubHooks(rueidis.PubSubHooks{
		OnSubscription: func(s rueidis.PubSubSubscription) {
			if s.Kind == "subscribe" {
				listening()
			}
		},
		OnMessage: func(m rueidis.PubSubMessage) { got([]byte(m.Message)) },
	})
	if err := d.Do(ctx, d.B().Subscribe().Channel(b.channel).Build()).Error(); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	select {
	case err := <-ended:
		if err == nil {
			err = errSubscription
		}
		return err
	case <-ctx.Done():
		d.Close()
		return ctx.Err()
	}
}

const roleReplica = "slave" // what servers of every version say

var errReplica = &terse.Error{
	Code: terse.CodeUnavailable, Message: "the server is a replica: what is published there reaches only those who listen to it; name the primary",
}

// askRole returns the role of the server; "" if the user may not ask.
func askRole(ctx context.Context, c rueidis.DedicatedClient) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, ioWithin)
	defer cancel()
	list, err := c.Do(ctx, c.B().Role().Build()).ToArray()
	if err != nil {
		if rerr, ok := errors.AsType[*rueidis.RedisError](err); ok && strings.HasPrefix(rerr.Error(), "NOPERM") {
			return "", nil
		}
		return "", fmt.Errorf("ask for the role: %w", err)
	}
	if len(list) == 0 {
		return "", nil
	}
	role, err := list[0].ToString()
	if err != nil {
		return "", fmt.Errorf("ask for the role: %w", err)
	}
	return role, nil
}

// Close ends the connections; calls under way fail. A second Close is nothing.
func (b *Bus) Close() {
	b.mu.Lock()
	c := b.client
	b.client, b.closed = nil, true
	b.mu.Unlock()
	if c != nil {
		c.Close()
	}
}
