package config

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// EnvPrefix starts the name of every variable of the environment.
const EnvPrefix = "TERSE_"

// fileSuffix ends the key that names a file with the value of a secret.
const fileSuffix = "_file"

// Field describes one key of Config.
type Field struct {
	Key    string   // "cache.bytes"
	Doc    string   // one sentence
	OneOf  []string // accepted values; nil: any
	Min    string   // least accepted value, "" if there is none
	Max    string   // largest accepted value, "" if there is none
	Show   string   // the default in words, "" if it is the same everywhere
	Secret bool     // its value is not shown, and Key + "_file" names a file with it

	index []int
	typ   reflect.Type
}

// Env is the variable of the environment for the key: "TERSE_CACHE_BYTES".
func (f *Field) Env() string { return EnvPrefix + strings.ToUpper(strings.ReplaceAll(f.Key, ".", "_")) }

// Flag is the flag of "terse serve" for the key, without dashes: "cache-bytes".
func (f *Field) Flag() string { return strings.NewReplacer(".", "-", "_", "-").Replace(f.Key) }

// Type names what the value is, for people.
func (f *Field) Type() string {
	switch f.typ {
	case reflect.TypeFor[Bytes]():
		return "size"
	case reflect.TypeFor[time.Duration]():
		return "duration"
	case reflect.TypeFor[int]():
		return "number"
	case reflect.TypeFor[bool]():
		return "true or false"
	case reflect.TypeFor[[]string]():
		return "list"
	case reflect.TypeFor[Secret]():
		return "secret"
	}
	return "text"
}

func (f *Field) get(c *Config) any {
	return reflect.ValueOf(c).Elem().FieldByIndex(f.index).Interface()
}
func (f *Field) set(c *Config, v any) {
	reflect.ValueOf(c).Elem().FieldByIndex(f.index).Set(reflect.ValueOf(v))
}

// file returns the field that names the file with the value of a secret.
func (f *Field) file() Field {
	return Field{
		Key: f.Key + fileSuffix,
		Doc: "File that holds " + f.Key + "; a line break at its end does not count.",
		typ: reflect.TypeFor[string](),
	}
}

// Fields returns every key in the order of the struct, the _file twins of
// secrets included. The result is the caller's.
func Fields() []Field { return appendFields(nil, reflect.TypeFor[Config](), "", nil) }

func appendFields(dst []Field, t reflect.Type, prefix string, index []int) []Field {
	for i := range t.NumField() {
		sf := t.Field(i)
		key := prefix + sf.Tag.Get("key")
		at := append(index[:len(index):len(index)], i)
		if sf.Type.Kind() == reflect.Struct {
			dst = appendFields(dst, sf.Type, key+".", at)
			continue
		}
		f := Field{
			Key:    key,
			Doc:    sf.Tag.Get("doc"),
			Show:   sf.Tag.Get("show"),
			Secret: sf.Type == reflect.TypeFor[Secret](),
			index:  at,
			typ:    sf.Type,
		}
		if s := sf.Tag.Get("oneof"); s != "" {
			f.OneOf = strings.Split(s, ",")
		}
		f.Min, f.Max, _ = strings.Cut(sf.Tag.Get("range"), "..")
		dst = append(dst, f)
		if f.Secret {
			dst = append(dst, f.file())
		}
	}
	return dst
}

// number returns a value of an ordered field as an integer for comparison.
func number(v any) (int64, bool) {
	switch v := v.(type) {
	case Bytes:
		return int64(v), true
	case time.Duration:
		return int64(v), true
	case int:
		return int64(v), true
	}
	return 0, false
}

// nearest returns the known name that s most likely meant, or "".
func nearest(s string, known []string) string {
	best, bestDistance := "", len(s)/3+2
	for _, k := range known {
		if d := distance(s, k); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// distance is the edit distance of Levenshtein, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}

func unknown(what, name string, known []string) string {
	if len(name) > 80 {
		name = name[:80] + "…"
	}
	msg := fmt.Sprintf("there is no %s %q", what, name)
	if n := nearest(name, known); n != "" {
		msg += fmt.Sprintf("; did you mean %q?", n)
	}
	return msg
}
