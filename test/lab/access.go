package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"
)

// ConfigFor returns a configuration with a real token of the ServiceAccount, valid for one hour. It has no rights but those that
// RBAC gives to the account.
func (l *Lab) ConfigFor(ctx context.Context, namespace, serviceAccount string) (*rest.Config, error) {
	token, err := l.tokenFor(ctx, namespace, serviceAccount, time.Hour)
	if err != nil {
		return nil, err
	}
	config := l.AnonymousConfig()
	config.BearerToken = token
	return config, nil
}

func (l *Lab) tokenFor(ctx context.Context, namespace, serviceAccount string, valid time.Duration) (string, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(valid.Seconds()))}}
	answer, err := l.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, serviceAccount, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("get a token for ServiceAccount %s/%s: %w", namespace, serviceAccount, err)
	}
	return answer.Status.Token, nil
}

// KubeconfigFor writes a kubeconfig with such a token, for programs inside that take a file, and returns its path.
func (l *Lab) KubeconfigFor(ctx context.Context, namespace, serviceAccount string) (string, error) {
	config, err := l.ConfigFor(ctx, namespace, serviceAccount)
	if err != nil {
		return "", err
	}
	file := filepath.Join(l.dir, "kubeconfig-"+namespace+"-"+serviceAccount)
	return file, l.writeKubeconfig(file, serviceAccount, config.Host, &clientcmdapi.AuthInfo{Token: config.BearerToken})
}

// AnonymousConfig returns a configuration that trusts the API server and tells it nothing about the caller.
func (l *Lab) AnonymousConfig() *rest.Config {
	config := rest.AnonymousClientConfig(l.Config())
	config.QPS = -1
	return config
}

// ticksPerSecond is the kernel's USER_HZ, 100 on every platform that Go runs on.
const ticksPerSecond = 100

// CPU returns the processor time used so far by each program inside the namespaces, added up by name and children included:
// the lab's parts, process pods, and the test itself.
func (l *Lab) CPU() (map[string]time.Duration, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	used := map[string]time.Duration{}
	for _, file := range stats {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		text := string(data)
		open, shut := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
		fields := strings.Fields(text[shut+1:])
		if open < 0 || len(fields) < 15 {
			return nil, fmt.Errorf("read processor times: %s: unexpected content %q", file, text)
		}
		name := text[open+1 : shut]
		if link, err := os.Readlink(filepath.Join(filepath.Dir(file), "exe")); err == nil {
			name = filepath.Base(link) // the kernel cuts names at 15 bytes
		}
		// user and system time of the process, then of its children that have ended
		for _, field := range fields[11:15] {
			ticks, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("read processor times: %s: %w", file, err)
			}
			used[name] += time.Duration(ticks) * time.Second / ticksPerSecond
		}
	}
	return used, nil
}
