package redisbus

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/terselink/terse"
)

// conn is a client of a server, made when it is needed.
type conn struct {
	option  rueidis.ClientOption
	sockets *sockets

	mu      sync.Mutex
	client  rueidis.Client // nil: not connected
	dialing bool
	retryAt time.Time
	err     error // why there is no client
	closed  bool
}

func newConn(option rueidis.ClientOption) conn {
	s := new(sockets)
	s.keep(&option)
	return conn{option: option, sockets: s, err: errNotConnected}
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
	return o, nil
}

// connect returns the client. Without one it makes one, once in retryPause at most: who comes meanwhile gets an error at once.
func (c *conn) connect() (rueidis.Client, error) {
	c.mu.Lock()
	if c.client != nil || c.closed || c.dialing || time.Now().Before(c.retryAt) {
		defer c.mu.Unlock()
		if c.closed {
			return nil, errClosed
		}
		if c.client == nil {
			return nil, c.err
		}
		return c.client, nil
	}
	c.dialing = true
	c.mu.Unlock()

	client, err := rueidis.NewClient(c.option)

	c.mu.Lock()
	defer c.mu.Unlock()
	c.dialing = false
	switch {
	case err != nil:
		c.err, c.retryAt = fmt.Errorf("connect to redis: %w", err), time.Now().Add(retryPause)
		return nil, c.err
	case c.closed:
		client.Close()
		return nil, errClosed
	}
	c.client = client
	return client, nil
}

// Close ends the connections; calls under way fail. A second Close is nothing.
func (c *conn) Close() {
	c.mu.Lock()
	client := c.client
	c.client, c.closed = nil, true
	c.mu.Unlock()
	if client != nil {
		client.Close()
	}
	c.sockets.close()
}

// connected returns the client without making one.
func (c *conn) connected() (rueidis.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client == nil {
		return nil, c.err
	}
	return c.client, nil
}
