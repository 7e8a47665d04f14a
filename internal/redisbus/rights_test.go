package redisbus

import (
	"net/url"
	"strings"
	"testing"

	"github.com/terselink/terse/internal/testengine"
)

// TestCheckRights: a user with the rights of docs/redis.md lacks nothing; each right that is taken away is named, for the parts that need
// it alone, and nothing is left at the server.
func TestCheckRights(t *testing.T) {
	t.Parallel()
	redis := testengine.NewRedis(t)
	u, err := url.Parse(redis.URL)
	must(t, err)
	u.User = url.UserPassword("terse", "secret")
	o := Options{URL: u.String(), Prefix: "terse", Instance: "doctor"}
	user := func(rights ...string) {
		t.Helper()
		redis.Do(append([]string{"ACL", "SETUSER", "terse", "reset", "on", ">secret"}, rights...)...)
	}
	documented := strings.Fields("+@pubsub +@connection +role &terse:* +@stream +@list +@sortedset +@transaction +@hash +@scripting +get +set +getrange +expire +pexpire +del +time +info ~terse:*")
	all := Needs{Jobs: true, LinkCache: true, ClickStreams: true, Rates: true}
	ask := func() map[string]string {
		t.Helper()
		list, err := CheckRights(t.Context(), o, all)
		must(t, err)
		texts := map[string]string{}
		for _, l := range list {
			texts[l.Part] = l.Text
		}
		if len(texts) != 4 {
			t.Errorf("got %+v", list)
		}
		return texts
	}
	user(documented...)
	for part, text := range ask() {
		if text != "" {
			t.Errorf("%s with the rights of the manual: %s", part, text)
		}
	}
	for right, want := range map[string]string{
		"xadd": "jobs,click streams", "xreadgroup": "jobs,click streams", "xautoclaim": "jobs", "rpush": "jobs", "blpop": "jobs", "zadd": "jobs", "multi": "jobs", "exec": "jobs",
		"xtrim": "click streams", "xrange": "click streams", "hset": "link cache,click streams", "eval": "link cache,rates of keys", "evalsha": "link cache,rates of keys", "getrange": "link cache", "set": "link cache,rates of keys", "time": "jobs,rates of keys",
	} {
		user(append(documented, "-"+right)...)
		for part, text := range ask() {
			if named, needed := text == "the user may not "+strings.ToUpper(right), strings.Contains(want, part); named != needed || !needed && text != "" {
				t.Errorf("without %s, %s: %q", right, part, text)
			}
		}
	}
	user(append(documented, "resetkeys", "~other:*")...)
	for part, text := range ask() {
		if text != "the user may not use keys that begin with redis.prefix" {
			t.Errorf("%s with other keys: %q", part, text)
		}
	}
	if list, err := CheckRights(t.Context(), o, Needs{}); err != nil || len(list) != 0 {
		t.Errorf("nothing is needed: %+v, %v", list, err)
	}
	if n := redis.Do("DBSIZE"); strings.TrimSpace(n) != ":0" {
		t.Errorf("%v keys were left", n)
	}
	for _, right := range []string{"-subscribe", "-publish", "resetchannels"} {
		user(append(documented, right)...)
		if found, err := Check(t.Context(), o); err == nil || !strings.Contains(err.Error(), "SUBSCRIBE, PUBLISH and PING") {
			t.Errorf("%s: %q, %v", right, found, err)
		}
	}
	user(documented...)
	if found, err := Check(t.Context(), o); err != nil {
		t.Errorf("%q, %v", found, err)
	}
}
