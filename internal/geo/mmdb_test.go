package geo

import (
	"encoding/binary"
	"maps"
	"slices"
)

// smallDB returns a MaxMind DB (https://maxmind.github.io/MaxMind-DB/) of IPv4
// in which 0.0.0.0/1 has one record and the other half none.
func smallDB(kind string, record map[string]any) []byte {
	const nodes = 1
	b := make([]byte, 6) // one node of two records of 24 bits
	put24(b, nodes+16)   // data section, offset 0
	put24(b[3:], nodes)  // nothing
	b = append(b, make([]byte, 16)...)
	b = appendValue(b, record)
	b = append(b, "\xab\xcd\xefMaxMind.com"...)
	return appendValue(b, map[string]any{
		"binary_format_major_version": uint16(2), "binary_format_minor_version": uint16(0),
		"build_epoch": uint64(1_700_000_000), "database_type": "Test-" + kind, "description": map[string]any{"en": kind},
		"ip_version": uint16(4), "languages": []any{"en"}, "node_count": uint32(nodes), "record_size": uint16(24),
	})
}

func cityRecord(country, region, city string) map[string]any {
	return map[string]any{
		"country":      map[string]any{"iso_code": country},
		"subdivisions": []any{map[string]any{"iso_code": region, "names": map[string]any{"en": region}}},
		"city":         map[string]any{"names": map[string]any{"en": city, "de": city + "!"}},
	}
}

func put24(b []byte, v uint32) { b[0], b[1], b[2] = byte(v>>16), byte(v>>8), byte(v) }

// appendValue encodes the few types of the tests; all are below 29 bytes or entries.
func appendValue(b []byte, v any) []byte {
	number := func(kind byte, extended bool, v uint64, size int) []byte {
		var full [8]byte
		binary.BigEndian.PutUint64(full[:], v)
		if extended {
			b = append(b, byte(size), kind-7)
		} else {
			b = append(b, kind<<5|byte(size))
		}
		return append(b, full[8-size:]...)
	}
	switch v := v.(type) {
	case string:
		return append(append(b, 2<<5|byte(len(v))), v...)
	case uint16:
		return number(5, false, uint64(v), 2)
	case uint32:
		return number(6, false, uint64(v), 4)
	case uint64:
		return number(9, true, v, 8)
	case []any:
		b = append(b, byte(len(v)), 11-7)
		for _, e := range v {
			b = appendValue(b, e)
		}
		return b
	case map[string]any:
		b = append(b, 7<<5|byte(len(v)))
		for _, k := range slices.Sorted(maps.Keys(v)) {
			b = appendValue(appendValue(b, k), v[k])
		}
		return b
	}
	panic("type not used in the tests")
}
