package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// This file is the part of a node inside its namespaces that is Kubernetes: the control plane, and what runs pods.

const (
	containerdSocket = "/run/containerd/containerd.sock"
	podRange         = "10.88.0.0/16"
	pauseImage       = "bags-pause:dev"
	consumerImage    = "bags-consumer:dev"
)

// nodeCommand runs everything of a node until standard input ends or a program does. The kernel then ends the rest, so nothing is stopped here.
func nodeCommand(ctx context.Context, arguments []string) error {
	spec, err := parseNodeSpec(arguments)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	err = runNode(ctx, spec)
	if err != nil && ctx.Err() == nil {
		report(nodeReport{Error: err.Error()})
		return err
	}
	return nil
}

func runNode(ctx context.Context, spec nodeSpec) error {
	supervisor, err := newSupervisor(filepath.Join(spec.Folder, logsName))
	if err != nil {
		return err
	}
	if err := prepareNetwork(ctx); err != nil {
		return err
	}
	if err := serveForwards(spec.ForwardedPorts); err != nil {
		return err
	}
	plane := &controlPlane{
		programs: spec.Programs, supervisor: supervisor, folder: spec.Folder, address: nodeAddress, hosts: []string{"127.0.0.1"}, outside: spec.Outside, endpoint: true,
		ports: portNumbers{etcd: 2379, api: apiPort, controllerManager: 10257},
	}
	node := &node{spec: spec, plane: plane}
	if err := node.boot(ctx); err != nil {
		return err
	}
	report(nodeReport{Ready: true})
	select {
	case <-ctx.Done():
		return nil
	case ended := <-supervisor.ended:
		return ended.failed("keep up", "")
	}
}

// node runs pods for a control plane.
type node struct {
	spec  nodeSpec
	plane *controlPlane
}

func (n *node) boot(ctx context.Context) error {
	if err := n.startContainerd(); err != nil {
		return err
	}
	if err := n.plane.boot(ctx); err != nil {
		return err
	}
	if err := n.loadImages(ctx); err != nil {
		return err
	}
	for _, start := range []func() error{n.startScheduler, n.startKubelet, n.startProxy} {
		if err := start(); err != nil {
			return err
		}
	}
	return n.plane.supervisor.await(ctx, "the condition Ready of the node", "kubelet", bootLimit, n.ready)
}

// config writes a configuration file and returns its path.
func (n *node) config(name, content string) (string, error) {
	path := n.plane.config(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("failed to make the folder of configuration: %w", err)
	}
	return path, writePrivate(path, []byte(content))
}

// containerdConfig: AppArmor's profiles would be loaded into the machine's kernel, so there are none. Without CAP_SYS_RESOURCE (in a container, say)
// runc cannot lower the score by which the kernel chooses what to kill, and dies over it: restrict_oom_score_adj.
const containerdConfig = `version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "` + containerdSocket + `"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + pauseImage + `"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "` + cniFolder + `"
    conf_dir = %q
`

const cniConfig = `{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [{
    "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "` + podRange + `", "gateway": "` + nodeAddress + `"}]], "routes": [{"dst": "0.0.0.0/0"}]}
  }]
}
`

func (n *node) startContainerd() error {
	cni, err := n.config("cni/pods.conflist", cniConfig)
	if err != nil {
		return err
	}
	path, err := n.config("containerd.toml", fmt.Sprintf(containerdConfig, filepath.Dir(cni)))
	if err != nil {
		return err
	}
	containerd, err := exec.LookPath("containerd")
	if err != nil {
		return fmt.Errorf("failed to find containerd: %w", err)
	}
	return n.plane.supervisor.start("containerd", containerd, "--config="+path)
}

// loadImages waits for containerd and gives it the images that every node has.
func (n *node) loadImages(ctx context.Context) error {
	err := n.plane.supervisor.await(ctx, "an answer", "containerd", bootLimit, func(ctx context.Context) error {
		return runQuietly(exec.CommandContext(ctx, "ctr", "--address", containerdSocket, "version"))
	})
	if err != nil {
		return err
	}
	for name, program := range map[string]string{pauseImage: "pause", consumerImage: "consumer"} {
		image, err := newImage(name, "/bin/"+program, map[string]string{"/bin/" + program: n.spec.Programs[program]})
		if err != nil {
			return err
		}
		var archive bytes.Buffer
		if err := image.write(&archive); err != nil {
			return err
		}
		command := exec.CommandContext(ctx, "ctr", importArguments...)
		command.Stdin = &archive
		if err := runQuietly(command); err != nil {
			return failure{doing: "load the image " + name + " into", program: "containerd", log: filepath.Join(n.plane.supervisor.logs, "containerd.log"), cause: err}
		}
	}
	return nil
}

var importArguments = []string{"--address", containerdSocket, "--namespace", "k8s.io", "images", "import", "-"}

// runQuietly runs a short command; its output becomes part of the error.
func runQuietly(command *exec.Cmd) error {
	output, err := command.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(output))
	}
	return nil
}

func (n *node) startScheduler() error {
	kubeconfig, err := n.plane.component("system:kube-scheduler")
	if err != nil {
		return err
	}
	return n.plane.supervisor.start("kube-scheduler", n.spec.Programs["kube-scheduler"],
		"--kubeconfig="+kubeconfig,
		"--leader-elect=false",
		"--bind-address=127.0.0.1",
	)
}

// kubeletConfig: no image is ever collected, since none could be pulled again; and the kubelet has no say in the machine's own control groups.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: %q}
authorization: {mode: Webhook}
tlsCertFile: %q
tlsPrivateKeyFile: %q
containerRuntimeEndpoint: unix://` + containerdSocket + `
cgroupDriver: cgroupfs
cgroupRoot: /%s
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
evictionHard: {memory.available: 50Mi, nodefs.available: 1%%, imagefs.available: 1%%, nodefs.inodesFree: 0%%, imagefs.inodesFree: 0%%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
clusterDNS: [` + nodeAddress + `]
clusterDomain: cluster.local
syncFrequency: 5s
resolvConf: ""
volumePluginDir: /var/lib/kubelet/volume-plugins
podLogsDir: /var/log/pods
`

func (n *node) startKubelet() error {
	authority := n.plane.authority
	kubeconfig, err := n.plane.component("system:node:"+nodeName, "system:nodes")
	if err != nil {
		return err
	}
	if err := authority.server("kubelet", nodeName, nodeAddress); err != nil {
		return err
	}
	path, err := n.config("kubelet.yaml", fmt.Sprintf(kubeletConfig,
		authority.certificateFile("ca"), authority.certificateFile("kubelet"), authority.keyFile("kubelet"), n.spec.ControlGroup))
	if err != nil {
		return err
	}
	return n.plane.supervisor.start("kubelet", n.spec.Programs["kubelet"],
		"--config="+path,
		"--kubeconfig="+kubeconfig,
		"--hostname-override="+nodeName,
		"--node-ip="+nodeAddress,
		"--root-dir=/var/lib/kubelet",
	)
}

// proxyConfig: the limits of connection tracking are the machine's, so they are left alone. Masquerading all makes answers from pod to pod come back
// through the node also where the kernel does not show bridged packets to iptables (module br_netfilter, which we do not load).
const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clusterCIDR: ` + podRange + `
clientConnection: {kubeconfig: %q}
hostnameOverride: ` + nodeName + `
iptables: {masqueradeAll: true}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`

func (n *node) startProxy() error {
	kubeconfig, err := n.plane.component("system:kube-proxy")
	if err != nil {
		return err
	}
	path, err := n.config("kube-proxy.yaml", fmt.Sprintf(proxyConfig, kubeconfig))
	if err != nil {
		return err
	}
	return n.plane.supervisor.start("kube-proxy", n.spec.Programs["kube-proxy"], "--config="+path)
}

// ready asks whether the node takes pods.
func (n *node) ready(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	body, err := n.plane.read(limited, "/api/v1/nodes/"+nodeName)
	if err != nil {
		return err
	}
	var object struct {
		Spec struct {
			Taints []struct{ Key string }
		}
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := json.Unmarshal(body, &object); err != nil {
		return fmt.Errorf("failed to read the node: %w", err)
	}
	if len(object.Spec.Taints) > 0 {
		return fmt.Errorf("the node has the taint %s", object.Spec.Taints[0].Key)
	}
	for _, condition := range object.Status.Conditions {
		if condition.Type == "Ready" {
			if condition.Status == "True" {
				return nil
			}
			return errors.New(condition.Message)
		}
	}
	return errors.New("the node has no condition Ready")
}
