// Command demo is `make demo`: it starts a lab, installs Kubetide from deploy/ with the rights that it ships with, applies the
// examples, and shows a plain HPA and an IHPA scaling for real. It leaves the lab up. The binaries that it starts are in bin/.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/term"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
)

const (
	labName   = "demo"
	namespace = "demo"
	system    = "kubetide-system"
)

func main() {
	keep := flag.Bool("keep", true, "leave the lab up at the end")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "Shows Kubetide scaling an HPA and an IHPA on a real control plane on this machine. Run it in the repository's folder.")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctrl.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *keep)
	interrupted := ctx.Err() != nil
	stop()
	if err != nil {
		if interrupted {
			fmt.Fprintln(os.Stderr, "\ndemo: interrupted; end the lab with: make lab-down NAME="+labName)
			os.Exit(130)
		}
		fmt.Fprintln(os.Stderr, "demo: "+err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context, keep bool) error {
	bin, err := filepath.Abs("bin")
	if err != nil {
		return err
	}
	lab := filepath.Join(bin, "lab")
	_ = exec.CommandContext(ctx, lab, "down", "--name", labName).Run() // one that an earlier demo left up
	say("starting a control plane; the first time it is built from source, which takes minutes")
	if err := command(ctx, lab, "up", "--name", labName, "--metrics-server",
		"--image", "kubetide/kubetide="+filepath.Join(bin, "kubetide"), "--image", "kubetide/demo-shop="+filepath.Join(bin, "demo-shop")); err != nil {
		return err
	}
	if !keep {
		defer func() { _ = exec.Command(lab, "down", "--name", labName).Run() }()
	}
	out, err := exec.CommandContext(ctx, lab, "kubeconfig", "--name", labName).Output()
	if err != nil {
		return fmt.Errorf("lab kubeconfig: %w", err)
	}
	kubeconfig := strings.TrimSpace(string(out))
	kubectl := func(args ...string) error {
		return command(ctx, lab, append([]string{"exec", "--name", labName, "--", "kubectl"}, args...)...)
	}

	say("installing Kubetide: kubectl apply --server-side -k deploy/kustomize/base")
	if err := kubectl("apply", "--server-side", "-k", "deploy/kustomize/base"); err != nil {
		return err
	}
	if err := kubectl("-n", system, "rollout", "status", "--timeout=120s", "-l", "app.kubernetes.io/name=kubetide", "statefulset,deployment"); err != nil {
		return err
	}
	if err := kubectl("wait", "--for=condition=Available", "--timeout=60s", "apiservice", "-l", "app.kubernetes.io/name=kubetide"); err != nil {
		return err
	}

	say("applying deploy/examples into the namespace %s", namespace)
	if err := kubectl("create", "namespace", namespace); err != nil {
		return err
	}
	for _, file := range []string{"hpa-pod-json-and-schedule.yaml", "ihpa-gray-cutoff.yaml"} {
		if err := kubectl("apply", "-n", namespace, "-f", filepath.Join("deploy", "examples", file)); err != nil {
			return err
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 200, 400
	if err := show(ctx, config); err != nil {
		return err
	}
	if keep {
		fmt.Printf(`
The lab stays up. Look around with

    export KUBECONFIG=%s
    kubectl -n %[2]s get ihpa,hpa,pods -L kapacitystack.io/pod-state
    kubectl -n %[2]s describe ihpa nginx
    kubectl get --raw '/apis/custom.metrics.k8s.io/v1beta2/namespaces/%[2]s/pods/*/orders-per-second?labelSelector=app=shop'

(no kubectl? bin/lab exec --name %[3]s -- kubectl ...), and end it with

    make lab-down NAME=%[3]s
`, kubeconfig, namespace, labName)
	}
	return nil
}

func say(format string, args ...any) { fmt.Printf("==> "+format+"\n", args...) }

// command runs a command and shows what it prints.
func command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", filepath.Base(name), strings.Join(args, " "), err)
	}
	return nil
}

// plan is the demo's course of events.
type plan struct {
	opens, closes time.Time // the IHPA's cron window
	saleBegins    time.Time // the ScalingSchedule's window
	saleEnds      time.Time
	ends          time.Time
}

// newPlan lets the cron window begin at the next full minute that leaves time to apply it. The gray run takes 90 seconds after
// its end; meanwhile the sale begins and ends, and the orders fall.
func newPlan(now time.Time) plan {
	opens := now.Add(8 * time.Second).Truncate(time.Minute).Add(time.Minute)
	closes := opens.Add(time.Minute)
	return plan{
		opens: opens, closes: closes,
		saleBegins: closes, saleEnds: closes.Add(time.Minute),
		ends: closes.Add(100 * time.Second),
	}
}

// orders is how many orders a second the demo sends at an instant.
func (p plan) orders(now time.Time) int {
	switch {
	case now.Before(p.opens.Add(5 * time.Second)):
		return 5
	case now.Before(p.saleEnds):
		return 25
	default:
		return 5
	}
}

func (p plan) step(now time.Time) string {
	switch {
	case now.Before(p.opens):
		return "5 orders/s; the IHPA's cron window opens at " + p.opens.Local().Format("15:04:05")
	case now.Before(p.closes):
		return "25 orders/s; the cron window is open until " + p.closes.Local().Format("15:04:05")
	case now.Before(p.saleEnds):
		return "the sale's schedule asks for 60 orders' worth; the IHPA cuts pods in gray steps"
	default:
		return "the sale is over, 5 orders/s; cut pods are observed until " + p.closes.Add(90*time.Second).Local().Format("15:04:05")
	}
}

// show runs the plan and shows it, redrawn once a second on a terminal, else a line for each change.
func show(ctx context.Context, config *rest.Config) error {
	watcher, err := newWatcher(config)
	if err != nil {
		return err
	}
	p := newPlan(time.Now())
	if err := watcher.apply(ctx, p); err != nil {
		return err
	}
	shop, err := newCustomers(config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go shop.send(ctx, p)

	screen := term.IsTerminal(int(os.Stdout.Fd()))
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last view
	for {
		now := time.Now()
		v, err := watcher.look(ctx, p, now)
		switch {
		case err != nil && ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			v = last
			v.step = "cannot look: " + err.Error()
		}
		if screen {
			columns, _, err := term.GetSize(int(os.Stdout.Fd()))
			if err != nil {
				columns = 80
			}
			fmt.Print("\x1b[H\x1b[2J" + frame(v, columns))
		} else {
			for _, line := range changes(last, v) {
				fmt.Println(line)
			}
		}
		last = v
		if now.After(p.ends) && v.ihpa.online == 1 && v.ihpa.cutoff == 0 && len(v.ihpa.pods) == 1 {
			return nil
		}
		if now.After(p.ends.Add(time.Minute)) {
			return fmt.Errorf("the gray run should have ended by now; the last view:\n%s", frame(v, 1000))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// customers send orders to the shop's Service through the API server, which picks a ready pod for each.
type customers struct {
	client *http.Client
	url    string
}

func newCustomers(config *rest.Config) (*customers, error) {
	config = rest.CopyConfig(config)
	// One connection for each order in flight: over HTTP/2 they would share one.
	config.NextProtos = []string{"http/1.1"}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	client.Timeout = 5 * time.Second
	return &customers{client, config.Host + "/api/v1/namespaces/" + namespace + "/services/shop:http/proxy/order"}, nil
}

func (c *customers) send(ctx context.Context, p plan) {
	inFlight := make(chan struct{}, 50)
	for {
		now := time.Now()
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second / time.Duration(p.orders(now))):
		}
		select {
		case inFlight <- struct{}{}:
			go func() {
				defer func() { <-inFlight }()
				c.order(ctx)
			}()
		default: // the shop is slower than its customers; these give up
		}
	}
}

func (c *customers) order(ctx context.Context) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return
	}
	response, err := c.client.Do(request)
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<16))
	_ = response.Body.Close()
}
