package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// controlPlane is what both sizes have: etcd, kube-apiserver, kube-controller-manager.
type controlPlane struct {
	programs   programPaths
	supervisor *supervisor
	authority  *authority
	folder     string // of the cluster
	address    string // where the API server listens
	ports      portNumbers
	// hosts are further names and addresses by which clients call the API server.
	hosts []string
	// outside is the API server's address for programs of this machine, where that is another.
	outside string
	// endpoint: the API server announces its address as the endpoints of the Service "kubernetes", which a loopback address cannot be.
	endpoint bool
	client   *http.Client
}

type portNumbers struct {
	etcd, api, controllerManager int
}

const (
	serviceRange      = "10.96.0.0/16"
	firstServiceIP    = "10.96.0.1" // the Service "kubernetes"
	serviceAccountKey = "service-accounts"

	// Every request by user, verb and object, but no bodies: those hold Secrets. Reads of health and version by our own waiting are left out.
	auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    nonResourceURLs: ["/healthz*", "/livez*", "/readyz*", "/version"]
  - level: Metadata
`
	bootLimit = 2 * time.Minute
)

func (c *controlPlane) server() string { return fmt.Sprintf("https://%s:%d", c.address, c.ports.api) }

func (c *controlPlane) auditLog() string { return filepath.Join(c.folder, logsName, "audit.log") }

// boot starts the programs and returns when the API server serves everything that a client expects of a fresh cluster.
func (c *controlPlane) boot(ctx context.Context) error {
	if err := c.writeFiles(); err != nil {
		return err
	}
	if err := c.startEtcd(); err != nil {
		return err
	}
	if err := c.startAPIServer(); err != nil {
		return err
	}
	if err := c.startControllerManager(); err != nil {
		return err
	}
	return c.awaitReady(ctx)
}

// writeFiles makes certificates, kubeconfigs and the audit policy.
func (c *controlPlane) writeFiles() error {
	var err error
	if c.authority, err = newAuthority(filepath.Join(c.folder, "pki")); err != nil {
		return err
	}
	names := []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost", firstServiceIP, c.address}
	if err := c.authority.server("kube-apiserver", append(names, c.hosts...)...); err != nil {
		return err
	}
	if err := c.authority.server("etcd", "127.0.0.1"); err != nil {
		return err
	}
	if err := c.authority.signingKey(serviceAccountKey); err != nil {
		return err
	}
	if _, err := c.authority.client("etcd-client", "kube-apiserver"); err != nil {
		return err
	}
	if _, err := c.authority.client("kubelet-client", "kube-apiserver-kubelet-client", "system:masters"); err != nil {
		return err
	}
	if _, err := c.component("system:kube-controller-manager"); err != nil {
		return err
	}
	administrator, err := c.authority.client("administrator", "kubernetes-admin", "system:masters")
	if err != nil {
		return err
	}
	if err := c.writeKubeconfigs(administrator); err != nil {
		return err
	}
	if c.client, err = c.newClient(administrator); err != nil {
		return err
	}
	return writePrivate(c.config("audit-policy.yaml"), []byte(auditPolicy))
}

func (c *controlPlane) writeKubeconfigs(administrator identity) error {
	path := filepath.Join(c.folder, "kubeconfig")
	if c.outside == "" {
		return c.authority.kubeconfig(path, c.server(), administrator)
	}
	if err := c.authority.kubeconfig(path+".inside", c.server(), administrator); err != nil {
		return err
	}
	return c.authority.kubeconfig(path, c.outside, administrator)
}

func (c *controlPlane) config(name string) string { return filepath.Join(c.folder, "config", name) }

// component makes the kubeconfig of a component of the cluster, named after its user, and returns its path.
func (c *controlPlane) component(user string, groups ...string) (string, error) {
	if err := os.MkdirAll(filepath.Join(c.folder, "config"), 0o700); err != nil {
		return "", fmt.Errorf("failed to make the folder of configuration: %w", err)
	}
	identity, err := c.authority.client(user, user, groups...)
	if err != nil {
		return "", err
	}
	path := c.config(user + ".kubeconfig")
	return path, c.authority.kubeconfig(path, c.server(), identity)
}

func (c *controlPlane) startEtcd() error {
	address := fmt.Sprintf("https://127.0.0.1:%d", c.ports.etcd)
	return c.supervisor.start("etcd", c.programs["etcd"],
		"--data-dir="+filepath.Join(c.folder, "etcd"),
		"--listen-client-urls="+address,
		"--advertise-client-urls="+address,
		"--listen-peer-urls=http://127.0.0.1:0", // there are no peers
		"--client-cert-auth",
		"--trusted-ca-file="+c.authority.certificateFile("ca"),
		"--cert-file="+c.authority.certificateFile("etcd"),
		"--key-file="+c.authority.keyFile("etcd"),
		"--socket-reuse-port",
		"--unsafe-no-fsync", // the data does not outlive the process
		"--log-level=warn",
	)
}

func (c *controlPlane) startAPIServer() error {
	reconciler := "none"
	if c.endpoint {
		reconciler = "lease"
	}
	return c.supervisor.start("kube-apiserver", c.programs["kube-apiserver"],
		fmt.Sprintf("--etcd-servers=https://127.0.0.1:%d", c.ports.etcd),
		"--etcd-cafile="+c.authority.certificateFile("ca"),
		"--etcd-certfile="+c.authority.certificateFile("etcd-client"),
		"--etcd-keyfile="+c.authority.keyFile("etcd-client"),
		"--bind-address="+c.address,
		"--advertise-address="+c.address,
		"--endpoint-reconciler-type="+reconciler,
		fmt.Sprintf("--secure-port=%d", c.ports.api),
		"--permit-port-sharing",
		"--tls-cert-file="+c.authority.certificateFile("kube-apiserver"),
		"--tls-private-key-file="+c.authority.keyFile("kube-apiserver"),
		"--client-ca-file="+c.authority.certificateFile("ca"),
		"--kubelet-certificate-authority="+c.authority.certificateFile("ca"),
		"--kubelet-client-certificate="+c.authority.certificateFile("kubelet-client"),
		"--kubelet-client-key="+c.authority.keyFile("kubelet-client"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-cluster-ip-range="+serviceRange,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+c.authority.keyFile(serviceAccountKey),
		"--service-account-signing-key-file="+c.authority.keyFile(serviceAccountKey),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--audit-policy-file="+c.config("audit-policy.yaml"),
		"--audit-log-path="+c.auditLog(),
		// In MiB; those who read it know of one file, and without a word there is another one after 100.
		"--audit-log-maxsize=4096",
		"--profiling=false",
	)
}

func (c *controlPlane) startControllerManager() error {
	return c.supervisor.start("kube-controller-manager", c.programs["kube-controller-manager"],
		"--kubeconfig="+c.config("system:kube-controller-manager.kubeconfig"),
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", c.ports.controllerManager),
		"--permit-port-sharing",
		"--use-service-account-credentials=true", // each controller with its own, narrow rights, as in production
		"--leader-elect=false",
		"--service-account-private-key-file="+c.authority.keyFile(serviceAccountKey),
		"--root-ca-file="+c.authority.certificateFile("ca"),
		"--flex-volume-plugin-dir="+c.config("volume-plugins"), // else it makes /usr/libexec/kubernetes
		"--cluster-signing-cert-file="+c.authority.certificateFile("ca"),
		"--cluster-signing-key-file="+c.authority.keyFile("ca"),
		"--kube-api-qps=200", // tests make and delete many namespaces at once
		"--kube-api-burst=400",
		"--profiling=false",
	)
}

// awaitReady waits until the API server is ready and the default namespace has its service account, without which no pod can be made.
func (c *controlPlane) awaitReady(ctx context.Context) error {
	err := c.supervisor.await(ctx, "readiness", "kube-apiserver", bootLimit, func(ctx context.Context) error { return c.get(ctx, "/readyz") })
	if err != nil {
		return err
	}
	return c.supervisor.await(ctx, "the service account of the default namespace", "kube-controller-manager", bootLimit, func(ctx context.Context) error {
		return c.get(ctx, "/api/v1/namespaces/default/serviceaccounts/default")
	})
}

// get asks the API server as administrator, and is content with any answer of 200.
func (c *controlPlane) get(ctx context.Context, path string) error {
	_, err := c.read(ctx, path)
	return err
}

func (c *controlPlane) read(ctx context.Context, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server()+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := c.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", path, response.Status)
	}
	return body, nil
}

func (c *controlPlane) newClient(user identity) (*http.Client, error) {
	certificate, err := tls.X509KeyPair(user.certificate, user.key)
	if err != nil {
		return nil, fmt.Errorf("failed to load the administrator's certificate: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(c.authority.certificate)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}}} // no proxy from the environment
	return &http.Client{Transport: transport, Timeout: 5 * time.Second}, nil
}
