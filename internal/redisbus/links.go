package redisbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/linkcache"
)

// Links keeps the entries of a link cache. It implements linkcache.Remote.
//
//	PREFIX:{INSTANCE}:2:links        hash: e the epoch, w the position, f the position behind which changes are forgotten,
//	                                 and the version of every link that has changed since then, by number
//	PREFIX:{INSTANCE}:2:link:NUMBER  the epoch, the version, the signature, the link
//	PREFIX:{INSTANCE}:2:name:NAME    the number of a link
//
// The 2 is linksFormat.
//
// A signature is over the number, the epoch, the version and the link, so nobody who writes to the server sends visitors where no link has
// led. What is not signed costs reads of the store, or has an earlier version of a link served: positions, names, and which
// of the versions that a node has signed is there.
//
// Numbers, versions and positions are 16 hexadecimal digits, so that they compare as text. What belongs together is in one
// key: if the server evicts it, everything is gone, and nothing is half known.
type Links struct {
	conn
	state, link, name string // keys, and what they begin with
	seal              sealer
	bad               *refusals
}

// LinksOptions configure a Links. Every field is required.
type LinksOptions struct {
	Options
	// Secret is what all nodes of the instance know, and nobody else: entries are signed with what follows from it.
	Secret []byte
	Log    *slog.Logger
}

// NewLinks reads the options; nothing is connected before State.
func NewLinks(o LinksOptions) (*Links, error) {
	option, err := clientOption(o.URL)
	if err != nil {
		return nil, err
	}
	option.AlwaysPipelining = true                                  // else the deadline of a command that is sent alone closes the connection, which all share
	base := o.Prefix + ":{" + o.Instance + "}:" + linksFormat + ":" // in a cluster all of it is at one node
	seal, err := sealerFor(o.Secret, linksLabel+base)
	if err != nil {
		return nil, err
	}
	return &Links{
		conn: newConn(option), state: base + "links", link: base + "link:", name: base + "name:", seal: seal,
		bad: refusalsOf(o.Log, "the link cache", prometheus.CounterOpts{
			Name: "terse_link_cache_refused_total", Help: "Entries of the link cache that no node of this instance has signed; the store was asked.",
		}, sealedLink),
	}, nil
}

// Refused counts what was not signed by a node.
func (l *Links) Refused() prometheus.Collector { return l.bad.count }

const (
	// linksFormat grows with everything that an older process would lose of a link or misread: it would keep a link without the
	// fields that it does not know, under the same version. Formats know nothing of each other.
	linksFormat = "2"
	// linksLabel tells the key from others that follow from the same secret.
	linksLabel = "terse links 1 "
	sealedLink = "link"
	// stateFor is how long a state lives that nobody keeps up to date: well below the day for which stores remember changes.
	stateFor = 12 * time.Hour
	// maxNoted is how many changed links the state remembers, at some 80 bytes each.
	maxNoted = 10_000
	// epochBytes and versionBytes begin an entry, headBytes are all before the link.
	epochBytes, versionBytes = 16, 16
	headBytes                = epochBytes + versionBytes + macSize
)

var (
	// putScript keeps a link. KEYS: state, entry, name or none. ARGV: epoch, position before the link was read, version, number,
	// entry, milliseconds.
	putScript = rueidis.NewLuaScript(`
local s = redis.call('HMGET', KEYS[1], 'e', 'f', ARGV[4])
if s[1] ~= ARGV[1] or ARGV[2] < s[2] then return 0 end
if s[3] and s[3] > ARGV[3] then return 0 end
local have = redis.call('GETRANGE', KEYS[2], 0, 31)
if string.sub(have, 1, 16) == ARGV[1] and string.sub(have, 17) > ARGV[3] then return 0 end
redis.call('SET', KEYS[2], ARGV[5], 'PX', ARGV[6])
if KEYS[3] then redis.call('SET', KEYS[3], ARGV[4], 'PX', ARGV[6]) end
return 1`)
	// applyScript drops what has changed. KEYS: state, entries. ARGV: epoch, from, to, milliseconds that the state lives, how many
	// changes it remembers, then number and version for each entry. Entries go first: a full server may refuse the rest.
	applyScript = rueidis.NewLuaScript(`
local s = redis.call('HMGET', KEYS[1], 'e', 'w')
if s[1] ~= ARGV[1] then return 0 end
for i = 2, #KEYS do
  local have = redis.call('GETRANGE', KEYS[i], 16, 31)
  if have ~= '' and have < ARGV[2*i+3] then redis.call('DEL', KEYS[i]) end
end
for i = 2, #KEYS do
  local noted = redis.call('HGET', KEYS[1], ARGV[2*i+2])
  if not noted or noted < ARGV[2*i+3] then redis.call('HSET', KEYS[1], ARGV[2*i+2], ARGV[2*i+3]) end
end
local w = s[2]
if ARGV[2] <= w and w < ARGV[3] then
  w = ARGV[3]
  redis.call('HSET', KEYS[1], 'w', w)
end
if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[5]) then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'e', ARGV[1], 'w', w, 'f', w)
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1`)
	// beginScript makes a new state. KEYS: state. ARGV: the epoch that it replaces, epoch, position, milliseconds that it lives.
	beginScript = rueidis.NewLuaScript(`
if (redis.call('HGET', KEYS[1], 'e') or '') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'e', ARGV[2], 'w', ARGV[3], 'f', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1`)
)

func hex(n uint64) string { return fmt.Sprintf("%016x", n) }

func number(n terse.LinkNumber) string { return hex(uint64(n)) }

// Get implements linkcache.Remote.
func (l *Links) Get(ctx context.Context, n terse.LinkNumber) (linkcache.State, []byte, bool, error) {
	return l.get(ctx, number(n))
}

// GetNamed implements linkcache.Remote. A name is a hint: whoever asks looks whether the link has it.
func (l *Links) GetNamed(ctx context.Context, named []byte) (linkcache.State, []byte, bool, error) {
	c, err := l.connected()
	if err != nil {
		return linkcache.State{}, nil, false, err
	}
	n, err := c.Do(ctx, c.B().Get().Key(l.name+string(named)).Build()).ToString()
	if err != nil && !rueidis.IsRedisNil(err) {
		return linkcache.State{}, nil, false, fmt.Errorf("get a name: %w", err)
	}
	return l.get(ctx, n)
}

// get reads the state and then the entry of a number, none for "".
func (l *Links) get(ctx context.Context, n string) (linkcache.State, []byte, bool, error) {
	c, err := l.connected()
	if err != nil {
		return linkcache.State{}, nil, false, err
	}
	cmds := rueidis.Commands{c.B().Hmget().Key(l.state).Field("e", "w").Build()}
	if n != "" {
		cmds = append(cmds, c.B().Get().Key(l.link+n).Build())
	}
	got := c.DoMulti(ctx, cmds...)
	st, ok, err := stateOf(got[0])
	if err != nil || !ok || n == "" {
		return st, nil, ok, err
	}
	b, err := got[1].AsBytes()
	switch {
	case rueidis.IsRedisNil(err):
		return st, nil, true, nil
	case err != nil:
		return st, nil, false, fmt.Errorf("get a link: %w", err)
	case len(b) < headBytes || string(b[:epochBytes]) != st.Epoch:
		return st, nil, true, nil
	}
	head, mac, link := b[:epochBytes+versionBytes], b[epochBytes+versionBytes:headBytes], b[headBytes:]
	if !l.seal.verify(rueidis.BinaryString(mac), sealedLink, n, rueidis.BinaryString(head), rueidis.BinaryString(link)) {
		l.bad.add(sealedLink)
		return st, nil, true, nil
	}
	return st, link, true, nil
}

// entry returns what is kept of a link.
func (l *Links) entry(n, epoch, version string, link []byte) string {
	head := epoch + version
	return head + l.seal.sign(sealedLink, n, head, rueidis.BinaryString(link)) + rueidis.BinaryString(link)
}

func stateOf(r rueidis.RedisResult) (st linkcache.State, ok bool, err error) {
	list, err := r.ToArray()
	if err != nil {
		return st, false, fmt.Errorf("get the state: %w", err)
	}
	if len(list) != 2 || list[0].IsNil() || list[1].IsNil() {
		return st, false, nil
	}
	var at string
	if st.Epoch, err = list[0].ToString(); err == nil {
		at, err = list[1].ToString()
	}
	if err == nil {
		st.Position, err = strconv.ParseUint(at, 16, 64)
	}
	if err != nil || len(st.Epoch) != epochBytes {
		return st, false, errors.Join(errState, err)
	}
	return st, true, nil
}

var errState = &terse.Error{Code: terse.CodeUnavailable, Message: "what redis holds is not the state of a link cache"}

// State implements linkcache.Remote.
func (l *Links) State(ctx context.Context) (linkcache.State, bool, error) {
	c, err := l.connect()
	if err != nil {
		return linkcache.State{}, false, err
	}
	return stateOf(c.Do(ctx, c.B().Hmget().Key(l.state).Field("e", "w").Build()))
}

// Begin implements linkcache.Remote.
func (l *Links) Begin(ctx context.Context, old string, st linkcache.State) error {
	c, err := l.connected()
	if err != nil {
		return err
	}
	return beginScript.Exec(ctx, c, []string{l.state}, []string{old, st.Epoch, hex(st.Position), milliseconds(stateFor)}).Error()
}

// Put implements linkcache.Remote.
func (l *Links) Put(ctx context.Context, epoch string, entries []linkcache.Entry) (took int, err error) {
	c, err := l.connected()
	if err != nil {
		return 0, err
	}
	calls := make([]rueidis.LuaExec, len(entries))
	for i := range entries {
		e := &entries[i]
		n, version := number(e.Number), hex(e.Version)
		keys := []string{l.state, l.link + n}
		if e.Named != nil {
			keys = append(keys, l.name+string(e.Named))
		}
		calls[i] = rueidis.LuaExec{Keys: keys, Args: []string{epoch, hex(e.Read), version, n, l.entry(n, epoch, version, e.Link), milliseconds(e.For)}}
	}
	for _, r := range putScript.ExecMulti(ctx, c, calls...) {
		kept, callErr := r.AsInt64()
		took, err = took+int(kept), errors.Join(err, callErr)
	}
	return took, err
}

// Apply implements linkcache.Remote.
func (l *Links) Apply(ctx context.Context, epoch string, changed []linkcache.Changed, from, to uint64) error {
	c, err := l.connected()
	if err != nil {
		return err
	}
	keys := append(make([]string, 0, 1+len(changed)), l.state)
	args := append(make([]string, 0, 5+2*len(changed)), epoch, hex(from), hex(to), milliseconds(stateFor), strconv.Itoa(maxNoted))
	for _, ch := range changed {
		n := number(ch.Number)
		keys, args = append(keys, l.link+n), append(args, n, hex(ch.Version))
	}
	return applyScript.Exec(ctx, c, keys, args).Error()
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
