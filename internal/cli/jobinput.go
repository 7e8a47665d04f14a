package cli

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/terselink/terse/client"
)

// jobInput is the file of a job. It is sent as it is, compressed if it is so, and the server
// maps its columns: then its bad rows come back under the header that the file has.
type jobInput struct {
	*bulkInput
	encoding string            // gzip, zstd or identity
	columns  map[string]string // of a CSV file: its name -> the field
}

// openJob looks into the file and opens it again as it is. A file with another delimiter is
// rewritten, as for one request.
func (c *bulkCmd) openJob(s *session) (*jobInput, error) {
	o, err := c.csvOptions(isLinkField)
	if err != nil {
		return nil, err
	}
	if o.comma != ',' {
		in, err := c.open(s)
		return &jobInput{bulkInput: in, encoding: "identity"}, err
	}
	plain := c.rowFlags
	plain.Map, plain.IgnoreExtra = nil, false
	look, err := plain.open(s, isLinkField)
	if err != nil {
		return nil, err
	}
	columns, err := jobColumns(look, &o)
	if err = errors.Join(err, look.Close()); err != nil {
		return nil, err
	}
	f, err := os.Open(c.File)
	if err != nil {
		return nil, &ExitError{ExitUsage, fmt.Errorf("open the rows: %w", err)}
	}
	in := &bulkInput{format: look.format, info: look.info, size: look.size, closers: []func() error{f.Close}}
	in.Reader = &countingReader{f, &in.read}
	encoding := "identity"
	switch name := strings.ToLower(c.File); {
	case strings.HasSuffix(name, ".gz"):
		encoding = "gzip"
	case strings.HasSuffix(name, ".zst"):
		encoding = "zstd"
	}
	return &jobInput{bulkInput: in, encoding: encoding, columns: columns}, nil
}

// jobColumns says what the flags mean for the columns of the file.
func jobColumns(in *bulkInput, o *csvOptions) (map[string]string, error) {
	if o.plain() {
		return nil, nil
	}
	if in.format != client.CSV {
		return nil, usage("--map, --ignore-extra and --delimiter are for CSV rows")
	}
	line, err := headerLine(bufio.NewReader(in))
	if err != nil {
		return nil, err
	}
	names, err := csv.NewReader(bytes.NewReader(line)).Read()
	if err != nil {
		return nil, fmt.Errorf("read the header line: %w", err)
	}
	columns := map[string]string{}
	found := map[string]bool{}
	for _, name := range names {
		name = strings.TrimSpace(name)
		found[name] = true
		switch field, ok := o.columns[name]; {
		case ok:
			columns[name] = field
		case o.ignoreExtra && !o.known(name) && name != "":
			columns[name] = ""
		}
	}
	for column, field := range o.columns {
		if !found[column] {
			return nil, usage("--map %s=%s: the columns are %s", field, column, printable(strings.Join(names, ", ")))
		}
	}
	return columns, nil
}
