package kubelet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// probe runs a container's probes until the context ends. What makes the container due for a restart is sent to dead.
func (c *container) probe(ctx context.Context, dead chan<- string) {
	fail := func(kind string) func(error) {
		return func(err error) {
			select {
			case dead <- fmt.Sprintf("%s probe failed: %v", kind, err):
			default:
			}
		}
	}
	if c.spec.StartupProbe != nil {
		started := false
		c.repeat(ctx, c.spec.StartupProbe, func() bool { started = true; return false }, fail("startup"))
		if !started {
			return
		}
		c.change(func() { c.started, c.ready = true, c.spec.ReadinessProbe == nil })
	}
	var probes sync.WaitGroup
	if c.spec.LivenessProbe != nil {
		probes.Go(func() { c.repeat(ctx, c.spec.LivenessProbe, func() bool { return true }, fail("liveness")) })
	}
	if c.spec.ReadinessProbe != nil {
		set := func(ready bool) {
			c.mu.Lock()
			same := c.ready == ready
			c.mu.Unlock()
			if !same {
				c.change(func() { c.ready = ready && c.pid != 0 })
			}
		}
		probes.Go(func() {
			c.repeat(ctx, c.spec.ReadinessProbe, func() bool { set(true); return true }, func(error) { set(false) })
		})
	}
	probes.Wait()
}

// repeat asks with the probe's period, and calls good or bad whenever as many answers in a row as the thresholds say were so. It
// ends with the context, or when good says so.
func (c *container) repeat(ctx context.Context, probe *corev1.Probe, good func() bool, bad func(error)) {
	period := seconds(probe.PeriodSeconds, 10)
	if !wait(ctx, seconds(probe.InitialDelaySeconds, 0)) {
		return
	}
	var successes, failures int32
	for {
		err := c.ask(ctx, probe)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			successes, failures = successes+1, 0
			if successes >= max(probe.SuccessThreshold, 1) && !good() {
				return
			}
		} else {
			successes, failures = 0, failures+1
			if failures >= probe.FailureThreshold { // the API server has set the default
				bad(err)
			}
		}
		if !wait(ctx, period) {
			return
		}
	}
}

func seconds(n, otherwise int32) time.Duration {
	if n == 0 {
		n = otherwise
	}
	return time.Duration(n) * time.Second
}

// probeClient does as a kubelet does: it trusts every certificate, follows no redirect, and keeps no connection.
var probeClient = &http.Client{
	Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (c *container) ask(ctx context.Context, probe *corev1.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, seconds(probe.TimeoutSeconds, 1))
	defer cancel()
	if probe.TCPSocket != nil {
		address, err := c.target(probe.TCPSocket.Host, probe.TCPSocket.Port)
		if err != nil {
			return err
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			conn.Close()
		}
		return err
	}
	get := probe.HTTPGet
	address, err := c.target(get.Host, get.Port)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet,
		strings.ToLower(string(get.Scheme))+"://"+address+"/"+strings.TrimPrefix(get.Path, "/"), nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "kube-probe/lab")
	for _, header := range get.HTTPHeaders {
		request.Header.Set(header.Name, header.Value)
	}
	response, err := probeClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	if response.StatusCode < 200 || response.StatusCode >= 400 {
		return fmt.Errorf("HTTP probe failed with statuscode: %d: %s", response.StatusCode, body)
	}
	return nil
}

// target returns the address of a port given by number or by the name that the container has for it.
func (c *container) target(host string, port intstr.IntOrString) (string, error) {
	if host == "" {
		host = c.worker.address.String()
	}
	number := port.IntValue()
	for _, p := range c.spec.Ports {
		if port.Type == intstr.String && p.Name == port.StrVal {
			number = int(p.ContainerPort)
		}
	}
	if number == 0 {
		return "", errors.New("the container has no port named " + port.StrVal)
	}
	return net.JoinHostPort(host, fmt.Sprint(number)), nil
}
