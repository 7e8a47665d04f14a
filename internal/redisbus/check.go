package redisbus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/redis/rueidis"
)

// Check looks whether a node could work with the server, and changes nothing. It says what it found, or what is
// wrong and what to do. It never shows the address.
func Check(ctx context.Context, o Options) (found string, err error) {
	b, err := New(o)
	if err != nil {
		return "", err
	}
	defer b.Close()
	c, err := b.connect()
	if err != nil {
		return "", inWords(err)
	}
	d, release := c.Dedicate()
	defer release()
	role, err := askRole(ctx, d)
	if err != nil {
		return "", inWords(err)
	}
	if role == roleReplica {
		return "", errReplica
	}
	call, cancel := context.WithTimeout(ctx, ioWithin)
	defer cancel()
	began := time.Now()
	if err := b.Publish(call, nil); err != nil { // an empty message is ignored by every node
		return "", inWords(err)
	}
	took := time.Since(began)
	if err := b.trySubscribe(ctx, c); err != nil {
		return "", inWords(err)
	}
	return fmt.Sprintf("it answers within %v", max(took.Round(10*time.Microsecond), 10*time.Microsecond)), nil
}

// trySubscribe listens to the channel, and goes away at once.
func (b *Bus) trySubscribe(ctx context.Context, c rueidis.Client) error {
	ctx, cancel := context.WithTimeout(ctx, ioWithin)
	defer cancel()
	d, release := c.Dedicate()
	defer release()
	defer d.Close()
	heard := make(chan struct{}, 1)
	ended := d.SetPubSubHooks(rueidis.PubSubHooks{
		OnMessage: func(rueidis.PubSubMessage) {},
		OnSubscription: func(s rueidis.PubSubSubscription) {
			if s.Kind == "subscribe" {
				heard <- struct{}{}
			}
		},
	})
	if err := d.Do(ctx, d.B().Subscribe().Channel(b.channel).Build()).Error(); err != nil {
		return err
	}
	select {
	case <-heard:
		return nil
	case err := <-ended:
		if err == nil {
			err = errSubscription
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// inWords says what an error of the server means.
func inWords(err error) error {
	text := ""
	if rerr, ok := errors.AsType[*rueidis.RedisError](err); ok {
		code, _, _ := strings.Cut(rerr.Error(), " ")
		switch code {
		case "WRONGPASS":
			text = "the user or the password of redis.url is wrong"
		case "NOAUTH":
			text = "the server wants a password: redis://user:password@host:port/0"
		case "NOPERM":
			text = "the user may not do what is needed: SUBSCRIBE, PUBLISH and PING on channels that begin with redis.prefix"
		case "LOADING":
			text = "the server is still loading its data"
		}
	}
	_, dns := errors.AsType[*net.DNSError](err)
	network, _ := errors.AsType[net.Error](err)
	switch {
	case text != "":
	case dns:
		text = "the host of redis.url has no address"
	case errors.Is(err, syscall.ECONNREFUSED):
		text = "nobody listens at the address of redis.url"
	case errors.Is(err, context.DeadlineExceeded), network != nil && network.Timeout():
		text = "the server does not answer in time"
	case errors.Is(err, io.EOF):
		text = "the server closes the connection; with TLS the address begins with rediss://"
	default:
		return err
	}
	return fmt.Errorf("%s (%w)", text, err)
}
