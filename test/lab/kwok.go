package lab

import (
	_ "embed"
	"os"
	"path/filepath"
	"strconv"
)

// kwokYAML is how kwok plays pods: their stages, and their usage for metrics-server.
//
//go:embed kwok.yaml
var kwokYAML []byte

// The annotations by which a pod that kwok plays is told how to behave. They may be changed while it runs.
const (
	// AnnotationReadyAfter is how long the containers take to become ready ("5s", "1.5m", "200ms"); default at once. The
	// API's times have whole seconds, so it takes up to one second longer.
	AnnotationReadyAfter = "lab.kubetide.io/ready-after"
	// AnnotationReady "false" makes the containers unready, and removing it ready again.
	AnnotationReady = "lab.kubetide.io/ready"
	// AnnotationStart "never" keeps the pod Pending although it is placed.
	AnnotationStart = "lab.kubetide.io/start"
	// AnnotationTerminateAfter is how long the pod stays Terminating; default not at all.
	AnnotationTerminateAfter = "lab.kubetide.io/terminate-after"
	// AnnotationCPU is the cpu that each container of the pod uses; default 1m.
	AnnotationCPU = "kwok.x-k8s.io/usage-cpu"
	// AnnotationMemory is the memory that each container of the pod uses; default 1Mi.
	AnnotationMemory = "kwok.x-k8s.io/usage-memory"
)

func (l *Lab) startKwok() (*component, error) {
	config := filepath.Join(l.dir, "kwok.yaml")
	if err := os.WriteFile(config, kwokYAML, 0o644); err != nil {
		return nil, err
	}
	port := strconv.Itoa(kwokPort)
	return l.startWith(userKwok, "kwok", "--config="+config, "--v=WARN", "--manage-all-nodes=false",
		"--manage-nodes-with-label-selector="+nodeLabel+"="+nodeSimulated,
		"--cidr="+simulatedCIDR, "--node-ip=127.0.0.1", "--node-port="+port, "--server-address=127.0.0.1:"+port,
		"--node-lease-duration-seconds=40")
}
