package redisbus

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/rueidis"
)

// Needs are the parts that a node uses beside the messages between nodes.
type Needs struct {
	Jobs, LinkCache, ClickStreams, Rates bool
}

// Lack is a part that a user of the server may not use.
type Lack struct {
	Part string // jobs, link cache, click streams, rates of keys
	Text string // which rights are missing; "": none
}

// trial is a command as CheckRights sends it: in a form that changes nothing, whoever may send it.
type trial struct {
	words string   // of the command, as rights are named
	keys  int      // of the words that follow it: so many keys
	args  []string // behind the keys, or in front of them for XREADGROUP
}

// Forms that change nothing: the key is one that there never is, an argument is none, or the server is told to make nothing.
var (
	xadd       = trial{"XADD", 1, []string{"NOMKSTREAM", "*", "f", "v"}}
	xgroup     = trial{"XGROUP CREATE", 1, []string{"g", "0"}} // without MKSTREAM
	xack       = trial{"XACK", 1, []string{"g", "1-1"}}
	xdel       = trial{"XDEL", 1, []string{"1-1"}}
	xpending   = trial{"XPENDING", 1, []string{"g", "-", "+", "1"}}
	xclaim     = trial{"XCLAIM", 1, []string{"g", "c", "0", "1-1"}}
	xreadgroup = trial{"XREADGROUP", 1, []string{"GROUP", "g", "c", "COUNT", "1", "STREAMS"}}
	expire     = trial{"EXPIRE", 1, []string{"1"}}
	del        = trial{"DEL", 1, nil}
	hset       = trial{"HSET", 1, []string{"f", "v", "f"}} // a value is missing
	hget       = trial{"HGET", 1, []string{"f"}}
	multi      = trial{"MULTI", 0, nil}
)

// trials are the commands of each part.
var trials = map[string][]trial{
	"jobs": {
		xadd, xreadgroup, xgroup, {"XGROUP DELCONSUMER", 1, []string{"g", "c"}}, xack, xdel, xpending, xclaim, {"XAUTOCLAIM", 1, []string{"g", "c", "0", "0-0"}}, expire, del,
		{"BLPOP", 1, []string{"no number"}}, {"ZADD", 1, []string{"XX", "1", "m"}}, {"ZREM", 1, []string{"m"}},
		{"ZRANGEBYSCORE", 1, []string{"0", "1"}}, {"ZREMRANGEBYSCORE", 1, []string{"0", "1"}}, {"TIME", 0, nil}, multi,
	},
	"link cache": {
		{"GET", 1, nil}, {"HMGET", 1, []string{"f"}}, hget, hset, {"HLEN", 1, nil}, {"GETRANGE", 1, []string{"0", "1"}}, {"SET", 1, []string{"v", "XX"}},
		del, {"PEXPIRE", 1, []string{"1"}}, {"EVAL", 1, []string{"return 0"}}, {"EVALSHA", 1, []string{strings.Repeat("0", 40)}}, {"SCRIPT LOAD", 0, []string{"return 0"}},
	},
	"click streams": {
		xadd, xreadgroup, xgroup, xack, xdel, xpending, xclaim, {"XTRIM", 1, []string{"MINID", "1-1"}}, {"XRANGE", 1, []string{"-", "+"}}, {"XREVRANGE", 1, []string{"+", "-"}},
		{"XLEN", 1, nil}, {"XINFO GROUPS", 1, nil}, hset, hget,
	},
	"rates of keys": {
		{"GET", 1, nil}, {"SET", 1, []string{"v", "XX"}}, {"TIME", 0, nil}, {"EVAL", 1, []string{"return 0"}}, {"EVALSHA", 1, []string{strings.Repeat("0", 40)}},
	},
}

// CheckRights tries what a node sends for the parts that it uses, and changes nothing. It names what the user may not. The parts are in the
// order of Needs; those that are not needed are left out.
func CheckRights(ctx context.Context, o Options, n Needs) ([]Lack, error) {
	option, err := clientOption(o.URL)
	if err != nil {
		return nil, err
	}
	conn := newConn(option)
	defer conn.Close()
	c, err := conn.connect()
	if err != nil {
		return nil, inWords(err)
	}
	var list []Lack
	for _, part := range []struct {
		name string
		need bool
	}{{"jobs", n.Jobs}, {"link cache", n.LinkCache}, {"click streams", n.ClickStreams}, {"rates of keys", n.Rates}} {
		if !part.need {
			continue
		}
		text, err := try(ctx, c, fmt.Sprintf("%s:{%s:doctor}:nothing", o.Prefix, o.Instance), trials[part.name])
		if err != nil {
			return nil, inWords(err)
		}
		list = append(list, Lack{part.name, text})
	}
	return list, nil
}

// try sends commands about a key that there never is, and says which the user may not send.
func try(ctx context.Context, c rueidis.Client, key string, list []trial) (text string, err error) {
	var commands []string
	keys := false
	judge := func(words string, err error) error {
		switch code := refusal(err); {
		case code == "command" && !slices.Contains(commands, words):
			commands = append(commands, words)
		case code == "key":
			keys = true
		case err != nil && code == "" && !answered(err):
			return err
		}
		return nil
	}
	for _, t := range list {
		if t.words == "MULTI" {
			if err := c.Dedicated(func(d rueidis.DedicatedClient) error { return tryTransaction(ctx, d, key, judge) }); err != nil {
				return "", err
			}
			continue
		}
		call, cancel := context.WithTimeout(ctx, ioWithin)
		err := c.Do(call, t.build(c, key)).Error()
		cancel()
		if err := judge(t.words, err); err != nil {
			return "", err
		}
	}
	if len(commands) > 0 {
		text = "the user may not " + strings.Join(commands, ", ")
	}
	if keys {
		if text != "" {
			text += "; "
		}
		text += "the user may not use keys that begin with redis.prefix"
	}
	return text, nil
}

// tryTransaction tries what has no form that changes nothing within a transaction that is discarded.
func tryTransaction(ctx context.Context, d rueidis.DedicatedClient, key string, judge func(string, error) error) error {
	ctx, cancel := context.WithTimeout(ctx, ioWithin)
	defer cancel()
	begun := d.Do(ctx, d.B().Multi().Build()).Error()
	if err := judge("MULTI", begun); err != nil || begun != nil {
		return err
	}
	pushed := d.Do(ctx, d.B().Rpush().Key(key).Element("v").Build()).Error()
	if err := judge("RPUSH", pushed); err != nil {
		return err
	}
	if err := judge("DISCARD", d.Do(ctx, d.B().Discard().Build()).Error()); err != nil {
		return err
	}
	if err := d.Do(ctx, d.B().Multi().Build()).Error(); err != nil {
		return judge("MULTI", err)
	}
	return judge("EXEC", d.Do(ctx, d.B().Exec().Build()).Error()) // of nothing
}

func (t *trial) build(c rueidis.Client, key string) rueidis.Completed {
	words := strings.Fields(t.words)
	b := c.B().Arbitrary(words...)
	switch {
	case t.words == "XREADGROUP":
		return b.Args(t.args...).Keys(key).Args(">").Build()
	case strings.HasPrefix(t.words, "EVAL"):
		return b.Args(t.args[0], "1").Keys(key).Build()
	case t.keys > 0:
		b = b.Keys(key)
	}
	return b.Args(t.args...).Build()
}

// refusal says what the user lacks: the right to a command, a key or a channel; "": nothing.
func refusal(err error) string {
	rerr, ok := rueidis.IsRedisErr(err)
	if !ok || !strings.Contains(rerr.Error(), "NOPERM") { // of EXEC it is behind EXECABORT
		return ""
	}
	switch text := rerr.Error(); {
	case strings.Contains(text, "channel"):
		return "channel"
	case strings.Contains(text, "of the keys"), strings.Contains(text, "access a key"):
		return "key"
	}
	return "command"
}

// answered reports whether the server has answered, if only that there is no such thing.
func answered(err error) bool {
	_, ok := rueidis.IsRedisErr(err)
	return ok || rueidis.IsRedisNil(err)
}
