package lab

import (
	"fmt"
	"io"
	"net"
	"path/filepath"

	"github.com/kubetide/kubetide/test/lab/namespace"
)

// Forward makes addr, an address inside such as a pod's "10.244.0.5:8080", reachable from outside the namespaces, and returns
// the address on 127.0.0.1 to use there. It lasts until Stop.
func (l *Lab) Forward(addr string) (string, error) {
	listener, err := namespace.ListenOutside()
	if err != nil {
		return "", fmt.Errorf("forward %s: %w", addr, err)
	}
	l.mu.Lock()
	l.forwards = append(l.forwards, listener)
	l.mu.Unlock()
	go func() {
		for {
			outside, err := listener.Accept()
			if err != nil {
				return
			}
			go join(outside, addr)
		}
	}()
	return listener.Addr().String(), nil
}

// join copies both ways between a connection and a new one to addr until both sides have ended.
func join(outside net.Conn, addr string) {
	defer outside.Close()
	inside, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer inside.Close()
	done := make(chan struct{})
	pour := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		if tcp, ok := to.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
		done <- struct{}{}
	}
	go pour(inside, outside)
	go pour(outside, inside)
	<-done
	<-done
}

// OutsideKubeconfig writes a kubeconfig for the administrator that works outside the namespaces, and returns its path.
func (l *Lab) OutsideKubeconfig() (string, error) {
	addr, err := l.Forward(net.JoinHostPort(hostAddress, apiPort))
	if err != nil {
		return "", err
	}
	file := filepath.Join(l.dir, "kubeconfig-outside")
	return file, l.writeKubeconfig(file, userAdmin, "https://"+addr, l.certificateOf(userAdmin))
}
