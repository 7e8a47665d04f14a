package geo

import (
	"errors"
	"net/netip"
	"strings"
	"time"
)

// Kind is what one of the operator's databases is for.
type Kind string

// The kinds. A city database may know countries alone.
const (
	KindCity Kind = "city"
	KindASN  Kind = "asn"
)

// Info describes a database that was read and checked whole.
type Info struct {
	Type  string // as it calls itself, such as GeoLite2-City
	Built time.Time
	Bytes int64
	Nodes uint // of its tree: a measure of how much it knows
}

// EmbeddedInfo describes the database of the binary.
func EmbeddedInfo() Info {
	return Embedded().country.info(int64(len(embedded)))
}

// Inspect reads a file as a server does, and refuses one of another kind: a city database wants
// countries, one of networks their numbers. maxBytes 0 is the limit of a server.
func Inspect(path string, kind Kind, maxBytes int64) (Info, error) {
	if maxBytes <= 0 {
		maxBytes = MaxBytes
	}
	f, err := readFile(path, maxBytes)
	if err != nil {
		return Info{}, err
	}
	switch countries, networks := f.knows(); {
	case kind == KindCity && !countries:
		return Info{}, errors.New("it knows networks and no countries: is it of the kind asn?")
	case kind == KindASN && !networks:
		return Info{}, errors.New("it knows countries and no networks: is it of the kind city?")
	}
	return f.info(f.size), nil
}

func (s *source) info(size int64) Info {
	m := s.reader.Metadata
	return Info{Type: m.DatabaseType, Built: m.BuildTime().UTC(), Bytes: size, Nodes: m.NodeCount}
}

// sane refuses well-formed databases of something else, and empty ones.
func (s *source) sane() error {
	if countries, networks := s.knows(); !countries && !networks {
		return errors.New("it knows neither country nor network of well-known addresses")
	}
	return nil
}

// knows reports what is known of at least one of a few addresses that have been in use for decades.
func (s *source) knows() (countries, networks bool) {
	for _, ip := range []string{"8.8.8.8", "1.1.1.1", "193.0.6.139", "81.2.69.142", "2.125.160.216", "2001:4860:4860::8888"} {
		if s.reader.Metadata.IPVersion == 4 && strings.Contains(ip, ":") {
			continue
		}
		p := s.lookup(netip.MustParseAddr(ip))
		countries, networks = countries || p.Country != "", networks || p.ASN != 0
	}
	return countries, networks
}

// halved refuses a successor that knows less than half of what the last one did: it was cut
// where it was made.
func halved(next, last uint) bool { return next < last/2 }
