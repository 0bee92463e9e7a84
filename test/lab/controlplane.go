package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kubetide/kubetide/test/lab/dns"
	"github.com/kubetide/kubetide/test/lab/kubelet"
	"github.com/kubetide/kubetide/test/lab/namespace"
)

const (
	etcdURL = "http://127.0.0.1:2379"
	// kwokPort and kubeletPort serve the kubelet API of simulated nodes and of process nodes.
	kwokPort, kubeletPort = 10247, 10250
	// nodeLabel tells the two kinds of node apart.
	nodeLabel     = "lab.kubetide.io/node"
	nodeSimulated = "simulated"
	nodeProcess   = "process"
	processNodes  = 3
)

// auditPolicy records every request, once, without bodies.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
`

func (l *Lab) startControlPlane(ctx context.Context) error {
	l.say("starting etcd and kube-apiserver")
	etcd, err := l.run("etcd", "--data-dir="+filepath.Join(l.dir, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls="+etcdURL, "--advertise-client-urls="+etcdURL, "--listen-peer-urls=http://127.0.0.1:2380",
		"--quota-backend-bytes=8589934592", "--log-level=warn")
	if err != nil {
		return err
	}
	if err := etcd.await(ctx, "it is healthy", get(http.DefaultClient, etcdURL+"/health")); err != nil {
		return err
	}
	api, err := l.startAPIServer()
	if err != nil {
		return err
	}
	if l.client, err = kubernetes.NewForConfig(l.Config()); err != nil {
		return err
	}
	adminHTTP, err := rest.HTTPClientFor(l.Config())
	if err != nil {
		return err
	}
	if err := api.await(ctx, "it is ready", get(adminHTTP, l.Config().Host+"/readyz")); err != nil {
		return err
	}
	if err := l.writeKubeconfig(l.KubeconfigPath(), userAdmin, l.Config().Host, l.certificateOf(userAdmin)); err != nil {
		return err
	}

	l.say("starting kube-controller-manager, kube-scheduler, kwok")
	manager, err := l.startWith(userManager, "kube-controller-manager",
		"--root-ca-file="+l.pki.file("ca.crt"), "--service-account-private-key-file="+l.pki.file("service-accounts.key"),
		"--use-service-account-credentials", "--leader-elect=false", "--bind-address=127.0.0.1",
		"--kube-api-qps=500", "--kube-api-burst=1000",
		// Nodes that miss renewals, as in an outage of the API server, would stay unready: their status is written only once.
		"--node-monitor-grace-period=10m",
		"--horizontal-pod-autoscaler-sync-period="+l.options.HPASyncPeriod.String())
	if err != nil {
		return err
	}
	scheduler, err := l.startWith(userScheduler, "kube-scheduler", "--leader-elect=false", "--bind-address=127.0.0.1",
		"--kube-api-qps=500", "--kube-api-burst=1000")
	if err != nil {
		return err
	}
	kwok, err := l.startKwok()
	if err != nil {
		return err
	}
	parts, waiting := errgroup.WithContext(ctx)
	parts.Go(func() error {
		return scheduler.await(waiting, "it is healthy", get(adminHTTP, "https://127.0.0.1:10259/healthz"))
	})
	parts.Go(func() error {
		return kwok.await(waiting, "it is healthy", get(http.DefaultClient, fmt.Sprintf("http://127.0.0.1:%d/healthz", kwokPort)))
	})
	parts.Go(func() error {
		return manager.await(waiting, "the namespace default has its ServiceAccount", func(ctx context.Context) error {
			_, err := l.client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
			return err
		})
	})
	parts.Go(func() error { return l.makeNodes(waiting, manager) })
	if err := parts.Wait(); err != nil {
		return err
	}
	if l.dns, err = dns.Start(ctx, l.configOf(userDNS), net.JoinHostPort(namespace.DNSAddress, "53")); err != nil {
		return fmt.Errorf("start DNS: %w", err)
	}
	if err := l.startKubelet(ctx); err != nil {
		return err
	}
	if l.options.MetricsServer {
		if err := l.installMetricsServer(ctx); err != nil {
			return err
		}
	}
	l.say("ready")
	return nil
}

func (l *Lab) startAPIServer() (*component, error) {
	policy := filepath.Join(l.dir, "audit-policy.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o644); err != nil {
		return nil, err
	}
	args := []string{
		// Not on every address: pods have the port, too.
		"--etcd-servers=" + etcdURL, "--bind-address=" + hostAddress, "--secure-port=" + apiPort, "--advertise-address=" + hostAddress,
		"--service-cluster-ip-range=" + serviceCIDR, "--authorization-mode=RBAC", "--allow-privileged=true",
		"--tls-cert-file=" + l.pki.file("apiserver.crt"), "--tls-private-key-file=" + l.pki.file("apiserver.key"),
		"--client-ca-file=" + l.pki.file("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + l.pki.file("service-accounts.key"),
		"--service-account-signing-key-file=" + l.pki.file("service-accounts.key"),
		"--requestheader-client-ca-file=" + l.pki.file("front-proxy-ca.crt"), "--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + l.pki.file("front-proxy.crt"), "--proxy-client-key-file=" + l.pki.file("front-proxy.key"),
		// Services reach APIServices and webhooks by a ready endpoint's address: there is no kube-proxy.
		"--enable-aggregator-routing=true",
		"--kubelet-preferred-address-types=InternalIP",
		"--kubelet-client-certificate=" + l.pki.file("admin.crt"), "--kubelet-client-key=" + l.pki.file("admin.key"),
		"--audit-policy-file=" + policy, "--audit-log-path=" + l.auditLog(), "--audit-log-maxsize=10000",
	}
	l.mu.Lock()
	l.apiServers++
	log := "kube-apiserver"
	if l.apiServers > 1 {
		log = fmt.Sprintf("%s-%d", log, l.apiServers)
	}
	l.mu.Unlock()
	server, err := l.launch(log, l.binaries["kube-apiserver"], nil, append(args, l.options.APIServerArgs...)...)
	if err == nil {
		l.mu.Lock()
		l.apiServer = server
		l.mu.Unlock()
	}
	return server, err
}

// outage is a time without a ready kube-apiserver; to is zero while it lasts.
type outage struct{ from, to time.Time }

// APIServerWasReady reports whether kube-apiserver was ready at that time. From StopAPIServer until it is ready again it may
// answer, but it denies what it has not yet read the rights of.
func (l *Lab) APIServerWasReady(at time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !slices.ContainsFunc(l.outages, func(o outage) bool {
		return !at.Before(o.from) && (o.to.IsZero() || at.Before(o.to))
	})
}

// StopAPIServer kills kube-apiserver: connections break, and new ones are refused. Everything else goes on, without it.
func (l *Lab) StopAPIServer() {
	l.mu.Lock()
	server := l.apiServer
	l.outages = append(l.outages, outage{from: time.Now()})
	l.mu.Unlock()
	server.kill()
}

// StartAPIServer brings kube-apiserver back after StopAPIServer, with the data that were there, and returns when it is ready.
func (l *Lab) StartAPIServer(ctx context.Context) error {
	server, err := l.startAPIServer()
	if err != nil {
		return err
	}
	admin, err := rest.HTTPClientFor(l.Config())
	if err != nil {
		return err
	}
	if err := server.await(ctx, "it is ready again", get(admin, l.Config().Host+"/readyz")); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outages[len(l.outages)-1].to = time.Now()
	return nil
}

// startWith runs a component that speaks to the API server as user.
func (l *Lab) startWith(user, name string, args ...string) (*component, error) {
	file := filepath.Join(l.dir, "pki", name+".kubeconfig")
	if err := l.writeKubeconfig(file, user, l.Config().Host, l.certificateOf(user)); err != nil {
		return nil, err
	}
	if name == "kube-controller-manager" {
		args = append(args, l.options.ControllerManagerArgs...)
	}
	return l.run(name, append([]string{
		"--kubeconfig=" + file, "--tls-cert-file=" + l.pki.file("local.crt"), "--tls-private-key-file=" + l.pki.file("local.key"),
	}, args...)...)
}

// certificateOf is how one of the lab's own users proves who it is.
func (l *Lab) certificateOf(user string) *clientcmdapi.AuthInfo {
	pair := l.pki.users[user]
	return &clientcmdapi.AuthInfo{ClientCertificateData: pair.cert, ClientKeyData: pair.key}
}

func (l *Lab) writeKubeconfig(file, user, server string, auth *clientcmdapi.AuthInfo) error {
	config := clientcmdapi.NewConfig()
	config.Clusters["lab"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: l.pki.ca.certPEM}
	config.AuthInfos[user] = auth
	config.Contexts["lab"] = &clientcmdapi.Context{Cluster: "lab", AuthInfo: user}
	config.CurrentContext = "lab"
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}

// get is a check that succeeds when the address answers 200.
func get(client *http.Client, url string) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s: %s", url, response.Status, body)
		}
		return nil
	}
}

// makeNodes creates all nodes and waits until pods may be placed on them.
func (l *Lab) makeNodes(ctx context.Context, manager *component) error {
	var names []string
	for i := range l.options.Nodes {
		names = append(names, fmt.Sprintf("node-%d", i+1))
		if err := l.makeNode(ctx, names[i], nodeSimulated, i); err != nil {
			return err
		}
	}
	for i := range processNodes {
		names = append(names, fmt.Sprintf("process-%d", i+1))
		if err := l.makeNode(ctx, names[len(names)-1], nodeProcess, i); err != nil {
			return err
		}
	}
	return manager.await(ctx, "all nodes are free of the not-ready taint", func(ctx context.Context) error {
		nodes, err := l.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, node := range nodes.Items {
			for _, taint := range node.Spec.Taints {
				if taint.Key == corev1.TaintNodeNotReady {
					return fmt.Errorf("node %s has the taint %s", node.Name, taint.Key)
				}
			}
		}
		return nil
	})
}

func (l *Lab) makeNode(ctx context.Context, name, kind string, index int) error {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: name,
		Labels: map[string]string{
			nodeLabel: kind, corev1.LabelHostname: name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64",
			corev1.LabelTopologyZone: fmt.Sprintf("zone-%c", 'a'+index%3), corev1.LabelTopologyRegion: "lab",
		},
	}}
	port := kubeletPort
	if kind == nodeSimulated {
		port = kwokPort
		node.Annotations = map[string]string{"metrics.k8s.io/resource-metrics-path": "/metrics/nodes/" + name + "/metrics/resource"}
	} else {
		node.Annotations = map[string]string{"metrics.k8s.io/resource-metrics-path": "/nodes/" + name + "/metrics/resource"}
		// Only pods that are processes tolerate this; the admission policy sees to it.
		node.Spec.Taints = []corev1.Taint{{Key: nodeLabel, Value: nodeProcess, Effect: corev1.TaintEffectNoSchedule}}
	}
	node, err := l.client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create node %s: %w", name, err)
	}
	now := metav1.Now()
	resources := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("1k"), corev1.ResourceMemory: resource.MustParse("1Ti"),
		corev1.ResourcePods: resource.MustParse("100k"), corev1.ResourceEphemeralStorage: resource.MustParse("1Ti"),
	}
	node.Status = corev1.NodeStatus{
		Capacity: resources, Allocatable: resources,
		Conditions: []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "the lab plays this node",
			LastHeartbeatTime: now, LastTransitionTime: now,
		}},
		Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}, {Type: corev1.NodeHostName, Address: name},
		},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(port)}},
		NodeInfo:        corev1.NodeSystemInfo{Architecture: "amd64", OperatingSystem: "linux", KubeletVersion: "v1.36.3"},
	}
	if _, err := l.client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("set status of node %s: %w", name, err)
	}
	return nil
}

func (l *Lab) startKubelet(ctx context.Context) error {
	config := l.configOf(userKubelet)
	var nodes []string
	for i := range processNodes {
		nodes = append(nodes, fmt.Sprintf("process-%d", i+1))
	}
	var err error
	l.kubelet, err = kubelet.Start(ctx, kubelet.Options{
		Config: config, Nodes: nodes, PodCIDR: processCIDR, APIServer: [2]string{hostAddress, apiPort},
		Nameserver: namespace.DNSAddress, ClusterDomain: dns.Domain,
		Listen:   fmt.Sprintf("127.0.0.1:%d", kubeletPort),
		CertFile: l.pki.file("local.crt"), KeyFile: l.pki.file("local.key"),
		Dir: filepath.Join(l.dir, "pods"), LogDir: filepath.Join(l.logDir(), "pods"), Binary: l.binary,
	})
	if err != nil {
		return fmt.Errorf("start the kubelet for processes: %w", err)
	}
	for image, binary := range l.options.Images {
		if err := l.RegisterImage(ctx, image, binary); err != nil {
			return err
		}
	}
	return nil
}

// KubeconfigPath is the administrator's kubeconfig, for use inside the namespaces.
func (l *Lab) KubeconfigPath() string { return filepath.Join(l.dir, "kubeconfig") }

// KubectlPath is the binary of kubectl, also to be registered as an image.
func (l *Lab) KubectlPath() string { return l.binaries["kubectl"] }

// Kubectl runs kubectl as administrator and returns what it printed on its standard output; the error carries the rest.
func (l *Lab) Kubectl(ctx context.Context, args ...string) (string, error) {
	return l.KubectlInput(ctx, "", args...)
}

// KubectlInput is Kubectl with something to read, for apply -f -.
func (l *Lab) KubectlInput(ctx context.Context, input string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, l.binaries["kubectl"], args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+l.KubeconfigPath())
	var out, stderr strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &stderr
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return out.String(), nil
}

// Apply applies YAML as kubectl does.
func (l *Lab) Apply(ctx context.Context, yaml string) error {
	_, err := l.KubectlInput(ctx, yaml, "apply", "--server-side", "--field-manager=lab", "-f", "-")
	return err
}

// ApplyKustomize applies a kustomize folder as kubectl does.
func (l *Lab) ApplyKustomize(ctx context.Context, dir string) error {
	_, err := l.Kubectl(ctx, "apply", "--server-side", "--field-manager=lab", "-k", dir)
	return err
}
