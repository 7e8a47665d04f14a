package config

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/terselink/terse"
)

// maxNodeName is the length of the longest name of a node in bytes.
const maxNodeName = 100

// Bounds of the owner key, in bytes.
const (
	minKey = 32
	maxKey = 128
)

// Validate returns one error of code invalid for every value that cannot work on
// a machine with that much memory, in bytes; none means that the configuration is sound.
func (c *Config) Validate(memory int64) []error {
	var problems []error
	refuse := func(key, format string, args ...any) {
		problems = append(problems, terse.Invalid(key, format, args...))
	}
	for _, f := range Fields() {
		if f.index != nil {
			c.checkField(&f, refuse)
		}
	}
	c.checkData(refuse)
	c.checkAddresses(refuse)
	if len(c.NodeName) > maxNodeName || strings.ContainsFunc(c.NodeName, func(r rune) bool { return !unicode.IsPrint(r) }) {
		refuse("node_name", "wants at most %d bytes of printable characters", maxNodeName)
	}
	c.checkNodeURL(refuse)
	c.checkProxies(refuse)
	c.checkMemory(memory, refuse)
	if n := len(c.BootstrapKey); n != 0 {
		printable := !strings.ContainsFunc(c.BootstrapKey.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' })
		if n < minKey || n > maxKey || !printable {
			refuse("bootstrap_key", "wants %d to %d printable ASCII characters without spaces; it has %d bytes", minKey, maxKey, n)
		}
	}
	if c.ShutdownTimeout <= c.Redirect.DrainWait {
		refuse("shutdown_timeout", "%v leaves no time after redirect.drain_wait of %v", c.ShutdownTimeout, c.Redirect.DrainWait)
	}
	c.checkStore(refuse)
	c.checkUpstream(refuse)
	c.checkRoles(refuse)
	c.checkRedis(refuse)
	c.checkAnalytics(refuse)
	c.checkOutbound(refuse)
	if c.Analytics.SweepLinks == 1 {
		refuse("analytics.sweep_links", "1 would make every click one of a scanner; 0 switches it off, 2 is the least")
	}
	c.checkBuckets(refuse)
	switch h := c.Redirect.CountryHeader; {
	case strings.Trim(strings.ToLower(h), "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		refuse("redirect.country_header", "%q is not the name of a header", h)
	case h != "" && len(c.TrustedProxies) == 0:
		refuse("redirect.country_header", "is set, but trusted_proxies is empty: nobody may tell it")
	}
	if _, err := c.Clicks.Hosting(); err != nil {
		refuse("clicks.hosting_asns", "%v", err)
	}
	if _, err := c.Analytics.Terms(); err != nil {
		refuse("analytics.retention", "%v", err)
	}
	c.checkGeo(refuse)
	return problems
}

type refuser = func(key, format string, args ...any)

// checkField holds a value against the limits in the tags of its field.
func (c *Config) checkField(f *Field, refuse refuser) {
	v := f.get(c)
	if n, ok := number(v); ok && f.Min != "" {
		if least := f.limit(f.Min); n < least {
			refuse(f.Key, "%v is too small; the least is %s", v, f.Min)
		}
		if most := f.limit(f.Max); n > most {
			refuse(f.Key, "%v is too large; the most is %s", v, f.Max)
		}
	}
	if f.OneOf == nil {
		return
	}
	list, ok := v.([]string)
	if !ok {
		list = []string{v.(string)}
	} else if len(list) == 0 {
		refuse(f.Key, "is empty; name some of %s", strings.Join(f.OneOf, ", "))
	}
	for i, s := range list {
		if !slices.Contains(f.OneOf, s) {
			refuse(f.Key, "%q is not one of %s", s, strings.Join(f.OneOf, ", "))
		} else if slices.Contains(list[:i], s) {
			refuse(f.Key, "names %q twice", s)
		}
	}
}

// limit reads a limit from the tag of a field, in the unit that number returns.
func (f *Field) limit(s string) int64 {
	v, err := parseValue(f.typ, s)
	if err != nil {
		panic(fmt.Errorf("config: range of %s: %w", f.Key, err))
	}
	n, _ := number(v)
	return n
}

func (c *Config) checkData(refuse refuser) {
	if strings.TrimSpace(c.Data) == "" {
		refuse("data", "is empty; name a folder")
		return
	}
	if filepath.Clean(c.Data) == string(filepath.Separator) {
		refuse("data", "the root of the file system is not a data folder")
		return
	}
	if info, err := os.Stat(c.Data); err == nil && !info.IsDir() {
		refuse("data", "%s is a file, not a folder", c.Data)
	}
}

func (c *Config) checkAddresses(refuse refuser) {
	redirect, ok1 := checkAddress("redirect_addr", c.RedirectAddr, refuse)
	control, ok2 := checkAddress("control_addr", c.ControlAddr, refuse)
	if !ok1 || !ok2 || redirect.port != control.port || redirect.port == 0 {
		return
	}
	if redirect.host == control.host || redirect.any() || control.any() {
		refuse("control_addr", "%s and redirect_addr %s share a port; what visitors reach and what administers it are never the same listener", c.ControlAddr, c.RedirectAddr)
	}
}

type address struct {
	host string
	port int
}

func (a address) any() bool {
	ip, err := netip.ParseAddr(a.host)
	return a.host == "" || err == nil && ip.IsUnspecified()
}

func checkAddress(key, s string, refuse refuser) (address, bool) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		refuse(key, "%q is not an address such as 127.0.0.1:8080 or :8080", s)
		return address{}, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		refuse(key, "%q is not a port from 0 to 65535", port)
		return address{}, false
	}
	if strings.ContainsAny(host, " /?#@") {
		refuse(key, "%q is not a host name or an IP address", host)
		return address{}, false
	}
	return address{host, int(n)}, true
}

func (c *Config) checkProxies(refuse refuser) {
	if c.Redirect.ProxyProtocol && len(c.TrustedProxies) == 0 {
		refuse("redirect.proxy_protocol", "no proxy is believed: name those that send the header in trusted_proxies")
	}
	for _, s := range c.TrustedProxies {
		if _, err := netip.ParseAddr(s); err == nil {
			continue
		}
		p, err := netip.ParsePrefix(s)
		switch {
		case err != nil:
			refuse("trusted_proxies", "%q is not an address or a network such as 10.0.0.0/8", s)
		case p.Bits() == 0:
			refuse("trusted_proxies", "%s is everybody, so every visitor could choose the address that is recorded; name your proxies", s)
		case p != p.Masked():
			refuse("trusted_proxies", "%s has bits set behind its mask; %s is probably meant", s, p.Masked())
		}
	}
}

// checkMemory refuses budgets that together pass what the machine has: the kernel
// would end the process under load, long after the start.
func (c *Config) checkMemory(memory int64, refuse refuser) {
	total := c.Cache.Bytes
	what := "cache.bytes"
	if c.Store.Engine == EnginePebble {
		total += c.Store.CacheBytes
		what += " + store.cache_bytes"
	}
	if c.Clicks.Enabled {
		total += c.Clicks.BufferBytes
		what += " + clicks.buffer_bytes"
	}
	if c.Analytics.Enabled && c.Analytics.Engine == EngineDuckDB {
		total += c.Analytics.MemoryLimit
		what += " + analytics.memory_limit"
	}
	if limit := Bytes(memory / 10 * 9); total > limit {
		refuse("cache.bytes", "%s add up to %v, more than 9/10 of the memory of this machine (%v)", what, rounded(total), rounded(Bytes(memory)))
	}
}

// rounded drops what is below a MiB, for messages.
func rounded(b Bytes) Bytes { return b / MiB * MiB }

// Hosting reads the entries of clicks.hosting_asns. Returns an error that names the entry.
func (c *Clicks) Hosting() (list []uint32, err error) {
	for _, s := range c.HostingASNs {
		digits := s
		if len(s) > 2 && strings.EqualFold(s[:2], "AS") {
			digits = s[2:]
		}
		n, err := strconv.ParseUint(digits, 10, 32)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("%q is not the number of a network, such as AS64496", s)
		}
		list = append(list, uint32(n))
	}
	return list, nil
}

// WorkspaceTerms is an entry of analytics.retention.
type WorkspaceTerms struct {
	Workspace        terse.WorkspaceID
	RawDays, BotDays int
}

// Terms reads the entries of analytics.retention. Returns an error that names the entry.
func (a Analytics) Terms() ([]WorkspaceTerms, error) {
	list := make([]WorkspaceTerms, 0, len(a.Retention))
	for _, entry := range a.Retention {
		id, days, ok := strings.Cut(entry, "=")
		raw, bots, two := strings.Cut(days, "/")
		t := WorkspaceTerms{}
		var err, err1, err2 error
		t.Workspace, err = terse.ParseWorkspaceID(id)
		t.RawDays, err1 = strconv.Atoi(raw)
		if two {
			t.BotDays, err2 = strconv.Atoi(bots)
		}
		if !ok || err != nil || err1 != nil || err2 != nil || t.RawDays < 0 || t.BotDays < 0 {
			return nil, fmt.Errorf("%q is not ID=RAW_DAYS or ID=RAW_DAYS/BOT_DAYS", entry)
		}
		list = append(list, t)
	}
	return list, nil
}

func checkFile(key, path string, refuse refuser) {
	if path == "" {
		return
	}
	if info, err := os.Stat(path); err != nil {
		refuse(key, "%v", err)
	} else if !info.Mode().IsRegular() {
		refuse(key, "%s is not a regular file", path)
	}
}
