package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tlsBefore starts a tunnel to a server; its end is awaited at the end of the test.
func tlsBefore(t *testing.T, to string) (url, authority string) {
	t.Helper()
	folder := t.TempDir()
	listener, err := listenTLS("127.0.0.1:0", folder)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- forwardTLS(ctx, listener, to) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the tunnel ended with: %v", err)
		}
	})
	return "https://" + listener.Addr().String(), filepath.Join(folder, "ca.crt")
}

func trusting(t *testing.T, file string) *http.Client {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		t.Fatalf("%s holds no certificate", file)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

func TestAServerWithoutTLSIsReachedWithItByThoseWhoTrustTheAuthority(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		body, _ := io.ReadAll(request.Body)
		_, _ = io.WriteString(writer, request.URL.Path+" "+string(body))
	}))
	defer server.Close()
	url, authority := tlsBefore(t, strings.TrimPrefix(server.URL, "http://"))
	client := trusting(t, authority)
	for range 3 {
		answer, err := client.Post(url+"/api", "text/plain", strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err != nil || string(body) != "/api hello" {
			t.Fatalf("the answer is %q, %v", body, err)
		}
	}
	if _, err := http.Get(url); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a client that trusts nobody new got: %v", err)
	}
}

func TestAnAnswerThatTheServerCutsIsCutForTheClient(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		for {
			connection, err := server.Accept()
			if err != nil {
				return
			}
			_, _ = connection.Read(make([]byte, 1024))
			_, _ = io.WriteString(connection, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
			_ = connection.Close()
		}
	}()
	url, authority := tlsBefore(t, server.Addr().String())
	answer, err := trusting(t, authority).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err := io.ReadAll(answer.Body); err == nil {
		t.Errorf("half an answer was taken for a whole one: %q", body)
	}
}
