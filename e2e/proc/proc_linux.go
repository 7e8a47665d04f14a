package proc

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// sysProcAttr makes the kernel end the child when this process dies, however it dies.
func sysProcAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// Memory is what a process has in memory, in bytes.
type Memory struct {
	Resident int64 // now
	Peak     int64 // ever
	Anon     int64 // now, without pages of files
}

// Memory reads the memory of the server process, without its children.
func (s *Server) Memory() (Memory, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
	if err != nil {
		return Memory{}, fmt.Errorf("read memory of the server: %w", err)
	}
	var m Memory
	for line := range bytes.Lines(b) {
		name, rest, _ := strings.Cut(string(line), ":")
		to := map[string]*int64{"VmRSS": &m.Resident, "VmHWM": &m.Peak, "RssAnon": &m.Anon}[name]
		if to == nil {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
		if err != nil {
			return Memory{}, fmt.Errorf("read memory of the server: %w", err)
		}
		*to = kib << 10
	}
	return m, nil
}

// ProcessorSeconds returns the processor time that a process has used, without its children.
func ProcessorSeconds(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	// The name of the program, in parentheses, may hold anything.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	var ticks uint64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read processor time: %w", err)
		}
		ticks += n
	}
	return float64(ticks) / 100, nil // USER_HZ is 100 on every Linux that Go runs on
}

// Children returns the ids of the child processes of a process, none if it has ended.
func Children(pid int) []int {
	var pids []int
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid)) // it may have ended
	for _, t := range tasks {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name())) // the same
		for f := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// KillChild ends a child process of parent by SIGKILL. Returns an error if pid is not, or not any more, one of its children.
func KillChild(parent, pid int) error {
	if !slices.Contains(Children(parent), pid) {
		return fmt.Errorf("process %d is no child of %d", pid, parent)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	return nil
}

// Alive reports whether a process runs; one that has ended and was not waited for does not.
func Alive(pid int) bool {
	st := state(pid)
	return st != "" && st != "Z"
}

// Stopped reports whether a process stands still, by SIGSTOP.
func Stopped(pid int) bool { return state(pid) == "T" }

// state is the letter that the kernel has for what a process does; "": it is not there.
func state(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) == 0 {
		return ""
	}
	return fields[0]
}
