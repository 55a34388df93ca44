//go:build !linux

package main

import (
	"context"
	"errors"
	"strconv"
	"syscall"
)

// Outside Linux there is the control plane only, and a tool that is killed with SIGKILL leaves its programs running.

const soReusePort = syscall.SO_REUSEPORT

var errOnlyLinux = errors.New("a cluster of size node needs Linux; elsewhere use --size control-plane")

func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func processStart(pid int) string { return strconv.Itoa(pid) }

func prepareHost(context.Context) error { return errOnlyLinux }

func upNode(context.Context, *state, upOptions, func(ready) error) error { return errOnlyLinux }

func initCommand(context.Context, []string) error  { return errOnlyLinux }
func nodeCommand(context.Context, []string) error  { return errOnlyLinux }
func execCommand(context.Context, []string) error  { return errOnlyLinux }
func imageCommand(context.Context, []string) error { return errOnlyLinux }

func removeControlGroups(string) error { return nil }
func sweepControlGroups()              {}
