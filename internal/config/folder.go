package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-json-experiment/json"
)

// Files in the data folder by which a command line on the same machine finds the
// server. Both have mode 0600: who can read them can read the data anyway.
const (
	OwnerKeyFile = "owner.key"   // the owner key and a line break
	ServerFile   = "server.json" // ServerInfo
)

// ServerInfo says where the server of a data folder listens.
type ServerInfo struct {
	ControlURL string `json:"control_url"` // "http://127.0.0.1:8081"
	PID        int    `json:"pid"`
}

// WriteServerInfo leaves a note of the running server in the data folder and
// replaces the one of a server that was killed.
func WriteServerInfo(data string, info ServerInfo) error {
	b, err := json.Marshal(info)
	if err != nil {
		return fmt.Errorf("write server info: %w", err)
	}
	path := filepath.Join(data, ServerFile)
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write server info: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write server info: %w", err)
	}
	return nil
}

// RemoveServerInfo takes the note away at the end of an orderly stop. A note that is
// not there, or is another process's, is no error and stays.
func RemoveServerInfo(data string, pid int) error {
	info, err := ReadServerInfo(data)
	if err != nil || info.PID != pid {
		return nil
	}
	if err := os.Remove(filepath.Join(data, ServerFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove server info: %w", err)
	}
	return nil
}

// ReadServerInfo returns the note in the data folder. Its error wraps
// fs.ErrNotExist if there is none. A note may be stale: its process may be gone.
func ReadServerInfo(data string) (ServerInfo, error) {
	var info ServerInfo
	b, err := readFile(filepath.Join(data, ServerFile))
	if err != nil {
		return ServerInfo{}, fmt.Errorf("read server info: %w", err)
	}
	if err := json.Unmarshal(b, &info); err != nil {
		return ServerInfo{}, fmt.Errorf("read server info: %w", err)
	}
	return info, nil
}

// ReadOwnerKey returns the owner key in the data folder. Its error wraps
// fs.ErrNotExist if there is none.
func ReadOwnerKey(data string) (Secret, error) {
	b, err := readFile(filepath.Join(data, OwnerKeyFile))
	if err != nil {
		return "", fmt.Errorf("read owner key: %w", err)
	}
	return Secret(strings.TrimSpace(string(b))), nil
}
