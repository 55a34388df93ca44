package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// attributes of a program of a cluster: a process group of its own, so that Ctrl-C reaches only this process, which then ends them in order; and
// SIGKILL by the kernel if this process dies.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

const soReusePort = 0xf // SO_REUSEPORT, which package syscall lacks on some architectures

// processStart tells apart two processes that had the same number one after the other: the start time in /proc/PID/stat, "" where there is no such process.
func processStart(pid int) string {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The name of the program, in parentheses, may hold blanks. Fields after it: state is 3, starttime 22 (proc(5)).
	_, rest, _ := strings.Cut(string(content), ") ")
	fields := strings.Fields(rest)
	const startTime = 22 - 3
	if len(fields) <= startTime || fields[0] == "Z" {
		return ""
	}
	return fields[startTime]
}
