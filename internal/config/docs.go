package config

import (
	"fmt"
	"strings"
)

// docsMemory is the machine that the reference page shows defaults for; those that
// depend on memory are shown in words.
const docsMemory = int64(16 * GiB)

// Markdown returns docs/configuration.md.
func Markdown() string {
	var b strings.Builder
	b.WriteString(docsIntro)
	c := Default(docsMemory)
	section := ""
	table := func(title string) {
		fmt.Fprintf(&b, "\n## %s\n\n| key | default | accepted | meaning |\n|---|---|---|---|\n", title)
	}
	table("Server")
	for _, f := range Fields() {
		if s, _, nested := strings.Cut(f.Key, "."); nested && s != section {
			section = s
			table("`" + s + "`")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Key, f.defaultText(c), f.acceptedText(), escapeCell(f.Doc))
	}
	b.WriteString(docsEnd)
	return b.String()
}

func (f *Field) defaultText(c *Config) string {
	if f.Show != "" {
		return f.Show
	}
	if f.index == nil {
		return ""
	}
	if s := formatValue(f.get(c)); s != "" {
		return "`" + s + "`"
	}
	return ""
}

func (f *Field) acceptedText() string {
	switch {
	case f.OneOf != nil && f.Type() == "list":
		return "list of " + "`" + strings.Join(f.OneOf, "`, `") + "`"
	case f.OneOf != nil:
		return "`" + strings.Join(f.OneOf, "`, `") + "`"
	case f.Min != "":
		return fmt.Sprintf("%s, %s to %s", f.Type(), f.Min, f.Max)
	}
	return f.Type()
}

func escapeCell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

const docsIntro = `<!-- Generated from internal/config: go test ./internal/config -run TestMarkdown -update -->
# Configuration

` + "`terse serve`" + ` needs no configuration. What you do set comes from four layers, each of which overrides the one before:

1. the defaults below;
2. a YAML file, named by ` + "`--config`" + ` or ` + "`TERSE_CONFIG`" + `;
3. the environment: ` + "`cache.bytes`" + ` is ` + "`TERSE_CACHE_BYTES`" + `; lists are separated by commas, and a variable that is set to nothing is not set;
4. the flags of ` + "`terse serve`" + `: ` + "`cache.bytes`" + ` is ` + "`--cache-bytes`" + `.

A key that does not exist is an error in every layer, and so is a value that cannot work: the server does not start and says why.
` + "`terse config`" + ` takes the same file, environment and flags and prints every value with the layer it came from. It does not show secrets.

Sizes are written ` + "`512MiB`" + ` (powers of 1024) or ` + "`500MB`" + ` (powers of 1000), durations ` + "`500ms`, `10s`, `24h`" + `.
A secret has no flag, because flags show in the list of processes; give it in the environment or in a file.

` + "```yaml" + `
# terse.yaml
data: /var/lib/terse
redirect_addr: ":80"
log:
  format: json
trusted_proxies: [10.0.0.0/8]
cache:
  bytes: 4GiB
` + "```" + `
`

const docsEnd = `
## Variables of the command line

These name a server to talk to. ` + "`terse serve`" + ` does not read them.

| variable | meaning |
|---|---|
| ` + "`TERSE_SERVER`" + ` | URL of the control plane |
| ` + "`TERSE_KEY`" + ` | the key to use |
| ` + "`TERSE_WORKSPACE`" + ` | the workspace to act in, with an owner key |
| ` + "`TERSE_CONFIG`" + ` | file for ` + "`terse serve` and `terse config`" + ` |

Variables that Kubernetes sets for a service named ` + "`terse`" + ` (` + "`TERSE_PORT`, `TERSE_SERVICE_…`" + `) are passed over.
`
