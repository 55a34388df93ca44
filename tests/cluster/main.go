// Command cluster runs real Kubernetes clusters for the tests and the demo, without Docker and without an image registry.
//
// Two sizes: a control plane (etcd, kube-apiserver, kube-controller-manager; no root, on loopback) and a node as well (scheduler, containerd,
// kubelet, kube-proxy; root and Linux, in namespaces of its own). docs/cluster.md says how to use it. This file only reads the command line.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

const usage = `usage: cluster COMMAND [flags]

  build  compile the programs of a cluster into the cache, where they are not there yet
  which  print the path of one program of a cluster, and compile it where it is not there yet
  up     boot a cluster, print one line of JSON when it is ready, tear it down when standard input closes or on a signal
  exec   run a command inside a cluster of size node
  image  make a container image of files of this machine and load it into a cluster of size node, or write it into a file
  tls    put TLS before a server that speaks without

"cluster COMMAND -h" lists the flags of a command.
`

// A command is done when its function returns; an exitStatus among the errors becomes the exit status of this process.
var commands = map[string]func(context.Context, []string) error{
	"build":   buildCommand,
	"which":   whichCommand,
	"up":      upCommand,
	"exec":    execCommand,
	"image":   imageCommand,
	"tls":     tlsCommand,
	"janitor": janitorCommand, // started by up
	"init":    initCommand,    // started by up: the first process of a node's process namespace
	"node":    nodeCommand,    // started by init: everything of a node
}

// exitStatus is the exit status of a command run on somebody's behalf: no message of our own goes with it.
type exitStatus int

func (status exitStatus) Error() string {
	return fmt.Sprintf("exit status %d", int(status))
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := commands[os.Args[1]](ctx, os.Args[2:])
	stop()
	var status exitStatus
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
	case errors.As(err, &status):
		os.Exit(int(status))
	default:
		say("%v", err)
		os.Exit(1)
	}
}

// say writes a line for the person at the terminal; standard output is kept for what programs read.
func say(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "cluster: "+format+"\n", arguments...)
}

func newFlags(name, arguments, about string) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "usage: cluster %s [flags]%s\n\n%s\n\n", name, arguments, about)
		flags.PrintDefaults()
	}
	return flags
}

// size says which programs a cluster has.
type size string

const (
	controlPlaneSize size = "control-plane"
	nodeSize         size = "node"
)

func (s *size) String() string { return string(*s) }

// Set implements flag.Value.
func (s *size) Set(text string) error {
	switch size(text) {
	case controlPlaneSize, nodeSize:
		*s = size(text)
		return nil
	default:
		return fmt.Errorf("%q is not a size: %s or %s", text, controlPlaneSize, nodeSize)
	}
}

func buildCommand(ctx context.Context, arguments []string) error {
	flags := newFlags("build", "", "Compiles the programs of a cluster into the cache, where they are not there yet.")
	size := controlPlaneSize
	flags.Var(&size, "size", "`size` of the cluster: control-plane or node")
	if err := parse(flags, arguments); err != nil {
		return err
	}
	_, err := ensurePrograms(ctx, size)
	return err
}

func whichCommand(ctx context.Context, arguments []string) error {
	flags := newFlags("which", " PROGRAM", "Prints the path of one program of a cluster, such as helm or kubectl, and compiles it where it is not there yet.")
	if err := flags.Parse(arguments); err != nil {
		return exitWithUsage(err)
	}
	if flags.NArg() != 1 {
		flags.Usage()
		return exitStatus(2)
	}
	wanted, err := programNamed(flags.Arg(0))
	if err != nil {
		return err
	}
	paths, err := ensure(ctx, []program{wanted})
	if err != nil {
		return err
	}
	_, err = fmt.Println(paths[wanted.name])
	return err
}

// parse is for commands without positional arguments.
func parse(flags *flag.FlagSet, arguments []string) error {
	if err := flags.Parse(arguments); err != nil {
		return exitWithUsage(err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%s takes no arguments, but got %q", flags.Name(), strings.Join(flags.Args(), " "))
	}
	return nil
}

// exitWithUsage: the flag package has already printed the error and the usage.
func exitWithUsage(err error) error {
	if errors.Is(err, flag.ErrHelp) {
		return err
	}
	return exitStatus(2)
}

// stdinClosed is closed at the end of standard input, if that is a pipe or socket, whose other end tells by it that nobody needs the cluster any more.
func stdinClosed() <-chan struct{} {
	closed := make(chan struct{})
	info, err := os.Stdin.Stat()
	if err != nil || info.Mode()&(os.ModeNamedPipe|os.ModeSocket) == 0 {
		return closed
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(closed)
	}()
	return closed
}
