package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/kubernetes/fake"
	clocktesting "k8s.io/utils/clock/testing"
)

type fixedCA []byte

func (f fixedCA) CurrentCABundleContent() []byte { return f }

// made is a CA and a serving certificate for the names, made now.
func made(t *testing.T, names ...string) map[string][]byte {
	t.Helper()
	s, _, _, err := plan(state{}, names, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	data, err := s.encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func peersOf(t *testing.T, data map[string][]byte, ca CA) *Peers {
	t.Helper()
	content, err := dynamiccertificates.NewStaticCertKeyContent("test", data[keyCert], data[keyKey])
	if err != nil {
		t.Fatal(err)
	}
	return NewPeers(content, ca, names[0])
}

// greet lets the two sides send a byte each way, and returns what each says against that.
func greet(t *testing.T, client, server *Peers) (clientErr, serverErr error) {
	t.Helper()
	config, err := client.Client()
	if err != nil {
		return err, err
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan error)
	go func() {
		conn := tls.Server(b, server.Server())
		err := conn.Handshake()
		if err == nil {
			_, err = conn.Write([]byte("x"))
		}
		_ = b.Close()
		done <- err
	}()
	conn := tls.Client(a, config)
	if clientErr = conn.Handshake(); clientErr == nil {
		_, clientErr = io.ReadFull(conn, make([]byte, 1))
	}
	_ = a.Close()
	return clientErr, <-done
}

func TestPeersTrustEachOther(t *testing.T) {
	one, other := made(t, names...), made(t, names...)
	foreign := made(t, "other.svc")
	both := fixedCA(slices.Concat(one[keyCACerts], other[keyCACerts]))
	own := func(data map[string][]byte) fixedCA { return fixedCA(data[keyCACerts]) }
	for name, tt := range map[string]struct {
		client, server *Peers
		trust          bool
	}{
		"the same CA":                             {peersOf(t, one, own(one)), peersOf(t, one, own(one)), true},
		"another CA on both sides":                {peersOf(t, one, own(one)), peersOf(t, other, own(other)), false},
		"a server that does not trust the client": {peersOf(t, other, both), peersOf(t, one, own(one)), false},
		"a client that does not trust the server": {peersOf(t, one, own(one)), peersOf(t, other, both), false},
		"two CAs in a rotation":                   {peersOf(t, one, both), peersOf(t, other, both), true},
		"a client's certificate for another name": {peersOf(t, foreign, own(one)), peersOf(t, one, own(foreign)), false},
		"a server's certificate for another name": {peersOf(t, one, own(foreign)), peersOf(t, foreign, own(one)), false},
		"no CA yet":                           {peersOf(t, one, fixedCA(nil)), peersOf(t, one, own(one)), false},
		"a server without a CA trusts nobody": {peersOf(t, one, own(one)), peersOf(t, one, fixedCA("no PEM")), false},
	} {
		t.Run(name, func(t *testing.T) {
			clientErr, serverErr := greet(t, tt.client, tt.server)
			if trust := clientErr == nil && serverErr == nil; trust != tt.trust {
				t.Errorf("client: %v; server: %v", clientErr, serverErr)
			}
		})
	}
	if err := peersOf(t, one, own(one)).Verify(tls.ConnectionState{}, x509.ExtKeyUsageClientAuth); err == nil {
		t.Error("no certificate is trusted")
	}
}

// One that a version made that knew servers only is replaced.
func TestACertificateForServersOnlyIsReplaced(t *testing.T) {
	defer func(all []x509.ExtKeyUsage) { usages = all }(usages)
	all := usages
	usages = usages[:1]
	old, _, _, err := plan(state{}, names, start)
	if err != nil {
		t.Fatal(err)
	}
	usages = all
	next, reasons, _, err := plan(old, names, start)
	if err != nil || len(reasons) != 1 || !slices.Contains(next.serving.cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
		t.Errorf("%q, %v", reasons, err)
	}
}

func TestTheCABundleFollowsItsFile(t *testing.T) {
	one, other := made(t, names...), made(t, names...)
	file := filepath.Join(t.TempDir(), "ca.crt")
	if _, err := NewCAFile(file); err == nil {
		t.Error("a file that is not there is read")
	}
	if err := os.WriteFile(file, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewCAFile(file); err == nil {
		t.Error("a file without certificates is taken")
	}
	if err := os.WriteFile(file, one[keyCACerts], 0o600); err != nil {
		t.Fatal(err)
	}
	ca, err := NewCAFile(file)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- ca.Run(t.Context()) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	peers := peersOf(t, one, ca)
	if clientErr, serverErr := greet(t, peers, peers); clientErr != nil || serverErr != nil {
		t.Fatal(clientErr, serverErr)
	}
	if err := os.WriteFile(file, other[keyCACerts], 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other CA is trusted", func() bool {
		clientErr, _ := greet(t, peersOf(t, other, ca), peersOf(t, other, ca))
		return clientErr == nil
	})
	if clientErr, serverErr := greet(t, peers, peers); clientErr == nil && serverErr == nil {
		t.Error("the old one is still trusted")
	}
}

func TestTheKeeperGivesItsCAs(t *testing.T) {
	client := fake.NewClientset()
	k, _ := startKeeper(t, client, fakeDynamic(), clocktesting.NewFakeClock(time.Now()))
	for _, name := range []string{names[0], "kubetide-engine.kubetide-system.svc"} {
		peers := NewPeers(k, k, name)
		if clientErr, serverErr := greet(t, peers, peers); clientErr != nil || serverErr != nil {
			t.Error(clientErr, serverErr)
		}
	}
	if ca := k.CurrentCABundleContent(); !bytes.Contains(ca, []byte("BEGIN CERTIFICATE")) {
		t.Errorf("%q", ca)
	}
}
