package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// These tests boot real clusters, through the script that users call. CLUSTER_SELFTEST=control-plane or =node (which is both) asks for them.

func requireSelftest(t *testing.T, needed size) {
	t.Helper()
	switch asked := size(os.Getenv("CLUSTER_SELFTEST")); {
	case asked == nodeSize, asked == needed:
	default:
		t.Skipf("boots a %s: set CLUSTER_SELFTEST=%s", needed, needed)
	}
}

// cluster is a running tool.
type cluster struct {
	ready   ready
	command *exec.Cmd
	input   io.Closer
}

// boot starts the tool and waits for its line.
func boot(t *testing.T, arguments ...string) *cluster {
	t.Helper()
	command := exec.Command("./run", append([]string{"up"}, arguments...)...)
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	c := &cluster{command: command, input: input}
	t.Cleanup(c.kill)
	line, err := bufio.NewReader(output).ReadBytes('\n')
	if err != nil {
		t.Fatalf("no cluster: %v", err)
	}
	if err := json.Unmarshal(line, &c.ready); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return c
}

// stop closes the input, which is how a test says that it is done.
func (c *cluster) stop(t *testing.T) {
	t.Helper()
	_ = c.input.Close()
	if err := c.command.Wait(); err != nil {
		t.Errorf("the tool ended with %v", err)
	}
}

func (c *cluster) kill() {
	_ = c.command.Process.Kill()
	_ = c.command.Wait()
}

func (c *cluster) kubectl(t *testing.T, input string, arguments ...string) string {
	t.Helper()
	output, err := c.tryKubectl(input, arguments...)
	if err != nil {
		t.Fatalf("kubectl %s: %v: %s", strings.Join(arguments, " "), err, output)
	}
	return output
}

func (c *cluster) tryKubectl(input string, arguments ...string) (string, error) {
	command := exec.Command(c.ready.Kubectl, append([]string{"--kubeconfig", c.ready.Kubeconfig}, arguments...)...)
	command.Stdin = strings.NewReader(input)
	output, err := command.CombinedOutput()
	return string(output), err
}

// eventually asks until the answer is yes.
func eventually(t *testing.T, what string, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// gone asks whether no process and no file of this cluster is left. A process of it has its folder among its arguments.
func (c *cluster) gone() error {
	if left, err := processesWith(c.ready.State); err != nil || len(left) > 0 {
		return fmt.Errorf("processes are left: %v, %v", left, err)
	}
	if _, err := os.Stat(c.ready.State); err == nil {
		return fmt.Errorf("%s is left", c.ready.State)
	}
	return nil
}

// processesWith returns the processes that have this text in their arguments, which a zero byte separates.
func processesWith(text string) ([]int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var found []int
	for _, file := range files {
		if content, err := os.ReadFile(file); err == nil && strings.Contains(string(content), text) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				return nil, err
			}
			found = append(found, pid)
		}
	}
	return found, nil
}

func TestTwoControlPlanesStandSideBySideAndLeaveNothing(t *testing.T) {
	requireSelftest(t, controlPlaneSize)
	one, other := boot(t), boot(t)
	one.kubectl(t, "", "create", "namespace", "only-in-one")
	if output, err := other.tryKubectl("", "get", "namespace", "only-in-one"); err == nil {
		t.Errorf("the second is the first: %s", output)
	}
	// The controllers work: a namespace gets its service account, and goes when it is deleted.
	eventually(t, "the service account", func() error {
		_, err := one.tryKubectl("", "--namespace", "only-in-one", "get", "serviceaccount", "default")
		return err
	})
	one.kubectl(t, "", "delete", "namespace", "only-in-one", "--timeout=30s")
	if audit, err := os.ReadFile(one.ready.AuditLog); err != nil || !strings.Contains(string(audit), `"verb":"delete"`) || !strings.Contains(string(audit), "only-in-one") {
		t.Errorf("the deletion is not in the audit log: %v", err)
	}
	one.stop(t)
	if err := one.gone(); err != nil {
		t.Errorf("after a stop: %v", err)
	}
	other.kubectl(t, "", "get", "namespaces")
	if err := other.command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	other.stop(t)
	if err := other.gone(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

func TestAKilledControlPlaneLeavesNothing(t *testing.T) {
	requireSelftest(t, controlPlaneSize)
	c := boot(t)
	c.kill()
	eventually(t, "after SIGKILL", c.gone)
}

func TestAFolderThatTheCallerNamedKeepsOnlyItsLogs(t *testing.T) {
	requireSelftest(t, controlPlaneSize)
	folder := t.TempDir()
	c := boot(t, "--state", folder)
	if output, err := exec.Command("./run", "up", "--state", folder).CombinedOutput(); err == nil || !strings.Contains(string(output), "is running in "+folder) {
		t.Errorf("a second cluster in the same folder: %v: %s", err, output)
	}
	c.stop(t)
	if left := names(t, folder); !slices.Equal(left, []string{"lock", "logs"}) {
		t.Errorf("left are %v", left)
	}
}

func TestAProgramThatEndsEndsTheClusterAndIsNamed(t *testing.T) {
	requireSelftest(t, controlPlaneSize)
	folder := t.TempDir()
	var errors strings.Builder
	command := exec.Command("./run", "up", "--state", folder)
	command.Stderr = &errors
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = command.Process.Kill() })
	if _, err := bufio.NewReader(output).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	etcds, err := processesWith("/etcd\x00--data-dir=" + folder)
	if err != nil || len(etcds) != 1 {
		t.Fatalf("the processes of etcd are %v, %v", etcds, err)
	}
	if err := syscall.Kill(etcds[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); err == nil {
		t.Error("the tool ends well")
	}
	for _, wanted := range []string{"etcd: signal: killed", filepath.Join(folder, "logs", "etcd.log")} {
		if !strings.Contains(errors.String(), wanted) {
			t.Errorf("%q is missing from %q", wanted, errors.String())
		}
	}
}

const consumerManifest = `apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: consumer, namespace: shop}
spec:
  selector: {matchLabels: {app: consumer}}
  template:
    metadata: {labels: {app: consumer}}
    spec:
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: consumer
          image: bags-consumer:dev
          imagePullPolicy: Never
          env:
            - {name: BAGS_BASE_URL, value: "http://10.88.0.1:8420"}
            - {name: BAGS_API_KEY, value: value-one-for-tests}
            - {name: INTERVAL, value: 100ms}
          securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
          readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: consumer, namespace: shop}
spec: {selector: {app: consumer}, ports: [{port: 80, targetPort: 8080}]}
`

func TestANodeRunsRestrictedPodsAndTheMachineStaysAsItWas(t *testing.T) {
	requireSelftest(t, nodeSize)
	before := machine(t)
	c := boot(t, "--size", "node", "--forward", "0:8420", "--forward", "0:8080")
	c.kubectl(t, consumerManifest, "apply", "-f", "-")
	c.kubectl(t, "", "--namespace", "shop", "rollout", "status", "deployment/consumer", "--timeout=60s")
	if now := machine(t); !slices.Equal(before, now) {
		t.Errorf("the machine has changed: %s", difference(before, now))
	}

	// Inside, a Service answers at its address; the pods call the node's address; and the node's port is seen from outside.
	address := c.kubectl(t, "", "--namespace", "shop", "get", "service", "consumer", "--output", "jsonpath={.spec.clusterIP}")
	test, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	inside := exec.Command("./run", "exec", "--state", c.ready.State, "--", test, "-test.run", "TestHelperServesInside")
	inside.Env = append(os.Environ(), "CLUSTER_HELPER_TARGET="+address+":80")
	inside.Stderr = os.Stderr
	if err := inside.Start(); err != nil {
		t.Fatal(err)
	}
	url := fmt.Sprintf("http://127.0.0.1:%d/service", c.ready.Forwards[0].HostPort)
	eventually(t, "calls of the pod that got 200, as the pod's Service tells", func() error {
		body, err := fetch(url)
		if err != nil {
			return err
		}
		var counted struct{ Statuses map[string]int }
		if err := json.Unmarshal(body, &counted); err != nil || counted.Statuses["200"] == 0 {
			return fmt.Errorf("%s: %v", body, err)
		}
		return nil
	})

	// A killed `exec` takes its command along.
	if err := inside.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = inside.Wait()
	eventually(t, "the command ends with exec", func() error {
		if body, err := fetch(url); err == nil {
			return fmt.Errorf("it still answers: %s", body)
		}
		return nil
	})
	if logs := c.kubectl(t, "", "--namespace", "shop", "logs", "deployment/consumer"); strings.Contains(logs, "value-one") || !strings.Contains(logs, "GET /auth/me: 200") {
		t.Errorf("unexpected logs: %s", logs)
	}

	c.kill()
	eventually(t, "after SIGKILL", c.gone)
	eventually(t, "the machine after SIGKILL", func() error {
		if now := machine(t); !slices.Equal(before, now) {
			return fmt.Errorf("it has changed: %s", difference(before, now))
		}
		return nil
	})
	if left, err := filepath.Glob(fmt.Sprintf("/sys/fs/cgroup/*/bags-cluster-%d-*", c.ready.PID)); err != nil || len(left) > 0 {
		t.Errorf("control groups are left: %v, %v", left, err)
	}
}

func TestTwoNodesStandSideBySideAndTakeImagesOfOrdinaryPrograms(t *testing.T) {
	requireSelftest(t, nodeSize)
	one, other := boot(t, "--size", "node"), boot(t, "--size", "node")
	if output, err := exec.Command("./run", "image", "--state", one.ready.State, "--name", "sh:dev", "--entry", "/bin/sh", "/bin/sh=/bin/sh").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	one.kubectl(t, "", "run", "sh", "--image=sh:dev", "--image-pull-policy=Never", "--restart=Never", "--", "-c", "echo hello")
	one.kubectl(t, "", "wait", "pod/sh", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
	if logs := one.kubectl(t, "", "logs", "sh"); logs != "hello\n" {
		t.Errorf("the pod says %q", logs)
	}
	command := exec.Command("./run", "exec", "--state", other.ready.State, "--", "sh", "-c", "kubectl() { "+other.ready.Kubectl+` "$@"; }; kubectl get pods --all-namespaces --no-headers; exit 7`)
	output, err := command.CombinedOutput()
	if command.ProcessState.ExitCode() != 7 || strings.Contains(string(output), "sh ") {
		t.Errorf("inside the other: %v: %s", err, output)
	}
	for _, c := range []*cluster{one, other} {
		c.stop(t)
		if err := c.gone(); err != nil {
			t.Errorf("after a stop: %v", err)
		}
	}
}

// TestHelperServesInside is no test: it is what runs inside the node. It says 200 to the pods, and hands on what a Service answers.
func TestHelperServesInside(t *testing.T) {
	target := os.Getenv("CLUSTER_HELPER_TARGET")
	if target == "" {
		t.Skip("runs inside a node only")
	}
	listener, err := net.Listen("tcp", nodeAddress+":8420")
	if err != nil {
		t.Fatal(err)
	}
	t.Fatal(http.Serve(listener, http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		if request.URL.Path != "/service" {
			return
		}
		body, err := fetch("http://" + target + "/counts")
		if err != nil {
			http.Error(writer, err.Error(), http.StatusBadGateway)
			return
		}
		_, _ = writer.Write(body)
	})))
}

func fetch(url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return body, err
}

// machine lists what of this machine a node could change: its network, packet filter, mounts, and the parameters that Kubernetes is known to set.
func machine(t *testing.T) []string {
	t.Helper()
	var lines []string
	for _, command := range [][]string{{"ip", "-oneline", "link"}, {"ip", "-oneline", "-4", "address"}, {"ip", "route"}, {"iptables-save"}, {"ipset", "list"}} {
		output, err := exec.Command(command[0], command[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v: %s", command, err, output)
		}
		for line := range strings.Lines(string(output)) {
			if !strings.HasPrefix(line, "#") { // the time
				lines = append(lines, line)
			}
		}
	}
	files := []string{"/proc/self/mounts", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/conf/all/route_localnet", "/proc/sys/net/netfilter/nf_conntrack_max"}
	for path := range shownFiles {
		files = append(files, path)
	}
	slices.Sort(files)
	for _, path := range files {
		content, err := os.ReadFile(path)
		if err != nil {
			content = []byte(err.Error())
		}
		for line := range strings.Lines(string(content)) {
			lines = append(lines, path+": "+line)
		}
	}
	for _, folder := range []string{"/var/lib", "/var/log", "/run", "/usr/libexec", "/etc/cni", "/opt"} {
		entries, _ := os.ReadDir(folder)
		for _, entry := range entries {
			lines = append(lines, filepath.Join(folder, entry.Name()))
		}
	}
	return lines
}

func difference(before, now []string) string {
	var changes []string
	for _, line := range now {
		if !slices.Contains(before, line) {
			changes = append(changes, "+ "+line)
		}
	}
	for _, line := range before {
		if !slices.Contains(now, line) {
			changes = append(changes, "- "+line)
		}
	}
	return strings.Join(changes, " ")
}
