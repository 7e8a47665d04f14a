package child

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"slices"

	"github.com/go-json-experiment/json"
)

// forwardLog passes the child's log on. A line that is not of slog comes from C++ code or the
// Go runtime, so the process is about to end.
func forwardLog(stderr io.ReadCloser, log *slog.Logger) {
	defer func() { _ = stderr.Close() }()
	in := bufio.NewReaderSize(stderr, 64<<10)
	for {
		line, err := in.ReadSlice('\n')
		if len(line) > 0 {
			forwardLine(line, log)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

func forwardLine(line []byte, log *slog.Logger) {
	var fields map[string]any
	if json.Unmarshal(line, &fields) != nil {
		log.Error("analytics process", "text", string(line))
		return
	}
	level, text := slog.LevelInfo, "analytics process"
	if s, ok := fields[slog.LevelKey].(string); ok {
		_ = level.UnmarshalText([]byte(s)) // stays Info
	}
	if s, ok := fields[slog.MessageKey].(string); ok {
		text = s
	}
	attrs := []slog.Attr{slog.String("process", "analytics")}
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		if k != slog.LevelKey && k != slog.MessageKey && k != slog.TimeKey {
			attrs = append(attrs, slog.Any(k, fields[k]))
		}
	}
	log.LogAttrs(context.Background(), level, text, attrs...)
}
