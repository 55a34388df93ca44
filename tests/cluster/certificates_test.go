package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
)

func TestIssuedCertificatesAreOfTheAuthorityAndForTheirPurposeOnly(t *testing.T) {
	authority, err := newAuthority(filepath.Join(t.TempDir(), "pki"))
	if err != nil {
		t.Fatal(err)
	}
	if err := authority.server("server", "localhost", "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	user, err := authority.client("client", "somebody", "some-group")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority.certificate)
	server := parseCertificate(t, authority.certificateFile("server"))
	for _, name := range []string{"localhost", "127.0.0.1"} {
		if _, err := server.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("the server's certificate is not good for %s: %v", name, err)
		}
	}
	client := x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := server.Verify(client); err == nil {
		t.Error("the server's certificate is good for a client")
	}
	somebody := parseCertificate(t, authority.certificateFile("client"))
	if _, err := somebody.Verify(client); err != nil {
		t.Errorf("the client's certificate is not good: %v", err)
	}
	if somebody.Subject.CommonName != "somebody" || len(somebody.Subject.Organization) != 1 || somebody.Subject.Organization[0] != "some-group" {
		t.Errorf("the client is %v", somebody.Subject)
	}
	if _, err := tls.X509KeyPair(user.certificate, user.key); err != nil {
		t.Errorf("key and certificate do not fit: %v", err)
	}
	if info, err := os.Stat(authority.keyFile("client")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key can be read by others: %v %v", info.Mode(), err)
	}
}

func TestAKubeconfigNamesItsServerAndCurrentContext(t *testing.T) {
	authority, err := newAuthority(filepath.Join(t.TempDir(), "pki"))
	if err != nil {
		t.Fatal(err)
	}
	user, err := authority.client("client", "somebody")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := authority.kubeconfig(path, "https://127.0.0.1:1234", user); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Context  string `json:"current-context"`
		Contexts []struct{ Name string }
		Clusters []struct {
			Cluster struct {
				Server    string
				Authority []byte `json:"certificate-authority-data"`
			}
		}
	}
	if err := json.Unmarshal(content, &config); err != nil {
		t.Fatal(err)
	}
	if config.Context != config.Contexts[0].Name || config.Clusters[0].Cluster.Server != "https://127.0.0.1:1234" {
		t.Errorf("unexpected kubeconfig: %+v", config)
	}
	if string(config.Clusters[0].Cluster.Authority) != string(authority.pem) {
		t.Error("the authority is another")
	}
}

func parseCertificate(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(content)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}
