package kubelet

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// serve serves the parts of a kubelet's API that kubectl logs and metrics-server use.
func (k *Kubelet) serve(ctx context.Context, listener net.Listener) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", k.serveLogs)
	mux.HandleFunc("GET /nodes/{node}/metrics/resource", k.serveUsage)
	server := &http.Server{Handler: mux, BaseContext: func(net.Listener) context.Context { return ctx }}
	k.work.Go(func() { _ = server.ServeTLS(listener, k.CertFile, k.KeyFile) })
	k.work.Go(func() { <-ctx.Done(); server.Close() })
}

// serveLogs serves a container's log, all runs in one; it knows follow and tailLines.
func (k *Kubelet) serveLogs(out http.ResponseWriter, in *http.Request) {
	file, err := os.Open(k.logFile(in.PathValue("namespace"), in.PathValue("pod"), in.PathValue("container")))
	if err != nil {
		http.Error(out, "the container has no log: "+err.Error(), http.StatusNotFound)
		return
	}
	defer file.Close()
	out.Header().Set("Content-Type", "text/plain")
	if lines, err := strconv.Atoi(in.URL.Query().Get("tailLines")); err == nil {
		data, _ := io.ReadAll(file)
		all := strings.SplitAfter(string(data), "\n")
		_, _ = io.WriteString(out, strings.Join(all[max(0, len(all)-1-lines):], ""))
	} else {
		_, _ = io.Copy(out, file)
	}
	if in.URL.Query().Get("follow") != "true" {
		return
	}
	for ctx := in.Context(); wait(ctx, 200*time.Millisecond); {
		if n, err := io.Copy(out, file); err != nil {
			return
		} else if n > 0 {
			_ = http.NewResponseController(out).Flush()
		}
		if k.find(in.PathValue("namespace"), in.PathValue("pod")) == nil {
			return
		}
	}
}

// serveUsage serves the real usage of a node's processes, in the form that metrics-server reads.
func (k *Kubelet) serveUsage(out http.ResponseWriter, in *http.Request) {
	k.mu.Lock()
	var workers []*worker
	for _, w := range k.workers {
		if w.latest().Spec.NodeName == in.PathValue("node") {
			workers = append(workers, w)
		}
	}
	k.mu.Unlock()
	now := time.Now().UnixMilli()
	var totalCPU, totalMemory float64
	for _, w := range workers {
		pod := w.latest()
		for _, c := range w.containers {
			cpu, memory, start, ok := c.usage()
			if !ok {
				continue
			}
			totalCPU, totalMemory = totalCPU+cpu, totalMemory+memory
			labels := fmt.Sprintf("{container=%q,namespace=%q,pod=%q}", c.spec.Name, pod.Namespace, pod.Name)
			fmt.Fprintf(out, "container_cpu_usage_seconds_total%s %g %d\n", labels, cpu, now)
			fmt.Fprintf(out, "container_memory_working_set_bytes%s %g %d\n", labels, memory, now)
			fmt.Fprintf(out, "container_start_time_seconds%s %g\n", labels, start)
		}
	}
	fmt.Fprintf(out, "node_cpu_usage_seconds_total %g %d\n", totalCPU, now)
	fmt.Fprintf(out, "node_memory_working_set_bytes %g %d\n", totalMemory, now)
}

// usage returns the container's processor seconds over all runs, its resident bytes, and when it started.
func (c *container) usage() (cpu, memory, start float64, ok bool) {
	c.mu.Lock()
	pid, used, state := c.pid, c.used, c.state
	c.mu.Unlock()
	if pid == 0 || state.Running == nil {
		return 0, 0, 0, false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, 0, false
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 22 {
		return 0, 0, 0, false
	}
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	pages, _ := strconv.ParseFloat(fields[21], 64)
	const ticksPerSecond = 100 // USER_HZ, on every platform that Go runs on
	return used.Seconds() + (user+system)/ticksPerSecond, pages * float64(os.Getpagesize()), float64(state.Running.StartedAt.Unix()), true
}
