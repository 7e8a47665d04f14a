package config

import (
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Bytes is a number of bytes, written as "512MiB" or "1.5GB".
type Bytes int64

// Binary multiples.
const (
	KiB Bytes = 1 << 10
	MiB Bytes = 1 << 20
	GiB Bytes = 1 << 30
	TiB Bytes = 1 << 40
)

// byteUnits are the units that ParseBytes reads; the binary ones, largest first, are what
// String writes.
var byteUnits = []struct {
	name string
	size Bytes
}{
	{"TiB", TiB}, {"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1},
}

// ParseBytes reads a number with an optional unit: B, KB, MB, GB, TB are powers of
// 1000, KiB to TiB of 1024. A fraction is allowed with a unit.
func ParseBytes(s string) (Bytes, error) {
	s = strings.TrimSpace(s)
	size := Bytes(1)
	for _, u := range byteUnits {
		if number, ok := strings.CutSuffix(s, u.name); ok {
			s, size = strings.TrimSpace(number), u.size
			break
		}
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if n > math.MaxInt64/int64(size) || n < math.MinInt64/int64(size) {
			return 0, fmt.Errorf("%s is too large", s)
		}
		return Bytes(n) * size, nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || size == 1 || math.IsNaN(f) || math.Abs(f) > float64(math.MaxInt64/2)/float64(size) {
		return 0, fmt.Errorf("%q is not a size such as 512MiB", s)
	}
	return Bytes(f * float64(size)), nil
}

// String writes the number with the largest unit that divides it.
func (b Bytes) String() string {
	for _, u := range byteUnits[:4] {
		if b != 0 && b%u.size == 0 {
			return strconv.FormatInt(int64(b/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Secret is a value that is not printed.
type Secret string

// Reveal returns the value itself.
func (s Secret) Reveal() string { return string(s) }

// String returns what may be shown: whether there is a value.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "(set, not shown)"
}

// GoString keeps %#v from showing the value.
func (s Secret) GoString() string { return s.String() }

// LogValue keeps log/slog from showing the value.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText keeps JSON from showing the value.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// parseValue converts what a layer holds, a string or a value of YAML, to the type of a field.
func parseValue(t reflect.Type, raw any) (any, error) {
	if t == reflect.TypeFor[[]string]() {
		return parseList(raw)
	}
	text, err := scalar(raw)
	if err != nil {
		return nil, err
	}
	switch t {
	case reflect.TypeFor[string]():
		return text, nil
	case reflect.TypeFor[Secret]():
		return Secret(text), nil
	case reflect.TypeFor[Bytes]():
		return ParseBytes(text)
	case reflect.TypeFor[time.Duration]():
		d, err := time.ParseDuration(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not a duration such as 500ms, 10s or 24h", text)
		}
		return d, nil
	case reflect.TypeFor[int]():
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not a whole number", text)
		}
		return n, nil
	case reflect.TypeFor[bool]():
		switch text {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return nil, fmt.Errorf("%q is not true or false", text)
	}
	panic("config: no parser for fields of type " + t.String())
}

func scalar(raw any) (string, error) {
	switch v := raw.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case bool, int, int64, uint64, float64:
		return fmt.Sprint(v), nil
	}
	return "", fmt.Errorf("wants one value, not a %s", yamlKind(raw))
}

// parseList reads a list of YAML, or one string with commas.
func parseList(raw any) ([]string, error) {
	items, ok := raw.([]any)
	if !ok {
		text, err := scalar(raw)
		if err != nil {
			return nil, err
		}
		for part := range strings.SplitSeq(text, ",") {
			items = append(items, part)
		}
	}
	list := []string{}
	for _, item := range items {
		text, err := scalar(item)
		if err != nil {
			return nil, err
		}
		if text = strings.TrimSpace(text); text != "" {
			list = append(list, text)
		}
	}
	return list, nil
}

func yamlKind(raw any) string {
	switch raw.(type) {
	case []any:
		return "list"
	case map[string]any:
		return "section"
	}
	return fmt.Sprintf("%T", raw)
}

// formatValue writes a value of a field the way that parseValue reads it; secrets
// are not shown.
func formatValue(v any) string {
	if list, ok := v.([]string); ok {
		return strings.Join(list, ",")
	}
	if d, ok := v.(time.Duration); ok {
		return durationText(d)
	}
	return fmt.Sprint(v)
}

// durationText writes 168h for what time.Duration writes as 168h0m0s.
func durationText(d time.Duration) string {
	s := d.String()
	if t, ok := strings.CutSuffix(s, "m0s"); ok {
		s = t + "m"
	}
	if t, ok := strings.CutSuffix(s, "h0m"); ok {
		s = t + "h"
	}
	return s
}
