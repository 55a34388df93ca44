package main

import (
	"fmt"
	"syscall"
)

// reservedPort is a free port of the loopback, held for as long as the cluster lives: a socket is bound to it but never listens, and the program that
// is to listen there binds a second one, which the kernel allows to the same user where both set SO_REUSEPORT. So no two clusters that start at the same time get the same port.
type reservedPort struct {
	number     int
	descriptor int
}

func reservePort() (*reservedPort, error) {
	descriptor, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, fmt.Errorf("failed to make a socket: %w", err)
	}
	syscall.CloseOnExec(descriptor)
	port := &reservedPort{descriptor: descriptor}
	if err := syscall.SetsockoptInt(descriptor, syscall.SOL_SOCKET, soReusePort, 1); err != nil {
		port.release()
		return nil, fmt.Errorf("failed to share a port: %w", err)
	}
	if err := syscall.Bind(descriptor, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		port.release()
		return nil, fmt.Errorf("failed to find a free port on 127.0.0.1: %w", err)
	}
	address, err := syscall.Getsockname(descriptor)
	if err != nil {
		port.release()
		return nil, fmt.Errorf("failed to read the number of a port: %w", err)
	}
	port.number = address.(*syscall.SockaddrInet4).Port
	return port, nil
}

func (p *reservedPort) release() {
	_ = syscall.Close(p.descriptor)
}
