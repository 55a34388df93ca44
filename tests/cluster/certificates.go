package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// lifetime of every certificate; the authority and its keys live no longer than the cluster.
const lifetime = 30 * 24 * time.Hour

// authority is the certificate authority of one cluster, for servers and clients alike.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
	folder      string
}

// identity is a certificate with its key.
type identity struct {
	certificate, key []byte // PEM
}

// newAuthority makes an authority that writes what it issues into a folder.
func newAuthority(folder string) (*authority, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("failed to make the folder of certificates: %w", err)
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template := template(pkix.Name{CommonName: "cluster"})
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("failed to make the certificate authority: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("failed to read back the certificate authority: %w", err)
	}
	a := &authority{certificate: certificate, key: key, pem: encode("CERTIFICATE", der), folder: folder}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return a, a.write("ca", identity{a.pem, keyPEM})
}

// server issues a certificate for a server at these names and addresses.
func (a *authority) server(file string, hosts ...string) error {
	template := template(pkix.Name{CommonName: file})
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	_, err := a.issue(file, template)
	return err
}

// client issues a certificate for a user of the API server, or of etcd.
func (a *authority) client(file, user string, groups ...string) (identity, error) {
	template := template(pkix.Name{CommonName: user, Organization: groups})
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.issue(file, template)
}

func (a *authority) issue(file string, template *x509.Certificate) (identity, error) {
	key, err := newKey()
	if err != nil {
		return identity{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return identity{}, fmt.Errorf("failed to issue the certificate %s: %w", file, err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return identity{}, err
	}
	issued := identity{encode("CERTIFICATE", der), keyPEM}
	return issued, a.write(file, issued)
}

// signingKey makes a bare key, for the tokens of service accounts.
func (a *authority) signingKey(file string) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return err
	}
	return writePrivate(a.keyFile(file), keyPEM)
}

func (a *authority) certificateFile(file string) string { return filepath.Join(a.folder, file+".crt") }
func (a *authority) keyFile(file string) string         { return filepath.Join(a.folder, file+".key") }

func (a *authority) write(file string, identity identity) error {
	if err := writePrivate(a.certificateFile(file), identity.certificate); err != nil {
		return err
	}
	return writePrivate(a.keyFile(file), identity.key)
}

// kubeconfig writes the file by which a client reaches the API server as this user.
func (a *authority) kubeconfig(path, server string, user identity) error {
	type object map[string]any
	content, err := json.MarshalIndent(object{
		"apiVersion":      "v1",
		"kind":            "Config",
		"current-context": "cluster",
		"clusters":        []object{{"name": "cluster", "cluster": object{"server": server, "certificate-authority-data": a.pem}}},
		"users":           []object{{"name": "user", "user": object{"client-certificate-data": user.certificate, "client-key-data": user.key}}},
		"contexts":        []object{{"name": "cluster", "context": object{"cluster": "cluster", "user": "user"}}},
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("failed to encode the kubeconfig %s: %w", path, err)
	}
	return writePrivate(path, append(content, '\n'))
}

func writePrivate(path string, content []byte) error {
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return fmt.Errorf("failed to write %s: %w", path, err)
	}
	return nil
}

func template(subject pkix.Name) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic("the system's randomness failed: " + err.Error())
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      subject,
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(lifetime),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("failed to make a private key: %w", err)
	}
	return key, nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("failed to encode a private key: %w", err)
	}
	return encode("EC PRIVATE KEY", der), nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
