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
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// This file is the part of a node inside its namespaces, before Kubernetes: mounts, orphans, network, the ports from outside.

// initCommand is process 1 of the namespaces. It makes the mounts, starts the command `node`, and reaps whatever loses its parent, until `node` ends.
func initCommand(_ context.Context, arguments []string) error {
	spec, err := parseNodeSpec(arguments)
	if err != nil {
		return err
	}
	if err := prepareMounts(spec); err != nil {
		report(nodeReport{Error: err.Error()})
		return err
	}
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("failed to find the path of this program: %w", err)
	}
	files := []uintptr{0, 1, 2}
	for i := range 1 + len(spec.ForwardedPorts) {
		files = append(files, uintptr(reportDescriptor+i))
	}
	// Not with os/exec, whose Wait and ours would take each other's children. The thread is kept, since it counts as the parent.
	runtime.LockOSThread()
	node, err := syscall.ForkExec(executable, []string{executable, "node", arguments[0]}, &syscall.ProcAttr{Env: os.Environ(), Files: files, Sys: attributes()})
	if err != nil {
		return fmt.Errorf("failed to start the node: %w", err)
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return fmt.Errorf("failed to wait for the node: %w", err)
		case pid == node:
			return exitStatus(status.ExitStatus())
		}
	}
}

func parseNodeSpec(arguments []string) (nodeSpec, error) {
	var spec nodeSpec
	if os.Getpid() != 1 && os.Getppid() != 1 || len(arguments) != 1 {
		return spec, errors.New("this command is started by `up` itself")
	}
	if err := json.Unmarshal([]byte(arguments[0]), &spec); err != nil {
		return spec, fmt.Errorf("failed to read what the node is to be: %w", err)
	}
	return spec, nil
}

// report tells `up`. The descriptor is ours for life, so the file is never closed.
func report(report nodeReport) {
	line, err := json.Marshal(report)
	if err == nil {
		_, err = syscall.Write(reportDescriptor, append(line, '\n'))
	}
	if err != nil {
		say("failed to report to the process outside: %v", err)
	}
}

// scratch holds what needs no place on a disk. It is in memory and ends with the namespace.
const scratch = "/run/bags-cluster"

// shownFiles are read inside in place of the machine's. The kubelet sets these of the machine's parameters, none of which belongs to a namespace, unless
// it finds them set already (its pkg/util/sysctl): so it finds them so, and the machine keeps its own. And there is no DNS inside: where nothing
// listens, a name fails at once, instead of when the patience with an unreachable server is over.
var shownFiles = map[string]string{
	"/proc/sys/vm/overcommit_memory":      "1",
	"/proc/sys/vm/panic_on_oom":           "0",
	"/proc/sys/kernel/panic":              "10",
	"/proc/sys/kernel/panic_on_oops":      "1",
	"/proc/sys/kernel/keys/root_maxkeys":  "1000000",
	"/proc/sys/kernel/keys/root_maxbytes": "25000000",
	resolvConf:                            "nameserver " + nodeAddress,
}

const resolvConf = "/etc/resolv.conf"

// prepareMounts gives the node the paths that its programs insist on, without touching those of the machine.
func prepareMounts(spec nodeSpec) error {
	// The folder of the cluster may lie below one that is hidden in a moment; through this it can be put back.
	folder, err := os.Open(spec.Folder)
	if err != nil {
		return fmt.Errorf("failed to open the folder of the cluster: %w", err)
	}
	defer folder.Close()
	logs := filepath.Join(spec.Folder, logsName, "pods")
	steps := []func() error{
		// Nothing that is mounted here may reach the machine; what is unmounted there may be unmounted here.
		mount("", "/", "", syscall.MS_SLAVE|syscall.MS_REC, ""),
		mount("proc", "/proc", "proc", 0, ""),
		mount("tmpfs", "/run", "tmpfs", 0, "mode=755"),
		overlay("/var/lib"),
		overlay("/var/log"),
		mount("tmpfs", "/var/lib/containerd", "tmpfs", 0, "mode=711"),
		mount("tmpfs", "/var/lib/kubelet", "tmpfs", 0, "mode=700"),
		mount(fmt.Sprintf("/proc/self/fd/%d", folder.Fd()), spec.Folder, "", syscall.MS_BIND, ""),
		mount(logs, "/var/log/pods", "", syscall.MS_BIND, ""),
	}
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return fmt.Errorf("failed to make the folder of the pods' logs: %w", err)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	for path, content := range shownFiles {
		if err := showFile(path, content); err != nil {
			return err
		}
	}
	return nil
}

func mount(source, target, kind string, flags uintptr, data string) func() error {
	return func() error {
		if err := os.MkdirAll(target, 0o755); err != nil {
			return fmt.Errorf("failed to make %s inside the node: %w", target, err)
		}
		if err := syscall.Mount(source, target, kind, flags, data); err != nil {
			return fmt.Errorf("failed to mount %s inside the node: %w", target, err)
		}
		return nil
	}
}

// overlay lets the node write to a folder of the machine, as it seems to it.
func overlay(folder string) func() error {
	return func() error {
		upper := filepath.Join(scratch, "upper", folder)
		work := filepath.Join(scratch, "work", folder)
		for _, made := range []string{upper, work} {
			if err := os.MkdirAll(made, 0o755); err != nil {
				return fmt.Errorf("failed to make %s inside the node: %w", made, err)
			}
		}
		return mount("overlay", folder, "overlay", 0, "lowerdir="+folder+",upperdir="+upper+",workdir="+work)()
	}
}

// showFile has those inside read this content in place of the machine's file.
func showFile(path, content string) error {
	if _, err := os.Stat(path); err != nil {
		return nil // a parameter that this kernel has not, so the kubelet cannot set it
	}
	shown := filepath.Join(scratch, strings.ReplaceAll(path[1:], "/", "."))
	if err := os.WriteFile(shown, []byte(content+"\n"), 0o644); err != nil {
		return fmt.Errorf("failed to write %s inside the node: %w", shown, err)
	}
	if err := syscall.Mount(shown, path, "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("failed to shield %s: %w", path, err)
	}
	return nil
}

// prepareNetwork makes the bridge of the pods. Its address is the node's, and the way out of the node, which ends there: kube-proxy insists on a default route.
func prepareNetwork(ctx context.Context) error {
	for _, arguments := range []string{
		"link set lo up",
		"link add cni0 type bridge",
		"link set cni0 address 0a:58:0a:58:00:01", // else it changes with each pod
		"address add " + nodeAddress + "/16 dev cni0",
		"link set cni0 up",
		"route add default dev cni0",
	} {
		output, err := exec.CommandContext(ctx, "ip", strings.Fields(arguments)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("failed to prepare the node's network: ip %s: %w: %s", arguments, err, strings.TrimSpace(string(output)))
		}
	}
	// Of this network namespace, not of the machine.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return fmt.Errorf("failed to let the node forward packets: %w", err)
	}
	return nil
}

// serveForwards accepts on the listeners that `up` has handed over and passes each connection on to the node's port.
func serveForwards(ports []int) error {
	for i, port := range ports {
		file := os.NewFile(uintptr(firstListenerDescriptor+i), "listener")
		listener, err := net.FileListener(file)
		_ = file.Close()
		if err != nil {
			return fmt.Errorf("failed to take over the listener for port %d: %w", port, err)
		}
		go serveForward(listener, net.JoinHostPort(nodeAddress, strconv.Itoa(port)))
	}
	return nil
}

func serveForward(listener net.Listener, target string) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			say("failed to accept for %s: %v", target, err)
			return
		}
		go func() {
			defer connection.Close()
			// Something may listen there only from inside, and only later.
			onward, err := net.Dial("tcp", target)
			if err != nil {
				return
			}
			defer onward.Close()
			join(connection.(*net.TCPConn), onward.(*net.TCPConn))
		}()
	}
}

// join copies both ways until both ends have said all.
func join(one, other *net.TCPConn) {
	copied := make(chan struct{})
	go func() {
		_, _ = io.Copy(one, other)
		_ = one.CloseWrite()
		close(copied)
	}()
	_, _ = io.Copy(other, one)
	_ = other.CloseWrite()
	<-copied
}
