// Package geo finds the country of an address: in a database that is part of
// the binary, and, if the operator has one, in files of their own that may also
// know region, city and network (ASN).
//
// It is not a geocoder: it returns codes and names as the files hold them, and
// "" for what they do not know, for private and for loopback addresses.
//
// Invariants: a lookup never fails and never blocks; a new file takes over only
// after it was read and checked whole, so a missing, cut, empty or foreign file
// leaves the last good one in place (see Reload).
package geo

import (
	_ "embed"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/oschwald/maxminddb-golang/v2"
)

// embedded is geo-whois-asn-country, CC0-1.0; see data/README.md and
// scripts/update-geo. Raw, because pages of a binary are read on demand: a
// compressed copy would cost start time and as much heap.
//
//go:embed data/country.mmdb
var embedded []byte

// Place is what is known about an address.
type Place struct {
	Country string // ISO 3166-1 alpha-2
	Region  string // ISO 3166-2, such as "DE-BE", or the name if the file has no code
	City    string // English name
	ASN     uint32 // of the network
}

// DB answers lookups. It is safe for concurrent use.
type DB struct {
	country *source              // embedded; never changes
	city    atomic.Pointer[file] // the operator's; nil: none
	asn     atomic.Pointer[file]
	opts    Options
	mu      sync.Mutex // of Reload
}

// source is one database in memory with a memo of decoded records, of which
// there are few: 250 countries, or the places of a city file.
type source struct {
	reader *maxminddb.Reader
	// memo is direct-mapped by the offset of the record, so it is bounded and
	// needs no lock; a record that shares a cell is decoded again.
	memo []atomic.Pointer[memoEntry]
}

type memoEntry struct {
	offset uintptr
	place  Place
}

const (
	countryMemo = 1 << 10
	placeMemo   = 1 << 16
)

// Embedded returns the database of the binary. It needs no file and cannot fail.
func Embedded() *DB {
	s, err := newSource(embedded, countryMemo)
	if err != nil {
		panic("geo: the embedded database is damaged: " + err.Error()) // a defect of the build, see TestEmbedded
	}
	return &DB{country: s}
}

func newSource(data []byte, memo int) (*source, error) {
	r, err := maxminddb.OpenBytes(data)
	if err != nil {
		return nil, err
	}
	return &source{reader: r, memo: make([]atomic.Pointer[memoEntry], memo)}, nil
}

// HasPlaces reports whether there is a database with more than countries.
func (db *DB) HasPlaces() bool { return db.city.Load() != nil || db.asn.Load() != nil }

// Country returns the ISO 3166-1 alpha-2 code of the country of an address, ""
// if it is not known.
//
// Hot path: 0 allocs/op, see TestLookupAllocs.
func (db *DB) Country(ip netip.Addr) string {
	ip = ip.Unmap()
	if !public(ip) {
		return ""
	}
	if f := db.city.Load(); f != nil {
		if p := f.lookup(ip); p.Country != "" {
			return p.Country
		}
	}
	return db.country.lookup(ip).Country
}

// Lookup sets *p to everything known about an address.
//
// Hot path: 0 allocs/op for records seen before, see TestLookupAllocs.
func (db *DB) Lookup(ip netip.Addr, p *Place) {
	*p = Place{}
	ip = ip.Unmap()
	if !public(ip) {
		return
	}
	if f := db.city.Load(); f != nil {
		*p = f.lookup(ip)
	}
	if f := db.asn.Load(); f != nil {
		if q := f.lookup(ip); q.ASN != 0 {
			p.ASN = q.ASN
		}
	}
	if p.Country == "" {
		p.Country = db.country.lookup(ip).Country
	}
}

// public reports whether an address belongs to a country at all.
func public(ip netip.Addr) bool {
	return ip.IsValid() && ip.IsGlobalUnicast() && !ip.IsPrivate()
}

func (s *source) lookup(ip netip.Addr) Place {
	res := s.reader.Lookup(ip)
	if !res.Found() {
		return Place{}
	}
	offset := res.Offset()
	// Records are a few bytes apart; the multiplication spreads them.
	cell := &s.memo[uint32(offset)*2654435761>>16&uint32(len(s.memo)-1)]
	if e := cell.Load(); e != nil && e.offset == offset {
		return e.place
	}
	var rec record
	if err := res.Decode(&rec); err != nil {
		return Place{} // a record of another layout
	}
	p := rec.place()
	cell.Store(&memoEntry{offset, p})
	return p
}

// record has the fields of the layouts in use: ip-location-db (flat), GeoLite2,
// DB-IP and their ASN files.
type record struct {
	CountryCode string `maxminddb:"country_code"`
	Country     struct {
		ISOCode string `maxminddb:"iso_code"`
	} `maxminddb:"country"`
	RegisteredCountry struct {
		ISOCode string `maxminddb:"iso_code"`
	} `maxminddb:"registered_country"`
	Subdivisions []struct {
		ISOCode string            `maxminddb:"iso_code"`
		Names   map[string]string `maxminddb:"names"`
	} `maxminddb:"subdivisions"`
	State1 string `maxminddb:"state1"`
	City   any    `maxminddb:"city"`
	ASN    uint32 `maxminddb:"autonomous_system_number"`
}

func (r *record) place() Place {
	p := Place{Country: r.CountryCode, Region: r.State1, ASN: r.ASN}
	for _, c := range []string{r.Country.ISOCode, r.RegisteredCountry.ISOCode} {
		if p.Country == "" {
			p.Country = c
		}
	}
	if len(p.Country) != 2 || p.Country == "ZZ" {
		p.Country = ""
	}
	if len(r.Subdivisions) > 0 {
		s := r.Subdivisions[0]
		switch {
		case s.ISOCode != "" && p.Country != "":
			p.Region = p.Country + "-" + s.ISOCode
		default:
			p.Region = s.Names["en"]
		}
	}
	switch c := r.City.(type) { // a name (ip-location-db) or names by language
	case string:
		p.City = c
	case map[string]any:
		if names, ok := c["names"].(map[string]any); ok {
			p.City, _ = names["en"].(string)
		}
	}
	return p
}
