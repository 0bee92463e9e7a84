package lab

import (
	"context"
	_ "embed"
	"encoding/base64"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// metricsServerYAML is metrics-server as a cluster has it; its pod is a process.
//
//go:embed metrics-server.yaml
var metricsServerYAML string

// installMetricsServer installs metrics-server and waits until it answers.
func (l *Lab) installMetricsServer(ctx context.Context) error {
	l.say("installing metrics-server")
	if err := l.RegisterImage(ctx, "lab.kubetide.io/metrics-server", l.binaries["metrics-server"]); err != nil {
		return err
	}
	pair, err := l.pki.ca.issue("metrics-server", nil, "metrics-server.kube-system.svc")
	if err != nil {
		return err
	}
	_, err = l.client.CoreV1().Secrets("kube-system").Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "metrics-server"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: pair.cert, corev1.TLSPrivateKeyKey: pair.key},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("install metrics-server: %w", err)
	}
	apiService := fmt.Sprintf(`---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec:
  group: metrics.k8s.io
  version: v1beta1
  service: {name: metrics-server, namespace: kube-system}
  caBundle: %s
  groupPriorityMinimum: 100
  versionPriority: 100
`, base64.StdEncoding.EncodeToString(l.pki.ca.certPEM))
	if err := l.Apply(ctx, metricsServerYAML+apiService); err != nil {
		return fmt.Errorf("install metrics-server: %w", err)
	}
	if _, err := l.Kubectl(ctx, "wait", "--for=condition=Available", "--timeout=90s", "apiservice/v1beta1.metrics.k8s.io"); err != nil {
		logs, _ := l.Kubectl(ctx, "-n", "kube-system", "logs", "-l", "app=metrics-server", "--tail=20")
		return fmt.Errorf("install metrics-server: %w; the end of its log:\n%s", err, logs)
	}
	return nil
}
