package main

import (
	"context"
	"errors"
)

var errNode = errors.New("a cluster of size node cannot be booted yet")

func prepareHost(context.Context) error { return errNode }

func upNode(context.Context, *state, upOptions, func(ready) error) error { return errNode }

func initCommand(context.Context, []string) error  { return errNode }
func nodeCommand(context.Context, []string) error  { return errNode }
func execCommand(context.Context, []string) error  { return errNode }
func imageCommand(context.Context, []string) error { return errNode }
