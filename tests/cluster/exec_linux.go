package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// execCommand runs a command inside a node, as if it had been started there: it reaches pods and Services by their addresses, and they reach it at the
// node's. It dies with the node, and with this process.
func execCommand(_ context.Context, arguments []string) error {
	if len(arguments) > 0 && arguments[0] == enterArgument {
		return enter(arguments[1:])
	}
	flags := newFlags("exec", " -- COMMAND [ARGUMENT ...]", "Runs a command inside a cluster of size node, with KUBECONFIG set, and ends with its exit status. /run, /var/lib and /var/log are the node's own.")
	folder := flags.String("state", "", "`folder` of the cluster, as `up` printed it")
	if err := flags.Parse(arguments); err != nil {
		return exitWithUsage(err)
	}
	if *folder == "" || flags.NArg() == 0 {
		flags.Usage()
		return exitStatus(2)
	}
	ready, err := readReady(*folder)
	if err != nil {
		return err
	}
	if err := os.Setenv("KUBECONFIG", ready.InsideKubeconfig); err != nil {
		return err
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	command, err := startInside(ready, flags.Args(), os.Stdin, os.Stdout, os.Stderr)
	if err != nil {
		return err
	}
	go func() {
		for received := range signals {
			_ = command.Process.Signal(received)
		}
	}()
	return statusOf(command.Wait())
}

// statusOf turns the end of a command into ours; a signal's is 128 and its number, as shells have it.
func statusOf(err error) error {
	var ended *exec.ExitError
	if !errors.As(err, &ended) {
		return err
	}
	if status, ok := ended.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return exitStatus(128 + int(status.Signal()))
	}
	return exitStatus(ended.ExitCode())
}

// imageCommand makes an image, and loads it or writes it down.
func imageCommand(_ context.Context, arguments []string) error {
	flags := newFlags("image", " FILE=/PATH ...", "Makes a container image of files of this machine, with the shared libraries that its programs need, and loads it into a cluster of size node, where pods use it with imagePullPolicy: Never; or writes it into a file, as docker save does. It runs as user 65532.")
	folder := flags.String("state", "", "`folder` of the cluster, as `up` printed it")
	archive := flags.String("archive", "", "`file` to write the image into, instead")
	name := flags.String("name", "", "`NAME:TAG` of the image")
	entry := flags.String("entry", "", "`path` of its program, inside the image")
	if err := flags.Parse(arguments); err != nil {
		return exitWithUsage(err)
	}
	if (*folder == "") == (*archive == "") || *name == "" || *entry == "" || flags.NArg() == 0 {
		flags.Usage()
		return exitStatus(2)
	}
	files, err := parseFiles(flags)
	if err != nil {
		return err
	}
	image, err := newImage(*name, *entry, files)
	if err != nil {
		return err
	}
	var content bytes.Buffer
	if err := image.write(&content); err != nil {
		return err
	}
	if *archive != "" {
		if err := os.WriteFile(*archive, content.Bytes(), 0o644); err != nil {
			return fmt.Errorf("failed to write the image %s: %w", *name, err)
		}
		return nil
	}
	return loadImage(*folder, *name, &content)
}

func loadImage(folder, name string, content io.Reader) error {
	ready, err := readReady(folder)
	if err != nil {
		return err
	}
	var output bytes.Buffer
	command, err := startInside(ready, append([]string{"ctr"}, importArguments...), content, &output, &output)
	if err != nil {
		return err
	}
	if err := command.Wait(); err != nil {
		return fmt.Errorf("failed to load the image %s: %w: %s", name, err, bytes.TrimSpace(output.Bytes()))
	}
	return nil
}

func parseFiles(flags *flag.FlagSet) (map[string]string, error) {
	files := map[string]string{}
	for _, argument := range flags.Args() {
		outside, inside, found := strings.Cut(argument, "=")
		if !found {
			return nil, fmt.Errorf("%q is not FILE=/PATH, such as target/ci/bags-operator=/bin/bags-operator", argument)
		}
		files[inside] = outside
	}
	return files, nil
}

// enterArgument marks the second step of exec: this program, started inside, which then becomes the command.
const enterArgument = "--entered"

// startInside starts a command in the namespaces of a node. Namespaces are joined by one thread, which starts the command and is kept as its parent.
func startInside(ready ready, arguments []string, input io.Reader, output, errors io.Writer) (*exec.Cmd, error) {
	if ready.Size != nodeSize {
		return nil, fmt.Errorf("the cluster in %s has no node to run commands in: boot it with --size %s", ready.State, nodeSize)
	}
	executable, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("failed to find the path of this program: %w", err)
	}
	here, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("failed to find the folder to work in: %w", err)
	}
	var pipe [2]int // whose end for writing stays open until this process ends, which an os.File might not
	if err := syscall.Pipe2(pipe[:], syscall.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("failed to make a pipe: %w", err)
	}
	lifeline := os.NewFile(uintptr(pipe[0]), "lifeline")
	started := make(chan error, 1)
	var command *exec.Cmd
	go func() {
		runtime.LockOSThread()
		if err := joinNamespaces(ready.InitPID); err != nil {
			started <- fmt.Errorf("failed to enter the cluster in %s (does it still run, and are you root?): %w", ready.State, err)
			return
		}
		command = exec.Command(executable, append([]string{"exec", enterArgument}, arguments...)...)
		command.Dir = here
		command.Stdin, command.Stdout, command.Stderr = input, output, errors
		command.ExtraFiles = []*os.File{lifeline}
		err := command.Start()
		started <- err
		if err == nil {
			select {} // the thread, and with it the command, lives as long as this process
		}
	}()
	err = <-started
	_ = lifeline.Close()
	return command, err
}

func joinNamespaces(pid int) error {
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return err
	}
	if theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)); err != nil || theirs == own {
		return fmt.Errorf("process %d is not the first of a node", pid)
	}
	var namespaces []*os.File
	for _, kind := range []string{"net", "pid", "mnt"} {
		namespace, err := os.Open(filepath.Join("/proc", fmt.Sprint(pid), "ns", kind))
		if err != nil {
			return err
		}
		defer namespace.Close()
		namespaces = append(namespaces, namespace)
	}
	// A mount namespace can be joined only by a thread that shares its root and working folder with no other.
	if err := syscall.Unshare(syscall.CLONE_FS); err != nil {
		return err
	}
	for _, namespace := range namespaces {
		if _, _, failed := syscall.RawSyscall(sysSetns, namespace.Fd(), 0, 0); failed != 0 {
			return failed
		}
	}
	return nil
}

// sysSetns is the number of setns(2), which package syscall lacks on some architectures.
var sysSetns = map[string]uintptr{"amd64": 308, "arm64": 268}[runtime.GOARCH]

// enter becomes the command, which the kernel is told to kill when the process outside ends. Go's own means for that takes a parent in another process
// namespace for a dead one.
func enter(arguments []string) error {
	const lifeline = 3
	runtime.LockOSThread() // to which the next call applies
	if _, _, failed := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0); failed != 0 {
		return fmt.Errorf("failed to tie the command to the process outside: %w", failed)
	}
	// Had it ended before that, the other end of this pipe would be closed.
	if err := syscall.SetNonblock(lifeline, true); err != nil {
		return fmt.Errorf("failed to look after the process outside: %w", err)
	}
	if _, err := syscall.Read(lifeline, make([]byte, 1)); !errors.Is(err, syscall.EAGAIN) {
		return errors.New("the process outside has ended")
	}
	syscall.CloseOnExec(lifeline)
	path, err := exec.LookPath(arguments[0])
	if err != nil {
		say("%v", err)
		return exitStatus(127)
	}
	return fmt.Errorf("failed to run %s: %w", path, syscall.Exec(path, arguments, os.Environ()))
}
