// Package redisbus is what nodes use Redis for.
//
// Bus carries the messages of package changes: PUBLISH and SUBSCRIBE on one channel. PUBLISH needs no memory, so a full, emptied
// or evicting server carries messages as before, and what is lost while it is away is what package changes makes
// good. A server that is a read-only replica is refused: what is published there reaches only those who listen to
// that replica.
//
// Links keeps the entries of package linkcache, all of which may be lost.
//
// Queue hands chunks of jobs to other nodes: a stream with a consumer group, and a list of replies for each run. Whatever it
// loses, whoever handed it in does the work itself. Its keys expire, so that nothing stays behind.
package redisbus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/terselink/terse"
)

// Options configure a Bus.
type Options struct {
	URL    string // redis://user:password@host:6379/0, rediss:// with TLS
	Prefix string // of every name
	// Instance is the id of the instance, a part of every name: two that share a server and, by mistake, a prefix do not meet.
	Instance string
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

// Bus carries the messages over a connection that is made when it is needed, and again when it is lost. It implements
// changes.Transport.
type Bus struct {
	conn
	channel string
}

// New reads the options; nothing is connected. Returns an error of code invalid that does not show the address, which
// may hold a password.
func New(o Options) (*Bus, error) {
	option, err := clientOption(o.URL)
	if err != nil {
		return nil, err
	}
	option.ForceSingleClient = option.Sentinel.MasterSet == "" // a node of a cluster passes messages on to all
	return &Bus{conn: newConn(option), channel: o.Prefix + ":" + o.Instance + ":changes"}, nil
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
