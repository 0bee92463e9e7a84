package lab

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// authority is a certificate authority that lives as long as one lab.
type authority struct {
	cert    *x509.Certificate
	certPEM []byte
	key     crypto.Signer
}

// keyPair is a certificate with its key, as PEM.
type keyPair struct{ cert, key []byte }

func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := certificate(pkix.Name{CommonName: name})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{cert: cert, certPEM: encodePEM("CERTIFICATE", der), key: key}, nil
}

func certificate(subject pkix.Name) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	return &x509.Certificate{
		SerialNumber: serial, Subject: subject,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
	}
}

// issue signs a certificate: for a client with no hosts, else for a server with these names and addresses.
func (a *authority) issue(user string, groups []string, hosts ...string) (keyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return keyPair{}, err
	}
	template := certificate(pkix.Name{CommonName: user, Organization: groups})
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	for _, host := range hosts {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return keyPair{}, err
	}
	keyPEM, err := encodeKey(key)
	return keyPair{cert: encodePEM("CERTIFICATE", der), key: keyPEM}, err
}

// encodeKey uses the form that kube-apiserver takes a public key from, too.
func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return encodePEM("EC PRIVATE KEY", der), nil
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// pki holds every certificate of a lab; files are named after their use.
type pki struct {
	dir   string
	ca    *authority
	users map[string]keyPair
}

// The users of the lab's own parts. Each has its own name, so that the audit log tells who wrote what.
const (
	userAdmin     = "lab:admin"
	userKwok      = "lab:kwok"
	userKubelet   = "lab:kubelet"
	userDNS       = "lab:dns"
	userManager   = "system:kube-controller-manager"
	userScheduler = "system:kube-scheduler"
)

func newPKI(dir string) (*pki, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ca, err := newAuthority("kubetide-lab")
	if err != nil {
		return nil, err
	}
	front, err := newAuthority("kubetide-lab-front-proxy")
	if err != nil {
		return nil, err
	}
	p := &pki{dir: dir, ca: ca, users: map[string]keyPair{}}
	for user, groups := range map[string][]string{
		userAdmin: {"system:masters"}, userKwok: {"system:masters"}, userKubelet: {"system:masters"}, userDNS: {"system:masters"},
		userManager: nil, userScheduler: nil,
	} {
		if p.users[user], err = ca.issue(user, groups); err != nil {
			return nil, err
		}
	}
	serving, err := ca.issue("kube-apiserver", nil, "localhost", "127.0.0.1", hostAddress, serviceAddress,
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
	if err != nil {
		return nil, err
	}
	proxy, err := front.issue("front-proxy-client", nil)
	if err != nil {
		return nil, err
	}
	local, err := ca.issue("kubetide-lab", nil, "127.0.0.1", hostAddress, "localhost")
	if err != nil {
		return nil, err
	}
	accounts, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	accountsKey, err := encodeKey(accounts)
	if err != nil {
		return nil, err
	}
	for name, data := range map[string][]byte{
		"ca.crt": ca.certPEM, "front-proxy-ca.crt": front.certPEM, "service-accounts.key": accountsKey,
		"apiserver.crt": serving.cert, "apiserver.key": serving.key,
		"front-proxy.crt": proxy.cert, "front-proxy.key": proxy.key,
		"local.crt": local.cert, "local.key": local.key,
		"admin.crt": p.users[userAdmin].cert, "admin.key": p.users[userAdmin].key,
	} {
		if err := os.WriteFile(p.file(name), data, 0o600); err != nil {
			return nil, fmt.Errorf("write certificate: %w", err)
		}
	}
	return p, nil
}

func (p *pki) file(name string) string { return filepath.Join(p.dir, name) }

// SelfSigned returns a key and a certificate that is its own authority, as PEM, for a server with these names and addresses.
func SelfSigned(hosts ...string) (key, cert []byte, err error) {
	ca, err := newAuthority(hosts[0])
	if err != nil {
		return nil, nil, err
	}
	pair, err := ca.issue(hosts[0], nil, hosts...)
	return pair.key, append(pair.cert, ca.certPEM...), err
}
