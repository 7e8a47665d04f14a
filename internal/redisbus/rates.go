package redisbus

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/rueidis"

	"github.com/terselink/terse/internal/rate"
)

// Rates counts requests of clients for all nodes of an instance. It implements rate.Counter.
//
//	PREFIX:{INSTANCE}:1:rate:CLIENT  when everything that the client has asked is forgotten, microseconds since 1970 by the server's clock
//
// A key lives as long as it says anything: a client that asks nothing for a burst's worth of time is not there.
type Rates struct {
	conn
	base string
}

// ratesFormat grows when an older process would misread a key.
const ratesFormat = "1"

// takeScript is rate.Table.Take. KEYS: the client. ARGV: the interval in microseconds, the burst. It returns microseconds to wait.
// Nobody has asked for more than a burst: what says so was written by another clock, or with another limit.
var takeScript = rueidis.NewLuaScript(`
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local at = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local function keep() redis.call('SET', KEYS[1], string.format('%.0f', at), 'PX', math.ceil((at - now) / 1000)) end
if at > now + ARGV[1] * ARGV[2] then
  at = now + ARGV[1] * ARGV[2]
  keep()
end
at = at + ARGV[1]
local wait = at - now - ARGV[1] * ARGV[2]
if wait > 0 then return wait end
keep()
return 0`)

// NewRates reads the options and begins to connect.
func NewRates(o Options) (*Rates, error) {
	option, err := clientOption(o.URL)
	if err != nil {
		return nil, err
	}
	option.AlwaysPipelining = true // else the deadline of a command that is sent alone closes the connection, which all share
	r := &Rates{conn: newConn(option), base: o.Prefix + ":{" + o.Instance + "}:" + ratesFormat + ":rate:"}
	go r.dial()
	return r, nil
}

// dial connects if nobody does. What goes wrong is told to whoever counts next.
func (r *Rates) dial() { _, _ = r.connect() }

// Take implements rate.Counter.
func (r *Rates) Take(ctx context.Context, client string, l rate.Limit) (wait time.Duration, err error) {
	c, err := r.connected()
	if err != nil {
		go r.dial() // no request waits for that
		return 0, err
	}
	us, err := takeScript.Exec(ctx, c, []string{r.base + client}, []string{fmt.Sprint(l.Interval().Microseconds()), fmt.Sprint(l.Burst)}).AsInt64()
	if err != nil {
		return 0, fmt.Errorf("count a request: %w", err)
	}
	return time.Duration(us) * time.Microsecond, nil
}
