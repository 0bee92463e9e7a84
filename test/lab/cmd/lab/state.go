package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// state is where a named lab keeps what outlives one command.
type state struct{ name string }

func (s state) dir() string {
	base := os.Getenv("XDG_STATE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			home = os.TempDir()
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "kubetide", "lab", filepath.Base(filepath.Clean("/"+s.name)))
}

func (s state) log() string        { return filepath.Join(s.dir(), "lab.log") }
func (s state) kubeconfig() string { return filepath.Join(s.dir(), "kubeconfig-ready") }
func (s state) socket() string     { return filepath.Join(s.dir(), "lab.sock") }

// writePID records the lab's outer process; its start time tells it from a later process of the same number.
func (s state) writePID(pid int) error {
	return os.WriteFile(filepath.Join(s.dir(), "pid"), []byte(fmt.Sprintf("%d %s\n", pid, startTime(pid))), 0o644)
}

// running returns the process id of the lab's outer process, or 0 if it is gone.
func (s state) running() int {
	data, err := os.ReadFile(filepath.Join(s.dir(), "pid"))
	if err != nil {
		return 0
	}
	var pid int
	var start string
	if _, err := fmt.Sscan(string(data), &pid, &start); err != nil || startTime(pid) != start {
		return 0
	}
	return pid
}

// startTime is the process's start in clock ticks since boot, or "" if it is gone or a zombie.
func startTime(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The name in parentheses may hold anything; what follows is fixed. The state is the first field after it.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}
