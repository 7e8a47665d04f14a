package config

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// fallbackMemory is assumed where the machine does not tell, in bytes.
const fallbackMemory = int64(4 * GiB)

// systemMemory returns the memory that this process may use, in bytes: the limit of
// its control group if there is one, else what the machine has.
func systemMemory() int64 {
	memory := fallbackMemory
	if runtime.GOOS != "linux" {
		return memory
	}
	if data, err := os.ReadFile("/proc/meminfo"); err == nil {
		if n := memTotal(data); n > 0 {
			memory = n
		}
	}
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// Without a limit the files say "max" or a number near 2^63.
		if n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64); err == nil && n > 0 {
			memory = min(memory, n)
		}
	}
	return memory
}

// memTotal reads the line "MemTotal:  24689764 kB" of /proc/meminfo; 0 if there is none.
func memTotal(meminfo []byte) int64 {
	for line := range bytes.Lines(meminfo) {
		fields := bytes.Fields(line)
		if len(fields) == 3 && string(fields[0]) == "MemTotal:" {
			kb, err := strconv.ParseInt(string(fields[1]), 10, 53)
			if err != nil {
				return 0
			}
			return kb << 10
		}
	}
	return 0
}
