package config

import (
	"errors"
	"io/fs"
	"net/url"
	"os"

	"github.com/terselink/terse"
)

func (c *Config) checkGeo(refuse refuser) {
	for _, g := range c.Geo.files() {
		checkFile(g.key, g.path, refuse)
		if g.url == "" {
			continue
		}
		u, err := url.Parse(g.url.Reveal())
		switch {
		case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http": // the error holds the URL
			refuse(g.urlKey, "is not an http or https URL")
		case u.Scheme == "http" && u.User != nil:
			refuse(g.urlKey, "sends a password without encryption; use https")
		case g.path == "":
			refuse(g.urlKey, "wants %s, the file to put it into", g.key)
		}
	}
}

type geoFile struct {
	key, path string
	urlKey    string
	url       Secret
}

func (g *Geo) files() []geoFile {
	return []geoFile{{"geo.city_mmdb", g.CityMMDB, "geo.city_url", g.CityURL}, {"geo.asn_mmdb", g.ASNMMDB, "geo.asn_url", g.ASNURL}}
}

// toCome reports whether err says no more than that a file is not there yet.
func (g *Geo) toCome(err error) bool {
	e, ok := errors.AsType[*terse.Error](err)
	for _, f := range g.files() {
		if ok && e.Field == f.key {
			_, err := os.Stat(f.path)
			return errors.Is(err, fs.ErrNotExist)
		}
	}
	return false
}
