package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/v2"

	"github.com/terselink/terse"
)

// maxFile is the largest configuration or secret file that is read, in bytes.
const maxFile = 1 << 20

// clientEnv are the variables that the command line reads and the server does not.
var clientEnv = []string{EnvPrefix + "SERVER", EnvPrefix + "KEY", EnvPrefix + "WORKSPACE", EnvPrefix + "CONFIG"}

// Sources are the layers above the defaults, in rising order.
type Sources struct {
	File    string            // path of a YAML file, "" for none
	Environ []string          // "NAME=value", as os.Environ returns; only TERSE_ names are read
	Flags   map[string]string // key -> value
	Memory  int64             // bytes of memory of the machine; 0: found out

	PlacesToCome bool // the files of geo need not be there yet
}

// Loaded is a configuration and where each value came from.
type Loaded struct {
	Config *Config
	origin map[string]string
}

// Load reads the layers and validates the result. Its error joins one
// *terse.Error of code invalid per problem, whose Field is the key.
func Load(s Sources) (*Loaded, error) {
	memory := s.Memory
	if memory == 0 {
		memory = systemMemory()
	}
	l := &Loaded{Config: Default(memory), origin: map[string]string{}}
	fields := Fields()
	var problems []error
	if s.File != "" {
		problems = append(problems, l.loadFile(fields, s.File)...)
	}
	problems = append(problems, l.loadEnv(fields, s.Environ)...)
	for _, key := range sortedKeys(s.Flags) {
		problems = append(problems, l.apply(fields, key, s.Flags[key], "flag --"+flagOf(fields, key))...)
	}
	if len(problems) == 0 {
		problems = l.Config.Validate(memory)
		if s.PlacesToCome {
			problems = slices.DeleteFunc(problems, func(err error) bool { return l.Config.Geo.toCome(err) })
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return l, nil
}

// Value is one key of a loaded configuration.
type Value struct {
	Key    string `json:"key"`
	Value  string `json:"value"` // secrets are not shown
	Source string `json:"source"`
}

// Values returns all keys in the order of the struct.
func (l *Loaded) Values() []Value {
	var values []Value
	for _, f := range Fields() {
		if f.index == nil {
			continue // the file of a secret shows as the source of the secret
		}
		source := l.origin[f.Key]
		if source == "" {
			source = "default"
		}
		values = append(values, Value{Key: f.Key, Value: formatValue(f.get(l.Config)), Source: source})
	}
	return values
}

func (l *Loaded) loadFile(fields []Field, path string) []error {
	data, err := readFile(path)
	if err != nil {
		return []error{&terse.Error{Code: terse.CodeInvalid, Field: "config", Message: err.Error()}}
	}
	return l.loadYAML(fields, path, data)
}

func (l *Loaded) loadYAML(fields []Field, path string, data []byte) []error {
	k := koanf.New(".")
	if err := k.Load(bytesProvider(data), yaml.Parser()); err != nil {
		return []error{&terse.Error{Code: terse.CodeInvalid, Field: "config", Message: fmt.Sprintf("%s is not a YAML file of keys and values: %v", path, err)}}
	}
	var problems []error
	for _, key := range k.Keys() {
		raw := k.Get(key)
		if isSection(fields, key) {
			if m, isMap := raw.(map[string]any); raw != nil && !(isMap && len(m) == 0) {
				problems = append(problems, terse.Invalid(key, "is a section, not a value (in %s)", path))
			}
			continue
		}
		problems = append(problems, l.apply(fields, key, raw, "file "+path)...)
	}
	return problems
}

// loadEnv reads the variables of the server. Kubernetes sets TERSE_PORT and
// TERSE_SERVICE_… in every container beside a service named terse; those are
// not ours and are passed over.
func (l *Loaded) loadEnv(fields []Field, environ []string) []error {
	keys, known := map[string]string{}, []string{}
	for i := range fields {
		keys[fields[i].Env()] = fields[i].Key
		known = append(known, fields[i].Env())
	}
	set := map[string]string{}
	provider := env.Provider("", env.Opt{
		Prefix:      EnvPrefix,
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			if value != "" { // compose files pass on what is not set as nothing
				set[name] = value
			}
			return name, value
		},
	})
	if _, err := provider.Read(); err != nil {
		return []error{fmt.Errorf("read the environment: %w", err)}
	}
	var problems []error
	for _, name := range sortedKeys(set) {
		key, ok := keys[name]
		switch {
		case ok:
			problems = append(problems, l.apply(fields, key, set[name], "environment "+name)...)
		case slices.Contains(clientEnv, name) || isKubernetes(name) || strings.HasPrefix(name, testPrefix):
		default:
			problems = append(problems, &terse.Error{Code: terse.CodeInvalid, Field: name, Message: unknown("variable", name, known)})
		}
	}
	return problems
}

// testPrefix begins the variables in which the project's own tests get the addresses of engines.
const testPrefix = EnvPrefix + "TEST_"

func isKubernetes(name string) bool {
	rest := strings.TrimPrefix(name, EnvPrefix)
	return rest == "PORT" || strings.HasPrefix(rest, "PORT_") || rest == "SERVICE_HOST" || strings.HasPrefix(rest, "SERVICE_PORT")
}

// apply sets one key from one layer.
func (l *Loaded) apply(fields []Field, key string, raw any, source string) []error {
	i := slices.IndexFunc(fields, func(f Field) bool { return f.Key == key })
	if i < 0 {
		known := make([]string, len(fields))
		for i := range fields {
			known[i] = fields[i].Key
		}
		return []error{terse.Invalid(key, "%s (in %s)", unknown("key", key, known), source)}
	}
	f := &fields[i]
	if f.index == nil { // the file of a secret
		path, err := scalar(raw)
		if err == nil && path == "" {
			return nil
		}
		var data []byte
		if err == nil {
			data, err = readFile(path)
		}
		if err != nil {
			return []error{terse.Invalid(key, "%v (in %s)", err, source)}
		}
		secret := &fields[i-1]
		if sameLayer(l.origin[secret.Key], source) {
			return []error{terse.Invalid(key, "set either %s or %s, not both (in %s)", secret.Key, key, source)}
		}
		secret.set(l.Config, Secret(strings.TrimRight(string(data), "\r\n")))
		l.origin[secret.Key] = source + ", file " + path
		return nil
	}
	v, err := parseValue(f.typ, raw)
	if err != nil {
		if f.Secret {
			err = errors.New("is not text")
		}
		return []error{terse.Invalid(key, "%v (in %s)", err, source)}
	}
	f.set(l.Config, v)
	l.origin[key] = source
	return nil
}

// sameLayer reports whether two sources are of the same kind: "environment A" and "environment B".
func sameLayer(a, b string) bool {
	kind, _, _ := strings.Cut(b, " ")
	return a != "" && strings.HasPrefix(a, kind+" ")
}

func isSection(fields []Field, key string) bool {
	return slices.ContainsFunc(fields, func(f Field) bool { return strings.HasPrefix(f.Key, key+".") })
}

func flagOf(fields []Field, key string) string {
	for i := range fields {
		if fields[i].Key == key {
			return fields[i].Flag()
		}
	}
	return key
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// readFile reads a small file. It need not be regular: a shell hands secrets over as /dev/fd/63.
func readFile(path string) ([]byte, error) {
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if info.IsDir() {
		return nil, fmt.Errorf("%s is a folder", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s is larger than 1 MiB", path)
	}
	return data, nil
}

// bytesProvider is a koanf provider of bytes in memory.
type bytesProvider []byte

// ReadBytes implements koanf.Provider.
func (b bytesProvider) ReadBytes() ([]byte, error) { return b, nil }

// Read implements koanf.Provider; koanf calls it only without a parser.
func (b bytesProvider) Read() (map[string]any, error) {
	return nil, errors.New("no parser for configuration bytes")
}

var _ koanf.Provider = bytesProvider(nil)
