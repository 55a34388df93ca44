package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
)

// tlsCommand puts TLS before a server that speaks without, such as the sandbox: the operator sends credentials to another machine by https only, and in a
// pod every server is another machine.
func tlsCommand(ctx context.Context, arguments []string) error {
	flags := newFlags("tls", "", "Puts TLS before a server that speaks without: what comes in at one address goes on to the other, until a signal. Makes a certificate authority for it in a folder; clients trust FOLDER/ca.crt.")
	listen := flags.String("listen", "", "`HOST:PORT` to listen on; HOST is the name in the certificate")
	to := flags.String("to", "", "`HOST:PORT` of the server")
	folder := flags.String("certificates", "", "`folder` for the certificates, made if it is not there")
	if err := parse(flags, arguments); err != nil {
		return err
	}
	if *listen == "" || *to == "" || *folder == "" {
		flags.Usage()
		return exitStatus(2)
	}
	listener, err := listenTLS(*listen, *folder)
	if err != nil {
		return err
	}
	say("listening on https://%s for %s; its authority is %s/ca.crt", listener.Addr(), *to, *folder)
	return forwardTLS(ctx, listener, *to)
}

func listenTLS(address, folder string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("%q is not HOST:PORT: %w", address, err)
	}
	authority, err := newAuthority(folder)
	if err != nil {
		return nil, err
	}
	if err := authority.server("server", host); err != nil {
		return nil, err
	}
	certificate, err := tls.LoadX509KeyPair(authority.certificateFile("server"), authority.keyFile("server"))
	if err != nil {
		return nil, fmt.Errorf("failed to read back the certificate of the server: %w", err)
	}
	// One protocol: the server behind it is not asked which others it speaks.
	listener, err := tls.Listen("tcp", address, &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"}})
	if err != nil {
		return nil, fmt.Errorf("failed to listen on %s: %w", address, err)
	}
	return listener, nil
}

// forwardTLS serves until the context ends, and then cuts what is open.
func forwardTLS(ctx context.Context, listener net.Listener, to string) error {
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	for {
		client, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil // what was asked for
			}
			return fmt.Errorf("failed to accept a connection: %w", err)
		}
		go func() {
			if err := copyBothWays(ctx, client, to); err != nil {
				say("%v", err)
			}
		}()
	}
}

// copyBothWays ends when both sides have said their last word.
func copyBothWays(ctx context.Context, client net.Conn, to string) error {
	defer client.Close()
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
	if err != nil {
		return fmt.Errorf("failed to reach the server: %w", err)
	}
	defer server.Close()
	stop := context.AfterFunc(ctx, func() { _, _ = client.Close(), server.Close() })
	defer stop()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		both.Add(1)
		go func() {
			defer both.Done()
			if _, err := io.Copy(way[1], way[0]); err != nil {
				_, _ = client.Close(), server.Close()
				return
			}
			if half, ok := way[1].(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite()
			}
		}()
	}
	both.Wait()
	return nil
}
