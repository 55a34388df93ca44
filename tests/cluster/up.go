package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// upOptions is the command line of `up`.
type upOptions struct {
	size     size
	folder   string
	forwards []forward
	detached bool
	programs programPaths
}

// ready is what `up` prints, as one line of JSON, once the cluster serves; it is also written to cluster.json in the state folder.
type ready struct {
	Size       size   `json:"size"`
	PID        int    `json:"pid"` // of the tool: end it to end the cluster
	State      string `json:"state"`
	Server     string `json:"server"`
	Kubeconfig string `json:"kubeconfig"` // of an administrator, for programs of this machine
	Kubectl    string `json:"kubectl"`    // path of the program
	Helm       string `json:"helm"`       // likewise
	AuditLog   string `json:"auditLog"`
	Logs       string `json:"logs"`
	// The rest is of size node.
	Node             string    `json:"node,omitempty"`             // name of the Node object
	NodeAddress      string    `json:"nodeAddress,omitempty"`      // the node's address inside; pods and `cluster exec` reach each other by it
	InsideKubeconfig string    `json:"insideKubeconfig,omitempty"` // of the same administrator, for `cluster exec`
	Forwards         []forward `json:"forwards,omitempty"`
	InitPID          int       `json:"initPid,omitempty"` // the first process inside, as numbered outside
}

func upCommand(ctx context.Context, arguments []string) error {
	flags := newFlags("up", "", "Boots a cluster, prints one line of JSON on standard output when it is ready, and runs until SIGINT, SIGTERM or SIGHUP, or until standard input, if it is a pipe, is closed. Then ends every program and removes what it made.")
	options := upOptions{size: controlPlaneSize}
	flags.Var(&options.size, "size", "`size` of the cluster: control-plane, or node (root, Linux)")
	flags.StringVar(&options.folder, "state", "", "`folder` for data and logs; its logs stay (default: a temporary one, removed at the end)")
	flags.BoolVar(&options.detached, "detach-stdin", false, "do not end when standard input is closed")
	flags.Func("forward", "`HOST_PORT:NODE_PORT`, size node: 127.0.0.1:HOST_PORT of this machine leads to port NODE_PORT of the node; HOST_PORT 0 takes a free one; may be repeated", func(text string) error {
		forward, err := parseForward(text)
		options.forwards = append(options.forwards, forward)
		return err
	})
	if err := parse(flags, arguments); err != nil {
		return err
	}
	if options.size != nodeSize && len(options.forwards) > 0 {
		return fmt.Errorf("--forward is for --size %s: a control plane is on 127.0.0.1 already", nodeSize)
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !options.detached {
		closed := stdinClosed()
		go func() {
			<-closed
			cancel()
		}()
	}
	return up(ctx, options)
}

func up(ctx context.Context, options upOptions) error {
	if options.size == nodeSize {
		if err := prepareHost(ctx); err != nil {
			return err
		}
	}
	var err error
	if options.programs, err = ensurePrograms(ctx, options.size); err != nil {
		return err
	}
	state, err := openState(options.folder)
	if err != nil {
		return err
	}
	booted := false
	defer func() { state.close(booted || ctx.Err() != nil) }()
	run := upControlPlane
	if options.size == nodeSize {
		run = upNode
	}
	return run(ctx, state, options, func(ready ready) error {
		booted = true
		return announce(state, ready)
	})
}

// upControlPlane runs the programs as children of this process.
func upControlPlane(ctx context.Context, state *state, options upOptions, announce func(ready) error) error {
	began := time.Now()
	supervisor, err := newSupervisor(state.path(logsName))
	if err != nil {
		return err
	}
	defer supervisor.stop()
	var reserved [3]*reservedPort
	for i := range reserved {
		if reserved[i], err = reservePort(); err != nil {
			return err
		}
		defer reserved[i].release()
	}
	plane := &controlPlane{
		programs: options.programs, supervisor: supervisor, folder: state.folder, address: "127.0.0.1",
		ports: portNumbers{etcd: reserved[0].number, api: reserved[1].number, controllerManager: reserved[2].number},
	}
	if err := plane.boot(ctx); err != nil {
		return err
	}
	say("a control plane is ready after %.1f s: export KUBECONFIG=%s", time.Since(began).Seconds(), state.path("kubeconfig"))
	err = announce(ready{
		Size: controlPlaneSize, PID: os.Getpid(), State: state.folder, Server: plane.server(), Kubeconfig: state.path("kubeconfig"),
		Kubectl: options.programs["kubectl"], Helm: options.programs["helm"], AuditLog: plane.auditLog(), Logs: state.path(logsName),
	})
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil // what was asked for
	case ended := <-supervisor.ended:
		return ended.failed("keep up", "")
	}
}

// announce writes the line into the state folder first, so that it is there for whoever reads the one on standard output.
func announce(state *state, ready ready) error {
	line, err := json.Marshal(ready)
	if err != nil {
		return fmt.Errorf("failed to encode the description of the cluster: %w", err)
	}
	if err := writePrivate(state.path("cluster.json"), append(line, '\n')); err != nil {
		return err
	}
	if _, err := fmt.Println(string(line)); err != nil {
		return fmt.Errorf("failed to print the description of the cluster: %w", err)
	}
	return nil
}

// readReady reads what the cluster in this folder has announced.
func readReady(folder string) (ready, error) {
	var ready ready
	content, err := os.ReadFile(filepath.Join(folder, "cluster.json"))
	if err != nil {
		return ready, fmt.Errorf("failed to find a running cluster in %s: %w", folder, err)
	}
	if err := json.Unmarshal(content, &ready); err != nil {
		return ready, fmt.Errorf("failed to read the description of the cluster in %s: %w", folder, err)
	}
	return ready, nil
}

// forward leads from a port on this machine's loopback to a port of the node.
type forward struct {
	HostPort int `json:"hostPort"`
	NodePort int `json:"nodePort"`
}

func parseForward(text string) (forward, error) {
	var parsed forward
	if _, err := fmt.Sscanf(strings.TrimSpace(text), "%d:%d", &parsed.HostPort, &parsed.NodePort); err != nil ||
		text != fmt.Sprintf("%d:%d", parsed.HostPort, parsed.NodePort) {
		return forward{}, fmt.Errorf("%q is not HOST_PORT:NODE_PORT, such as 8420:8420", text)
	}
	if parsed.HostPort < 0 || parsed.HostPort > 65535 || parsed.NodePort < 1 || parsed.NodePort > 65535 {
		return forward{}, fmt.Errorf("%q: a port is at most 65535", text)
	}
	return parsed, nil
}
