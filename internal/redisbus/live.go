package redisbus

import (
	"context"
	"log/slog"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/client_golang/prometheus"
)

// LiveOptions configure a Live. Every field is required.
type LiveOptions struct {
	Options
	// Secret is what all nodes of the instance know, and nobody else: letters are signed with what follows from it.
	Secret []byte
	Log    *slog.Logger
}

// Live carries the letters of package live, compressed and signed, as a Bus does on a channel of its own. Unlike a change, which
// every node reads from the store, what a letter says is shown as it is. It implements live.Transport.
type Live struct {
	bus  *Bus
	seal sealer
	bad  *refusals
}

const (
	// liveLabel tells the key from others that follow from the same secret.
	liveLabel = "terse live 1 "
	// liveFormat grows when an older process would misread a letter. Formats know nothing of each other.
	liveFormat = "1"
	// maxLetter bounds a letter. A hub makes them of some 40 KB.
	maxLetter = 4 << 20

	sealedLetter = "letter"
)

// NewLive reads the options; nothing is connected.
func NewLive(o LiveOptions) (*Live, error) {
	bus, err := New(o.Options)
	if err != nil {
		return nil, err
	}
	bus.channel = o.Prefix + ":" + o.Instance + ":" + liveFormat + ":live"
	seal, err := sealerFor(o.Secret, liveLabel+bus.channel)
	if err != nil {
		return nil, err
	}
	return &Live{bus: bus, seal: seal, bad: refusalsOf(o.Log, "live views", prometheus.CounterOpts{
		Name: "terse_live_letters_refused_total", Help: "Messages of live views that came through Redis and that no node of this instance has signed.",
	}, sealedLetter)}, nil
}

// Refused counts what was not signed by a node.
func (l *Live) Refused() prometheus.Collector { return l.bad.count }

// Close ends the connections.
func (l *Live) Close() { l.bus.Close() }

// Publish implements live.Transport.
func (l *Live) Publish(ctx context.Context, letter []byte) error {
	packed := pack(letter)
	return l.bus.Publish(ctx, []byte(l.seal.sign(sealedLetter, "", "", packed)+packed))
}

// Receive implements live.Transport.
func (l *Live) Receive(ctx context.Context, listening func(), got func([]byte)) error {
	return l.bus.Receive(ctx, listening, func(m []byte) {
		if letter, ok := l.open(m); ok {
			got(letter)
		}
	})
}

// open returns the letter in a message.
func (l *Live) open(m []byte) (letter []byte, ok bool) {
	if len(m) < macSize || !l.seal.verify(string(m[:macSize]), sealedLetter, "", "", string(m[macSize:])) {
		l.bad.add(sealedLetter)
		return nil, false
	}
	n, err := s2.DecodedLen(m[macSize:])
	if err == nil && n <= maxLetter {
		letter, err = s2.Decode(nil, m[macSize:])
	}
	return letter, err == nil && n <= maxLetter
}
