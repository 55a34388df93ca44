package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// A node lives in a network, a mount and a process namespace of its own. This file is the part outside: it makes the namespaces, holds them, and waits.
//
//	up (this process) ── init (process 1 of the namespaces: inside_linux.go) ── node ── etcd, kube-apiserver, …, containerd, kubelet
//
// When init ends, for whatever reason, the kernel kills everything in its process namespace, and takes back networks and mounts with the last of
// them. Init ends when `up` does: by its parent's death signal where `up` has no chance to say so.

const (
	nodeName    = "node"
	nodeAddress = "10.88.0.1"
	apiPort     = 6443
)

// nodeSpec is what `up` tells those inside.
type nodeSpec struct {
	Folder       string       `json:"folder"`
	Programs     programPaths `json:"programs"`
	ControlGroup string       `json:"controlGroup"`
	Outside      string       `json:"outside"` // the API server's address for programs of this machine
	// ForwardedPorts of the node: the first listener that is handed over leads to the first, and so on.
	ForwardedPorts []int `json:"forwardedPorts"`
}

// nodeReport is what those inside tell `up`: once, that the node is ready, and when it ends, why.
type nodeReport struct {
	Ready bool   `json:"ready,omitempty"`
	Error string `json:"error,omitempty"`
}

// Descriptors that init and node inherit after the three standard ones. Standard input is the lifeline: its end says that the node shall end.
const (
	reportDescriptor        = 3
	firstListenerDescriptor = 4
)

func upNode(ctx context.Context, state *state, options upOptions, announce func(ready) error) error {
	began := time.Now()
	progress := newProgress("booting a node")
	node, err := startNode(state, &options)
	if err != nil {
		progress.stop()
		return err
	}
	defer node.stop()
	report, err := node.nextReport(ctx)
	progress.stop()
	if err != nil || !report.Ready {
		return node.failure(ctx, state, report, err)
	}
	say("a node is ready after %.1f s: export KUBECONFIG=%s", time.Since(began).Seconds(), state.path("kubeconfig"))
	err = announce(ready{
		Size: nodeSize, PID: os.Getpid(), State: state.folder, Server: node.spec.Outside, Kubeconfig: state.path("kubeconfig"),
		Kubectl: options.programs["kubectl"], Helm: options.programs["helm"], AuditLog: state.path(logsName, "audit.log"), Logs: state.path(logsName),
		Node: nodeName, NodeAddress: nodeAddress, InsideKubeconfig: state.path("kubeconfig.inside"), Forwards: options.forwards, InitPID: node.init.Process.Pid,
	})
	if err != nil {
		return err
	}
	report, err = node.nextReport(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return node.failure(ctx, state, report, err)
}

// runningNode is the outer end of a node.
type runningNode struct {
	spec     nodeSpec
	init     *exec.Cmd
	lifeline io.Closer
	reports  <-chan nodeReport // closed when the node has ended
}

func startNode(state *state, options *upOptions) (*runningNode, error) {
	if err := os.MkdirAll(state.path(logsName), 0o755); err != nil {
		return nil, fmt.Errorf("failed to make the folder of logs: %w", err)
	}
	if err := makeControlGroups(state.controlGroup); err != nil {
		return nil, err
	}
	node := &runningNode{spec: nodeSpec{Folder: state.folder, Programs: options.programs, ControlGroup: state.controlGroup}}
	listeners, err := node.listen(options)
	for _, listener := range listeners {
		defer listener.Close() // init has its own
	}
	if err != nil {
		return nil, err
	}
	return node, node.start(state, listeners)
}

// listen opens the ports on this machine's loopback. A listening socket belongs to the network in which it was made, and can be handed to a process
// in another: so those inside accept connections from outside, without a bridge between the two networks.
func (n *runningNode) listen(options *upOptions) ([]*os.File, error) {
	api := forward{NodePort: apiPort}
	var listeners []*os.File
	open := func(forward *forward) error {
		listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", forward.HostPort))
		if err != nil {
			return fmt.Errorf("failed to listen for --forward %d:%d: %w", forward.HostPort, forward.NodePort, err)
		}
		defer listener.Close()
		forward.HostPort = listener.Addr().(*net.TCPAddr).Port
		file, err := listener.(*net.TCPListener).File()
		if err != nil {
			return fmt.Errorf("failed to hand over a port: %w", err)
		}
		listeners = append(listeners, file)
		n.spec.ForwardedPorts = append(n.spec.ForwardedPorts, forward.NodePort)
		return nil
	}
	if err := open(&api); err != nil {
		return listeners, err
	}
	n.spec.Outside = fmt.Sprintf("https://127.0.0.1:%d", api.HostPort)
	for i := range options.forwards {
		if err := open(&options.forwards[i]); err != nil {
			return listeners, err
		}
	}
	return listeners, nil
}

func (n *runningNode) start(state *state, listeners []*os.File) error {
	spec, err := json.Marshal(n.spec)
	if err != nil {
		return fmt.Errorf("failed to encode what the node is to be: %w", err)
	}
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("failed to find the path of this program: %w", err)
	}
	log, err := os.Create(state.path(logsName, "node.log"))
	if err != nil {
		return fmt.Errorf("failed to make the log of the node: %w", err)
	}
	defer log.Close()
	lifelineReader, lifeline, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("failed to make a pipe: %w", err)
	}
	defer lifelineReader.Close()
	reportReader, reportWriter, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("failed to make a pipe: %w", err)
	}
	defer reportWriter.Close()

	n.init = exec.Command(executable, "init", string(spec))
	n.init.Stdin, n.init.Stdout, n.init.Stderr = lifelineReader, log, log
	n.init.ExtraFiles = append([]*os.File{reportWriter}, listeners...)
	n.init.SysProcAttr = attributes()
	n.init.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID
	if err := startCommand(n.init); err != nil {
		hint := ""
		if errors.Is(err, syscall.EPERM) {
			hint = "namespaces need the rights of root on this machine (CAP_SYS_ADMIN); in a container, run it --privileged"
		}
		return failure{doing: "start", program: "the node's namespaces", hint: hint, cause: err}
	}
	n.lifeline = lifeline
	n.reports = readReports(reportReader)
	return nil
}

func readReports(reader io.ReadCloser) <-chan nodeReport {
	reports := make(chan nodeReport, 2)
	go func() {
		defer close(reports)
		defer reader.Close()
		decoder := json.NewDecoder(reader)
		for {
			var report nodeReport
			if decoder.Decode(&report) != nil {
				return
			}
			reports <- report
		}
	}()
	return reports
}

func (n *runningNode) nextReport(ctx context.Context) (nodeReport, error) {
	select {
	case <-ctx.Done():
		return nodeReport{}, errInterrupted
	case report, open := <-n.reports:
		if !open {
			return nodeReport{}, errors.New("its first process ended")
		}
		return report, nil
	}
}

func (n *runningNode) failure(ctx context.Context, state *state, report nodeReport, err error) error {
	if ctx.Err() != nil {
		return errInterrupted
	}
	if report.Error != "" {
		return errors.New(report.Error)
	}
	return failure{doing: "keep up", program: "the node", log: state.path(logsName, "node.log"), cause: err}
}

// stop ends the node. When the wait for init is over, nothing of its process namespace is left.
func (n *runningNode) stop() {
	_ = n.lifeline.Close()
	timer := time.AfterFunc(stopGrace, func() { _ = n.init.Process.Kill() })
	_ = n.init.Wait()
	timer.Stop()
}
