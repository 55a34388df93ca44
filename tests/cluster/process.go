package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// stopGrace is how long a program may take to end by itself; all of its data is thrown away, so there is little to be gained by waiting longer.
const stopGrace = 5 * time.Second

// supervisor starts the programs of a cluster, notices when one ends, and ends them. Where this process dies without a chance to do so, the kernel ends
// them (see attributes).
type supervisor struct {
	logs string

	mutex    sync.Mutex
	children []*child
	stopping bool
	ended    chan *child // the first program that ended unasked
}

// child is one running program.
type child struct {
	name    string
	log     string
	command *exec.Cmd
	done    chan struct{}
	err     error // set when done is closed
}

// newSupervisor makes a supervisor that writes the output of each program into a file of its own in the folder logs.
func newSupervisor(logs string) (*supervisor, error) {
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return nil, fmt.Errorf("failed to make the folder of logs: %w", err)
	}
	return &supervisor{logs: logs, ended: make(chan *child, 1)}, nil
}

// start runs a program until stop.
func (s *supervisor) start(name, path string, arguments ...string) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.stopping {
		return errInterrupted
	}
	log := filepath.Join(s.logs, name+".log")
	output, err := os.Create(log)
	if err != nil {
		return fmt.Errorf("failed to make the log of %s: %w", name, err)
	}
	defer output.Close()
	command := exec.Command(path, arguments...)
	command.Stdout, command.Stderr = output, output
	command.SysProcAttr = attributes()
	if err := startCommand(command); err != nil {
		return failure{doing: "start", program: name, cause: err}
	}
	started := &child{name: name, log: log, command: command, done: make(chan struct{})}
	s.children = append(s.children, started)
	go s.wait(started)
	return nil
}

func (s *supervisor) wait(child *child) {
	child.err = child.command.Wait()
	close(child.done)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if !s.stopping {
		select {
		case s.ended <- child:
		default:
		}
	}
}

// failed describes the end of a program that should have gone on.
func (c *child) failed(doing, hint string) error {
	cause := c.err
	if cause == nil {
		cause = errors.New("it ended by itself")
	}
	return failure{doing: doing, program: c.name, log: c.log, hint: hint, cause: cause}
}

// stop ends the programs in the reverse of the order in which they were started, and waits for each.
func (s *supervisor) stop() {
	s.mutex.Lock()
	s.stopping = true
	children := s.children
	s.mutex.Unlock()
	for i := len(children) - 1; i >= 0; i-- {
		children[i].stop()
	}
}

func (c *child) stop() {
	_ = c.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(stopGrace):
		_ = c.command.Process.Kill()
		<-c.done
	}
}

// await asks until the answer is yes (nil), a program of the supervisor ends, or the time is over; the last "no" is then the cause.
func (s *supervisor) await(ctx context.Context, what, program string, limit time.Duration, ask func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := ask(limited)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errInterrupted
		case <-limited.Done():
			return failure{
				doing: "get ready", program: program, log: filepath.Join(s.logs, program+".log"),
				cause: fmt.Errorf("%s did not come within %.0f s, last answer: %w", what, limit.Seconds(), err),
			}
		case ended := <-s.ended:
			return ended.failed("boot", "")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// launcher is the one thread that starts processes. "Ends with its parent" means, to the kernel, the thread that started it; a thread of the Go
// runtime can end at any time, except one that is locked to a goroutine that does not end.
var launcher = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for do := range work {
			do()
		}
	}()
	return work
})

// startCommand starts a command on the thread that lives as long as this process.
func startCommand(command *exec.Cmd) error {
	result := make(chan error, 1)
	launcher() <- func() { result <- command.Start() }
	return <-result
}
